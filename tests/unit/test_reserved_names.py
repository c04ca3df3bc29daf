"""Names that no service can have: others have them at brokers, as types of commands, and as programs."""

import pytest

from coordinator.service.defects import defects_of
from coordinator.service.lane_names import RESERVED
from coordinator.service.service import Service
from coordinator.transports.rabbitmq.topology import DEAD_EXCHANGE, SYSTEM_EXCHANGE, queue_name


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_service_of_such_a_name_is_refused(name: str) -> None:
    assert any(f"the name '{name}' is kept" in defect for defect in defects_of(Service(name)))


def test_a_lane_s_queue_has_no_name_of_what_others_may_use() -> None:
    assert {SYSTEM_EXCHANGE, DEAD_EXCHANGE} == {queue_name("system"), queue_name("dead")}


def test_defects_of_an_ordinary_name_are_none() -> None:
    assert not any("is kept" in defect for defect in defects_of(Service("seats")))
