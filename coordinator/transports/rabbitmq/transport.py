"""RabbitMQ as a transport. A process needs one side of it, and imports only that."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.transports.inbox import Inbox

# ruff: noqa: PLC0415

if TYPE_CHECKING:
    from coordinator.client.command_log import CommandLog
    from coordinator.transports.port import BrokerTransport, CommandTransport, EffectTransport


class RabbitTransport:
    """Implements `Transport`."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._broker = broker

    def lane(
        self,
        lane: str,
        inbox: Inbox,
        settings: LaneSettings,
        *,
        holder: str,
        has_effects: bool = False,
        last_place: Callable[[], str | None] | None = None,  # noqa: ARG002  # a quorum queue's replicas agree
    ) -> "BrokerTransport":
        from coordinator.transports.rabbitmq.consumer import LaneConsumer

        return LaneConsumer(lane, self._broker, inbox, settings=settings, holder=holder, has_effects=has_effects)

    def commands(
        self,
        name: str,
        *,
        confirm_timeout_s: float,
        wait_s: float,
        in_flight_max: int,
        log: "CommandLog | None",
        is_system: bool = False,
        as_account: bool = False,
    ) -> "CommandTransport":
        from coordinator.transports.rabbitmq.writes import RabbitWrites

        return RabbitWrites(
            self._broker,
            confirm_timeout_s=confirm_timeout_s,
            wait_s=wait_s,
            in_flight_max=in_flight_max,
            log=log,
            name=name,
            is_system=is_system,
            as_account=as_account,
        )

    def effects(self, service: str, prefetch: int) -> "EffectTransport":
        from coordinator.transports.rabbitmq.effects.transport import RabbitEffects

        return RabbitEffects(service, self._broker, prefetch)
