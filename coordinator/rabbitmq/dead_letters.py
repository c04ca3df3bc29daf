"""Publishing dead letters."""

import asyncio

import pika
import structlog

from coordinator.lane.delivery import DeadLetter
from coordinator.lane.settle import ERROR_CHARACTERS_MAX
from shared.errors import Unavailable
from shared.messaging.publisher import Publisher
from shared.messaging.topology import DEAD_EXCHANGE
from shared.messaging.wire import JSON_CONTENT, headers_of

PERSISTENT = 2

log = structlog.get_logger("consumer")


async def publish_dead(publisher: Publisher, routing_key: str, letter: DeadLetter, retry_delay_s: float) -> None:
    """Return once the broker has the dead letter; until then its delivery stays unacknowledged."""
    message = letter.message
    while True:
        properties = pika.BasicProperties(
            message_id=message.command_id,
            type=message.type,
            content_type=JSON_CONTENT,
            delivery_mode=PERSISTENT,
            headers=headers_of(message) | _reasons(letter, routing_key),
        )
        try:
            await publisher.publish(DEAD_EXCHANGE, routing_key, properties, message.arguments)
        except Unavailable as error:
            log.error("dead_letter_not_taken", lane=routing_key, command_id=message.command_id, error=str(error))
            await asyncio.sleep(retry_delay_s)
        else:
            log.warning(
                "dead_lettered",
                lane=routing_key,
                command_id=message.command_id,
                type=message.type,
                code=letter.code,
                reason=letter.reason,
            )
            return


def _reasons(letter: DeadLetter, lane: str) -> dict[str, str | int]:
    """Why the command is dead, as headers; AMQP bounds them by the size of a frame."""
    reason = _encodable(letter.reason[:ERROR_CHARACTERS_MAX])
    reasons: dict[str, str | int] = {"reason": letter.code, "error": reason, "lane": lane}
    if letter.traceback is not None:
        reasons["traceback"] = _encodable(letter.traceback)
    if letter.sequence is not None:
        reasons["sequence"] = letter.sequence
    return reasons


def _encodable(text: str) -> str:
    """An exception's text may have lone surrogates, for which UTF-8 has no bytes."""
    return text.encode("utf-8", "backslashreplace").decode()
