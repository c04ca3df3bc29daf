"""Where a purpose has more than one server: a cluster of RabbitMQ."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.accounts import accounts_of_tests
from tests.support.rabbitmq_cluster import RabbitMQCluster


class Clusters:
    """Blocking."""

    def __init__(self, directory: Path) -> None:
        self.broker = RabbitMQCluster(directory / "nodes", accounts_of_tests())

    def start(self) -> None:
        """All servers."""
        self.broker.start()

    def heal(self) -> None:
        """All servers run, and nothing is between them."""
        self.broker.heal()

    def stop(self) -> None:
        """None of them is left."""
        self.broker.stop()


@contextmanager
def running_clusters(directory: Path) -> Iterator[Clusters]:
    """They have started; none of them is left afterwards."""
    clusters = Clusters(directory)
    try:
        clusters.start()
        yield clusters
    finally:
        clusters.stop()
