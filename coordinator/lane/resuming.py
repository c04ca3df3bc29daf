"""A continuation that was put off and goes on: what the text of its row has left out."""

import msgspec

from coordinator.protocol.senders import STRANGER
from coordinator.service.continuation import Deferred
from coordinator.service.options import Options


def resumed(deferred: Deferred, options: Options) -> Deferred:
    """A command that is resumed. Its actor and its trace are those of the command that resumes it: `options`.

    What the public had put off is a stranger's: no gateway names a continuation. Raises TypeError for what is no
    Deferred.
    """
    if not isinstance(deferred, Deferred):
        raise TypeError(
            "work.resume takes what work.defer returned where it was not None, such as Deferred.decode(text), and was "
            f"given {deferred!r:.100}"
        )
    return msgspec.structs.replace(
        deferred,
        actor=deferred.actor or options.actor,
        traceparent=deferred.traceparent or options.traceparent,
        tracestate=deferred.tracestate or options.tracestate,
        sender=deferred.sender or (STRANGER if deferred.origin == "public" else None),
    )
