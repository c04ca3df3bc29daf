"""Bugs of a transport on streams, planted in what stands for it here (`stream.py`).

One that refuses an entry which it has added shows to nobody here, since whoever is refused sends the same again or
takes nothing for certain. `TransportContract.test_a_full_queue_refuses_and_drops_nothing` finds that one.
"""

from __future__ import annotations

from tests.simulation.database import Database
from tests.simulation.mutant import Mutant, rewritten
from tests.simulation.stream import Stream, StreamBroker

STREAM_MUTANTS = (
    rewritten(
        "stream-trimmed-when-read",
        "an entry is deleted before its batch is committed",
        StreamBroker,
        "_read",
        "queue.after = entry.position\n",
        "queue.after = entry.position\n        queue.settled(entry.position)\n",
    ),
    rewritten(
        "stream-read-on-from-a-position",
        "the next consumer begins behind what the one before had read, which no batch has committed",
        Stream,
        "take",
        "self.reader, self.after = channel, 0\n",
        "self.reader, self.after = channel, self.read_up_to\n",
    ),
    Mutant(
        "stream-without-the-fence",
        "who has the lease in Redis commits, whoever has the lane",
        lambda patches: patches.replace(Database, "fence", lambda self, lease: None),
    ),
)
