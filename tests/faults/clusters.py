"""Where a purpose has more than one server: a cluster of RabbitMQ, and a PostgreSQL with a standby."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.faults.plan import REPLICATED
from tests.faults.replicas import Replicas
from tests.support.accounts import accounts_of_tests
from tests.support.rabbitmq_cluster import RabbitMQCluster


class Clusters:
    """Blocking."""

    def __init__(self, directory: Path) -> None:
        self.broker = RabbitMQCluster(directory / "nodes", accounts_of_tests())
        self.database = Replicas(directory, [REPLICATED])

    def start(self) -> None:
        """All servers."""
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda start: start(), (self.broker.start, self.database.start)))

    def heal(self) -> None:
        """All servers run, and nothing is between them."""
        self.broker.heal()
        self.database.heal()

    def stop(self) -> None:
        """None of them is left."""
        self.broker.stop()
        self.database.stop()


@contextmanager
def running_clusters(directory: Path) -> Iterator[Clusters]:
    """They have started; none of them is left afterwards."""
    clusters = Clusters(directory)
    try:
        clusters.start()
        yield clusters
    finally:
        clusters.stop()
