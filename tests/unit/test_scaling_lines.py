"""The lines for servers in docs/SCALING.md are those with which the cluster's tests run them."""

import re
from pathlib import Path

from tests.support.galera_cluster import TIMEOUTS
from tests.support.rabbitmq_cluster import ADVANCED, CLUSTER

SCALING = (Path(__file__).parents[2] / "docs" / "SCALING.md").read_text()


def test_nodes_of_galera_are_tried_with_the_timeouts_of_the_document() -> None:
    assert re.findall(r'^wsrep_provider_options = "(.*)"$', SCALING, re.MULTILINE) == [TIMEOUTS]


def test_nodes_of_rabbitmq_are_tried_with_the_lines_of_the_document() -> None:
    assert CLUSTER in SCALING
    assert ADVANCED in SCALING
