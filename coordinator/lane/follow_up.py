"""The continuation of a settled command."""

from coordinator.lane.handing_on import handed_on
from coordinator.lane.unit_of_work import BatchWork
from coordinator.protocol.wire import CommandMessage, sender_of
from coordinator.service.continuation import Deferred, continued
from coordinator.service.outcome import Outcome


def continuation_of(message: CommandMessage) -> Deferred | None:
    """The continuation that a command names, if any."""
    if message.continuation is None or message.command_id is None:
        return None
    traceparent, tracestate = handed_on(message.command_id, message.traceparent, message.tracestate)
    return Deferred(
        command_id=message.command_id,
        type=message.type or "",
        continuation=message.continuation,
        origin=message.origin,
        actor=message.actor,
        traceparent=traceparent,
        tracestate=tracestate,
        sender=sender_of(message),
    )


def follow_up(work: BatchWork, message: CommandMessage, outcome: Outcome) -> None:
    """Emit the continuation of a settled command with its outcome, if there can be such a command."""
    deferred = continuation_of(message)
    if deferred is not None:
        try:
            work.send_out(continued(deferred, outcome.status, bytes(outcome.result), outcome.error))
        except ValueError:
            # There is no such lane, or its name has no room. A command that would be applied was checked before.
            return
