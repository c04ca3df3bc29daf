"""Turns entries into deliveries of the lane. Never raises, whatever strangers add."""

from coordinator.lane.delivery import Arrival, Delivery
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import HEADER_REPLY_PACKS, is_yes
from coordinator.runtime.settings import LaneSettings
from coordinator.transports.redis.entries import StreamEntry


def delivery_of(entry: StreamEntry, tag: int, settings: LaneSettings, arrival: Arrival) -> Delivery:
    """An entry of the lane's streams. Never raises, whatever strangers add.

    How often it was delivered is not counted: more than once is twice.
    """
    envelope = entry.envelope
    return Delivery(
        tag=tag,
        commands=decode(envelope, entry.body, settings.message_bytes_max, settings.pack_commands_max),
        size_bytes=len(entry.body),
        redelivered=arrival.attempts > 1,
        reply_to=entry.reply_to,
        correlation_id=entry.correlation_id,
        reply_packs=is_yes(envelope.headers.get(HEADER_REPLY_PACKS)),
        arrival=arrival,
    )
