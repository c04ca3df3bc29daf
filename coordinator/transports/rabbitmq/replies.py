"""How outcomes leave a lane: to the queues that those who wait have named, as few messages as their size allows."""

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence

from coordinator.lane.delivery import Reply
from coordinator.protocol.outcomes import encode_outcome, encode_outcomes
from coordinator.service.outcome import Outcome
from coordinator.transports.rabbitmq.not_sent import NotSent
from coordinator.transports.rabbitmq.properties import outcome_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import takes_outcomes

REPLY_OUTCOMES_MAX = 500
REPLY_BYTES_MAX = 1 << 20
"""The most bytes of packed outcomes: the broker ends a connection that sends too large a message."""


class Replies:
    """Used within the loop of its publisher."""

    def __init__(self, publisher: Publisher, not_sent: NotSent, named: Container[str] = ()) -> None:
        """`named` are the queues that a setting has."""
        self._publisher = publisher
        self._not_sent = not_sent
        self._named = named

    def send(self, replies: Sequence[Reply]) -> None:
        """Send outcomes once and without a confirm: a client that misses one finds it in the command log."""
        packs: defaultdict[str, list[Reply]] = defaultdict(list)
        for reply in replies:
            if reply.packed:
                packs[reply.reply_to].append(reply)
                continue
            for outcome in reply.outcomes:
                self._send(reply.reply_to, reply.correlation_id, encode_outcome(outcome), is_pack=False)
        for reply_to, several in packs.items():
            outcomes = [outcome for reply in several for outcome in reply.outcomes]
            # With several messages, the ids tell to which each outcome belongs.
            correlation_id = several[0].correlation_id if len(several) == 1 else None
            for start in range(0, len(outcomes), REPLY_OUTCOMES_MAX):
                for body in bodies_of(outcomes[start : start + REPLY_OUTCOMES_MAX]):
                    self._send(reply_to, correlation_id, body, is_pack=True)

    def _send(self, reply_to: str, correlation_id: str | None, body: bytes, *, is_pack: bool) -> None:
        properties = outcome_properties(correlation_id, is_pack=is_pack)
        if not (takes_outcomes(reply_to, self._named) and self._publisher.send(reply_to, properties, body)):
            self._not_sent.count(reply_to)


def bodies_of(outcomes: list[Outcome]) -> Iterator[bytes]:
    """Outcomes as bodies of messages, as few as their size allows."""
    body = encode_outcomes(outcomes)
    if len(body) <= REPLY_BYTES_MAX or len(outcomes) == 1:
        yield body
    else:
        half = len(outcomes) // 2
        yield from bodies_of(outcomes[:half])
        yield from bodies_of(outcomes[half:])
