"""Spans as OTLP: the messages of opentelemetry/proto/trace/v1/trace.proto, written as Protocol Buffers.

They are a few messages, and stable. OpenTelemetry's package would make three objects of each span, and takes ten times
as long: recording a command would cost more than applying it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from coordinator.runtime.recording import SpanKind, TraceSpan
from coordinator.service.trace_context import TraceContext

SCOPE: Final = "write-coordinator"
_KINDS: Final[dict[SpanKind, int]] = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_VARINT_LAST: Final = 0x80
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
"""Of a span: its field 15, a Status with the code 2."""
_REMEMBERED_MAX: Final = 1000
"""How many attributes are remembered: most are the same for each span."""


def encoded_request(spans: Iterable[TraceSpan], resource: bytes, scope: bytes) -> bytes:
    """An ExportTraceServiceRequest. `resource` and `scope` are what `encoded_resource` and `encoded_scope` return."""
    body = b"".join(_field(2, encoded_span(span)) for span in spans)
    return _field(1, _field(1, resource) + _field(2, _field(1, scope) + body))


def encoded_resource(attributes: Mapping[str, str | int]) -> bytes:
    """A Resource: what is said of the process."""
    return b"".join(_field(1, _attribute(name, value)) for name, value in attributes.items())


def encoded_scope(version: str) -> bytes:
    """An InstrumentationScope: who has made the spans."""
    return _text(1, SCOPE) + _text(2, version)


def encoded_span(span: TraceSpan) -> bytes:
    """A Span."""
    context = span.context
    parts = [
        b"\x0a\x10" + bytes.fromhex(context.trace_id),
        b"\x12\x08" + bytes.fromhex(context.span_id),
        b"" if context.tracestate is None else _text(3, context.tracestate),
        b"\x22\x08" + bytes.fromhex(span.parent_id) if span.parent_id else b"",
        _name(span.name),
        b"\x30" + bytes((_KINDS[span.kind],)),
        b"\x39" + span.began_ns.to_bytes(8, "little"),
        b"\x41" + max(span.began_ns, span.ended_ns).to_bytes(8, "little"),
    ]
    parts += [_span_attribute(name, value) for name, value in span.attributes]
    parts += [_field(13, _link(link)) for link in span.links]
    if span.error is not None:
        parts += (_span_attribute("error.type", span.error), _STATUS_ERROR)
    parts.append(b"\x85\x01" + int(context.flags, 16).to_bytes(4, "little"))
    return b"".join(parts)


def _link(context: TraceContext) -> bytes:
    state = b"" if context.tracestate is None else _text(3, context.tracestate)
    flags = b"\x35" + int(context.flags, 16).to_bytes(4, "little")
    return b"\x0a\x10" + bytes.fromhex(context.trace_id) + b"\x12\x08" + bytes.fromhex(context.span_id) + state + flags


@lru_cache(maxsize=_REMEMBERED_MAX)
def _name(name: str) -> bytes:
    return _text(5, name)


def _span_attribute(name: str, value: str | int) -> bytes:
    # Ids and numbers are new each time: they would only push out what comes again.
    return _field(9, _attribute(name, value)) if type(value) is int or name in _NEW_EACH_TIME else _known(name, value)


_NEW_EACH_TIME: Final = frozenset({"messaging.message.id", "coordinator.command.id"})


@lru_cache(maxsize=_REMEMBERED_MAX)
def _known(name: str, value: str | int) -> bytes:
    return _field(9, _attribute(name, value))


def _attribute(name: str, value: str | int) -> bytes:
    """A KeyValue."""
    any_value = b"\x18" + _varint(value & (1 << 64) - 1) if isinstance(value, int) else _text(1, value)
    return _text(1, name) + _field(2, any_value)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


def _field(number: int, content: bytes) -> bytes:
    """A field of the wire type 2: with its length before it. `number` is at most 15."""
    size = len(content)
    head = bytes((number << 3 | 2, size)) if size < _VARINT_LAST else bytes((number << 3 | 2,)) + _varint(size)
    return head + content


def _varint(number: int) -> bytes:
    made = bytearray()
    while number >= _VARINT_LAST:
        made.append(number & 0x7F | _VARINT_LAST)
        number >>= 7
    made.append(number)
    return bytes(made)
