"""Spans as OTLP: the messages of opentelemetry/proto/trace/v1/trace.proto, written as Protocol Buffers.

They are a few messages, and stable. OpenTelemetry's package would make three objects of each span, and takes ten times
as long: recording a command would cost more than applying it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from coordinator.runtime.recording import Attributes, SpanKind, TraceSpan
from coordinator.service.trace_context import TraceContext

SCOPE: Final = "write-coordinator"
_KINDS: Final[dict[SpanKind, int]] = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_VARINT_LAST: Final = 0x80
_FLAGS: Final = {f"{flags:02x}": flags.to_bytes(4, "little") for flags in range(256)}
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
"""Of a span: its field 15, a Status with the code 2."""
_REMEMBERED_MAX: Final = 1000
"""How many names, and sets of attributes, are remembered: they are the same for each span of a kind."""


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
        b"\x0a\x10%b\x12\x08%b" % (bytes.fromhex(context.trace_id), bytes.fromhex(context.span_id)),
        b"\x22\x08%b" % bytes.fromhex(span.parent_id) if span.parent_id else b"",
        _name(span.name),
        b"\x30%c\x39%b\x41%b\x85\x01%b"
        % (
            _KINDS[span.kind],
            span.began_ns.to_bytes(8, "little"),
            max(span.began_ns, span.ended_ns).to_bytes(8, "little"),
            _FLAGS[context.flags],
        ),
    ]
    if span.common:
        parts.append(_common(span.common))
    if context.tracestate is not None:
        parts.append(_text(3, context.tracestate))
    parts += [_span_attribute(name, value) for name, value in span.attributes]
    parts += [_field(13, _link(link)) for link in span.links]
    if span.error is not None:
        parts += (_span_attribute("error.type", span.error), _STATUS_ERROR)
    return b"".join(parts)


def _link(context: TraceContext) -> bytes:
    state = b"" if context.tracestate is None else _text(3, context.tracestate)
    return b"\x0a\x10%b\x12\x08%b%b\x35%b" % (
        bytes.fromhex(context.trace_id),
        bytes.fromhex(context.span_id),
        state,
        _FLAGS[context.flags],
    )


@lru_cache(maxsize=_REMEMBERED_MAX)
def _name(name: str) -> bytes:
    return _text(5, name)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _common(attributes: Attributes) -> bytes:
    return b"".join(_span_attribute(name, value) for name, value in attributes)


def _span_attribute(name: str, value: str | int) -> bytes:
    key = _key(name)
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
        size = len(data)
        whole = len(key) + size + 4
        if whole < _VARINT_LAST:
            # Most are short: this is the same as below, in half the time.
            return b"\x4a%c%b\x12%c\x0a%c%b" % (whole, key, size + 2, size, data)
    return _field(9, _attribute(name, value))


@lru_cache(maxsize=_REMEMBERED_MAX)
def _key(name: str) -> bytes:
    return _text(1, name)


def _attribute(name: str, value: str | int) -> bytes:
    """A KeyValue."""
    any_value = b"\x18" + _varint(value & (1 << 64) - 1) if isinstance(value, int) else _text(1, value)
    return _key(name) + _field(2, any_value)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


def _field(number: int, content: bytes) -> bytes:
    """A field of the wire type 2: with its length before it. `number` is at most 15."""
    size = len(content)
    if size < _VARINT_LAST:
        return b"%c%c%b" % (number << 3 | 2, size, content)
    return b"%c%b%b" % (number << 3 | 2, _varint(size), content)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number >= _VARINT_LAST:
        made.append(number & 0x7F | _VARINT_LAST)
        number >>= 7
    made.append(number)
    return bytes(made)
