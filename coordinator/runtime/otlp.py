"""Spans as OTLP: the messages of opentelemetry/proto/trace/v1/trace.proto, written as Protocol Buffers.

They are a few messages, and stable. OpenTelemetry's package would make three objects of each span, and takes ten times
as long: recording a command would cost more than applying it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final

from coordinator.runtime.recording import CommonAttributes, SpanKind, TraceSpan
from coordinator.service.trace_context import TraceContext

SCOPE: Final = "write-coordinator"
_KINDS: Final[dict[SpanKind, int]] = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_VARINT_LAST: Final = 0x80
_INT64: Final = (1 << 64) - 1
_INTEGER: Final = b"\x18"
"""The tag of an AnyValue's integer."""
_FLAGS: Final = {f"{flags:02x}": flags for flags in range(256)}
_TIMES: Final = Struct("<BQBQHI")
"""Of a span: its fields 7 and 8, when it began and ended, and 16, its flags, each behind its tag."""
_BEGAN, _ENDED, _FLAGGED = 0x39, 0x41, 0x0185
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
"""Of a span: its field 15, a Status with the code 2."""
_REMEMBERED_MAX: Final = 1000
"""How many names, and sets of attributes, are remembered: they are the same for each span of a kind."""


def encoded_request(spans: Iterable[TraceSpan], resource: bytes, scope: bytes) -> bytes:
    """An ExportTraceServiceRequest. `resource` and `scope` are what `encoded_resource` and `encoded_scope` return."""
    parts: list[bytes] = []
    for span in spans:
        encoded = encoded_span(span)
        parts += (_head(2, len(encoded)), encoded)
    return _field(1, _field(1, resource) + _field(2, _field(1, scope) + b"".join(parts)))


def encoded_resource(attributes: Mapping[str, str | int]) -> bytes:
    """A Resource: what is said of the process."""
    return b"".join(_field(1, _attribute(name, value)) for name, value in attributes.items())


def encoded_scope(version: str) -> bytes:
    """An InstrumentationScope: who has made the spans."""
    return _text(1, SCOPE) + _text(2, version)


def encoded_span(span: TraceSpan) -> bytes:
    """A Span."""
    # A command has several, each costs its share of a request's time, and most of that is a call of a function for
    # each field. So what a kind of spans has alike is remembered, and the ids, times and links are written at once.
    context, began_ns = span.context, span.began_ns
    parent = f"2208{span.parent_id}" if span.parent_id else ""
    parts = [
        bytes.fromhex(f"0a10{context.trace_id}1208{context.span_id}{parent}"),
        _of_kind(span.name, span.kind, span.common),
        _TIMES.pack(_BEGAN, began_ns, _ENDED, max(began_ns, span.ended_ns), _FLAGGED, _FLAGS[context.flags]),
    ]
    if context.tracestate is not None:
        parts.append(_text(3, context.tracestate))
    for name, value in span.attributes:
        parts.append(_span_attribute(name, value))
    if span.links:
        parts.append(_links(span.links))
    if span.error is not None:
        parts += (_span_attribute("error.type", span.error), _STATUS_ERROR)
    return b"".join(parts)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _of_kind(name: str, kind: SpanKind, common: CommonAttributes) -> bytes:
    """Fields 5 and 6, and the attributes that many spans have."""
    attributes = b"".join(_span_attribute(each, value) for each, value in common.attributes)
    return b"%b\x30%c%b" % (_text(5, name), _KINDS[kind], attributes)


_last_links: tuple[tuple[TraceContext, ...], bytes] = ((), b"")


def _links(contexts: tuple[TraceContext, ...]) -> bytes:
    """Fields 13. All without a `tracestate` are as long, and most have none."""
    global _last_links  # noqa: PLW0603  # the spans of a batch's commands follow each other, with one link to it
    known, encoded = _last_links
    if known is not contexts:
        encoded = bytes.fromhex("".join([_link(each) for each in contexts]))
        _last_links = (contexts, encoded)
    return encoded


def _link(context: TraceContext) -> str:
    """In hexadecimal, as its ids are."""
    ids, flags = f"0a10{context.trace_id}1208{context.span_id}", f"35{context.flags}000000"
    if context.tracestate is None:
        return f"6a21{ids}{flags}"
    return _field(13, bytes.fromhex(f"{ids}{_text(3, context.tracestate).hex()}{flags}")).hex()


def _span_attribute(name: str, value: str | int) -> bytes:
    """Field 9."""
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
        return _before_text(name, len(data)) + data
    number = _varint(value & _INT64)
    return _before_integer(name, len(number)) + number


@lru_cache(maxsize=_REMEMBERED_MAX)
def _before_text(name: str, size_bytes: int) -> bytes:
    """An attribute with a text of so many bytes, without that text."""
    head = _head(1, size_bytes)
    return _before_value(name, len(head) + size_bytes) + head


@lru_cache(maxsize=_REMEMBERED_MAX)
def _before_integer(name: str, size_bytes: int) -> bytes:
    """An attribute with an integer of so many bytes, without that integer."""
    return _before_value(name, 1 + size_bytes) + _INTEGER


@lru_cache(maxsize=_REMEMBERED_MAX)
def _before_value(name: str, size_bytes: int) -> bytes:
    """An attribute with an AnyValue of so many bytes, without that."""
    before = _key(name) + _head(2, size_bytes)
    return _head(9, len(before) + size_bytes) + before


@lru_cache(maxsize=_REMEMBERED_MAX)
def _key(name: str) -> bytes:
    return _text(1, name)


def _attribute(name: str, value: str | int) -> bytes:
    """A KeyValue."""
    return _key(name) + _field(2, _integer(value) if isinstance(value, int) else _text(1, value))


def _integer(value: int) -> bytes:
    """An AnyValue."""
    return _INTEGER + _varint(value & _INT64)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


def _field(number: int, content: bytes) -> bytes:
    """A field of the wire type 2: with its length before it."""
    return _head(number, len(content)) + content


@lru_cache(maxsize=_REMEMBERED_MAX)
def _head(number: int, size_bytes: int) -> bytes:
    """The tag and the length of such a field. `number` is at most 15."""
    return b"%c%b" % (number << 3 | 2, _varint(size_bytes))


def _varint(number: int) -> bytes:
    # Most sequences have three bytes or less, and the loop takes three times as long.
    if number < 1 << 7:
        return number.to_bytes()
    if number < 1 << 14:
        return bytes((number & 0x7F | _VARINT_LAST, number >> 7))
    if number < 1 << 21:
        return bytes((number & 0x7F | _VARINT_LAST, number >> 7 & 0x7F | _VARINT_LAST, number >> 14))
    made = bytearray()
    while number >= _VARINT_LAST:
        made.append(number & 0x7F | _VARINT_LAST)
        number >>= 7
    made.append(number)
    return bytes(made)
