"""W3C Trace Context, level 2 (https://www.w3.org/TR/trace-context-2/): reading what strangers sent, and writing it.

Everything here is pure. What comes from outside is bounded, and checked as the specification asks: a `traceparent` that
is none counts as if it were not there, and `tracestate` counts only beside one that is.
"""

import hashlib
import re
from typing import Final

from msgspec import Struct

TRACEPARENT_CHARACTERS_MAX: Final = 512
"""A `traceparent` of a later version may have more behind the part that every version has."""
TRACESTATE_CHARACTERS_MAX: Final = 512
"""What is beyond is cut off, by whole members."""
TRACESTATE_MEMBERS_MAX: Final = 32

# A later version may have more behind a dash; version ff is none.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_VERSION: Final = "00"
_CHARACTERS: Final = 55
"""Of a `traceparent` as it is written here."""
_KEY = r"[a-z0-9][a-z0-9_*/-]{0,240}(?:@[a-z0-9][a-z0-9_*/-]{0,13})?"
_LONG_KEY = r"[a-z][a-z0-9_*/-]{0,255}"
# A value may have spaces, but no comma, no sign of equality, and no space at its end.
_MEMBER = re.compile(rf"({_KEY}|{_LONG_KEY})=[ -+\x2d-<>-~]{{0,255}}[!-+\x2d-<>-~]")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED: Final = 1


class TraceContext(Struct, frozen=True, gc=False):
    """Which trace something belongs to, and the span that caused it.

    `trace_id` has 32 hexadecimal digits in small letters, `span_id` 16, `flags` 2. `tracestate` is what other tracing
    systems keep beside them; it is passed on unchanged.
    """

    trace_id: str
    span_id: str
    flags: str
    tracestate: str | None = None

    @property
    def traceparent(self) -> str:
        """The header's value for whatever this causes."""
        return f"{_VERSION}-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def is_sampled(self) -> bool:
        """Whether whoever began the trace wants its spans."""
        return bool(int(self.flags, 16) & _SAMPLED)

    def with_sampled(self, *, is_sampled: bool) -> str:
        """Its flags, with that one as it is decided here."""
        flags = int(self.flags, 16)
        return f"{flags | _SAMPLED if is_sampled else flags & ~_SAMPLED:02x}"


def flags_of(*, is_sampled: bool) -> str:
    """Those of a trace that begins here."""
    return "01" if is_sampled else "00"


def is_unsampled(traceparent: str) -> bool:
    """Whether nobody certainly wants its spans, as one character tells of most; False: `parsed` may tell the same."""
    return len(traceparent) == _CHARACTERS and traceparent[-1] in "02468ace"


def parsed(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """The trace that two headers name; None where `traceparent` is missing or malformed.

    Of a later version the part that every version has is read, and of its flags only whether it is sampled.
    """
    if traceparent is None or len(traceparent) > TRACEPARENT_CHARACTERS_MAX:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == _VERSION and more is not None):
        return None
    if version != _VERSION:
        flags = f"{int(flags, 16) & _SAMPLED:02x}"
    return TraceContext(trace_id, span_id, flags, None if tracestate is None else checked_tracestate(tracestate))


def checked_tracestate(text: object) -> str | None:
    """The members of a `tracestate`, without spaces between them; None where there is none, or one is malformed.

    From the end of a text that is too long, members are left out.
    """
    if not isinstance(text, str) or len(text) > 4 * TRACESTATE_CHARACTERS_MAX:
        return None
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    keys = set[str]()
    for member in members:
        found = _MEMBER.fullmatch(member)
        if found is None or found.group(1) in keys:
            return None
        keys.add(found.group(1))
    if len(members) > TRACESTATE_MEMBERS_MAX:
        return None
    while members and sum(map(len, members)) + len(members) - 1 > TRACESTATE_CHARACTERS_MAX:
        members.pop()
    return ",".join(members) or None


def child_span_id(what: str, command_id: str, cause: TraceContext) -> str:
    """The id of a span about a command, which is the same wherever it is computed.

    `what` tells the spans about one command with one cause from each other. A lane that applies a command again after a
    doubtful commit must emit the same rows, and whoever follows a trace back must find the span without a lookup.
    """
    named = f"{what} {command_id} {cause.trace_id} {cause.span_id}".encode()
    return hashlib.blake2b(named, digest_size=8).hexdigest()
