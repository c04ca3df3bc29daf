"""A broker of a test's own, with RabbitMQ's management."""

from collections.abc import Sequence
from pathlib import Path

from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.transports.rabbitmq.rights import BrokerAccount


class ManagedRabbitMQ(RabbitMQ):
    """With its management, as others' servers have it."""

    plugins = ("rabbitmq_management",)

    def __init__(self, directory: Path, accounts: Sequence[BrokerAccount] = (), epmd_port: int | None = None) -> None:
        super().__init__(directory, accounts=accounts, epmd_port=epmd_port)
        self.management_port = free_port()

    def write_configuration(self) -> None:
        super().write_configuration()
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.write(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n")

    @property
    def admin_url(self) -> str:
        return f"http://administrator:administrator@127.0.0.1:{self.management_port}"
