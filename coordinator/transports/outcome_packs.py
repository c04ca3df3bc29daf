"""How outcomes leave a lane: as few messages for each that waits as their size allows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from coordinator.lane.delivery import Reply
from coordinator.protocol.outcomes import encode_outcome, encode_outcomes
from coordinator.service.outcome import Outcome

REPLY_OUTCOMES_MAX = 500
REPLY_BYTES_MAX = 1 << 20
"""The most bytes of packed outcomes: the broker ends a connection that sends too large a message."""


class OutcomeMessage(Struct, frozen=True):
    """One outcome, or a pack of them, for whoever waits at `reply_to`."""

    reply_to: str
    correlation_id: str | None
    body: bytes
    is_pack: bool


def messages_of(replies: Sequence[Reply]) -> Iterator[OutcomeMessage]:
    """The messages that carry these outcomes."""
    packs: defaultdict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        if reply.packed:
            packs[reply.reply_to].append(reply)
            continue
        for outcome in reply.outcomes:
            yield OutcomeMessage(reply.reply_to, reply.correlation_id, encode_outcome(outcome), is_pack=False)
    for reply_to, several in packs.items():
        outcomes = [outcome for reply in several for outcome in reply.outcomes]
        # With several messages, the ids tell to which each outcome belongs.
        correlation_id = several[0].correlation_id if len(several) == 1 else None
        for start in range(0, len(outcomes), REPLY_OUTCOMES_MAX):
            for body in bodies_of(outcomes[start : start + REPLY_OUTCOMES_MAX]):
                yield OutcomeMessage(reply_to, correlation_id, body, is_pack=True)


def bodies_of(outcomes: list[Outcome]) -> Iterator[bytes]:
    """Outcomes as bodies of messages, as few as their size allows."""
    body = encode_outcomes(outcomes)
    if len(body) <= REPLY_BYTES_MAX or len(outcomes) == 1:
        yield body
    else:
        half = len(outcomes) // 2
        yield from bodies_of(outcomes[:half])
        yield from bodies_of(outcomes[half:])
