"""Which commands of a settlement belong to a trace whose spans somebody wants."""

from collections.abc import Iterable, Sequence
from itertools import chain

from coordinator.lane.basis import Fate
from coordinator.lane.delivery import Delivery, TracedCommand
from coordinator.lane.request import Request
from coordinator.protocol.wire import CommandMessage
from coordinator.service.trace_context import is_unsampled, parsed


def may_be_traced(message: CommandMessage) -> bool:
    """Whether it may belong to such a trace: False costs less than a look at the whole context."""
    return message.traceparent is not None and not is_unsampled(message.traceparent)


def traced_commands(
    deliveries: Sequence[Delivery], fates: Iterable[Fate], released: Sequence[tuple[Request, Fate]]
) -> list[TracedCommand]:
    """Those that are settled. `fates` are those of the commands of the deliveries, in their order."""
    messages = (command for delivery in deliveries for command in delivery.commands)
    waited = ((request.message, fate) for request, fate in released)
    found: list[TracedCommand] = []
    for message, fate in chain(zip(messages, fates, strict=False), waited):
        if fate.outcome is None or not may_be_traced(message):
            continue
        cause = parsed(message.traceparent, message.tracestate)
        if cause is not None and cause.is_sampled:
            found.append(TracedCommand(fate.outcome, cause, fate.applied_ns))
    return found
