"""Settings of different groups that must fit each other, checked where a process is put together."""

from typing import TypeVar

from pydantic_settings import BaseSettings

from coordinator.protocol.packing import ENVELOPE_BYTES_MAX, PACK_BYTES_MAX, PACK_COMMANDS_MAX
from coordinator.runtime.settings import BrokerSettings, GatewaySettings, LaneSettings
from coordinator.service.errors import ConfigurationError

_Group = TypeVar("_Group", bound=BaseSettings)


def check_fit(*groups: BaseSettings) -> None:
    """Check the limits of these groups against each other.

    Raises ConfigurationError, which names both settings of each pair that does not fit, and their values.
    """
    misfits = _messages(groups)
    if misfits:
        raise ConfigurationError("; ".join(misfits))


def _messages(groups: tuple[BaseSettings, ...]) -> list[str]:
    """The lane and its queue must take every message that a gateway, or another lane, publishes."""
    broker, lane, gateway = (_of(groups, group) for group in (BrokerSettings, LaneSettings, GatewaySettings))
    if not isinstance(lane, LaneSettings):
        return []
    message = f"LANE_MESSAGE_BYTES_MAX ({lane.message_bytes_max})"
    misfits = []
    if lane.message_bytes_max < PACK_BYTES_MAX:
        misfits.append(
            f"{message} must be at least {PACK_BYTES_MAX}, the size of the packs that gateways and lanes publish"
        )
    if lane.pack_commands_max < PACK_COMMANDS_MAX:
        pack = f"LANE_PACK_COMMANDS_MAX ({lane.pack_commands_max})"
        misfits.append(
            f"{pack} must be at least {PACK_COMMANDS_MAX}, the commands in a pack that gateways and lanes publish"
        )
    if isinstance(broker, BrokerSettings) and broker.queue_bytes_max < lane.message_bytes_max:
        queue = f"AMQP_QUEUE_BYTES_MAX ({broker.queue_bytes_max})"
        misfits.append(f"{queue} must be at least {message}: the queue would refuse a message that the lane takes")
    if isinstance(gateway, GatewaySettings) and gateway.body_bytes_max + ENVELOPE_BYTES_MAX > lane.message_bytes_max:
        body = f"GATEWAY_BODY_BYTES_MAX ({gateway.body_bytes_max})"
        misfits.append(
            f"{body} must be at least {ENVELOPE_BYTES_MAX} below {message}: the lane would not take what a gateway does"
        )
    return misfits


def _of(groups: tuple[BaseSettings, ...], group: type[_Group]) -> _Group | None:
    return next((each for each in groups if isinstance(each, group)), None)
