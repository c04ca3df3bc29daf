"""What every store and every lane promises, on a node of a Galera cluster."""

from collections.abc import Iterator

import pytest

from tests.integration.test_stores import TestMysqlLane, TestMysqlStore, sql_ledgers
from tests.support.galera_cluster import galera_cluster, lack_of_galera
from tests.support.servers import Environment

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(lack_of_galera() is not None, reason=str(lack_of_galera())),
]
__all__ = ["TestMysqlLane", "TestMysqlStore", "sql_ledgers"]


@pytest.fixture(scope="module")
def server_environment() -> Iterator[Environment]:
    with galera_cluster("payments") as cluster:
        yield {"PAYMENTS_DATABASE_URL": cluster.url("payments")}


@pytest.fixture(scope="module")
def administrators(server_environment: Environment) -> Environment:
    return server_environment
