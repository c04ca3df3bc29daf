"""Redis as a transport. A process needs one side of it, and imports only that."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.transports.inbox import Inbox

# ruff: noqa: PLC0415

if TYPE_CHECKING:
    from coordinator.client.command_log import CommandLog
    from coordinator.transports.port import BrokerTransport, CommandTransport, EffectTransport


class RedisTransport:
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
        last_place: Callable[[], str | None] | None = None,
    ) -> "BrokerTransport":
        from coordinator.transports.redis.consumer import RedisLane

        return RedisLane(
            lane,
            self._broker,
            inbox,
            settings=settings,
            holder=holder,
            has_effects=has_effects,
            last_place=last_place,
        )

    def commands(
        self,
        name: str,
        *,
        confirm_timeout_s: float,
        wait_s: float,
        in_flight_max: int,
        log: "CommandLog | None",
        is_system: bool = False,  # noqa: ARG002  # the rights to the streams decide
        as_account: bool = False,  # noqa: ARG002  # Redis names none
    ) -> "CommandTransport":
        from coordinator.transports.redis.writes import RedisWrites

        return RedisWrites(
            self._broker,
            confirm_timeout_s=confirm_timeout_s,
            wait_s=wait_s,
            in_flight_max=in_flight_max,
            log=log,
            name=name,
        )

    def effects(self, service: str, prefetch: int) -> "EffectTransport":
        from coordinator.transports.redis.effects.transport import RedisEffects

        return RedisEffects(service, self._broker, prefetch)
