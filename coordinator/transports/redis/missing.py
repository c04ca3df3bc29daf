"""Whether entries that were added are gone although no consumer has settled them.

Numbers have no gap, and only what is settled is deleted. So a number above all that were read, whose entry is not
there, was given out and taken away: with `XADD … MAXLEN`, `XTRIM` or `XDEL` by somebody's hand; or it was passed over,
of which the counter has a note.

What this cannot see: what is taken away once it was read (the consumer that has it applies it, unless it ends first),
and what was the last in its streams, until another entry comes.
"""

from coordinator.transports.redis.entries import StreamEntry
from coordinator.transports.redis.scripts import NUMBER_MAX


class NumbersRead:
    """The numbers that the consumers of a lane have read, in their order. `up_to`: the highest of before."""

    def __init__(self, up_to: int) -> None:
        self._up_to = up_to

    def missing_before(self, entry: StreamEntry) -> tuple[int, int] | None:
        """The first and last number between those that were read and this entry, and note it; None: it is the next one.

        An entry that somebody has added by hand has no number of ours: others may come after it that have lower ones.
        """
        before, number = self._up_to, entry.number
        if not entry.counted_bytes or number <= before:
            return None
        self._up_to = number
        return (before + 1, number - 1) if number > before + 1 else None


def given_out(missing: tuple[int, int], last: bytes | None, jumps: bytes | None) -> list[tuple[int, int]]:
    """Those of the numbers that the counter has given out, as ranges, by its last number and its note of jumps.

    What strangers have made of a counter says that none was.
    """
    first, until = missing
    found: list[tuple[int, int]] = []
    try:
        until = min(until, int(last or b"0"), NUMBER_MAX)
        for each in (jumps or b"").split():
            passed_over, _, following = each.partition(b"=")
            if int(following) <= first:
                continue
            if int(passed_over) > until:
                break
            if int(passed_over) > first:
                found.append((first, int(passed_over) - 1))
            first = int(following)
    except ValueError:
        return []
    return [*found, (first, until)] if first <= until else found
