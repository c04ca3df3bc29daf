"""W3C Trace Context, as strangers send it: what is read of it, and what is written."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.protocol.actors import ACTORS_BYTES_MAX
from coordinator.protocol.decoding import decode
from coordinator.protocol.issuing import issuable
from coordinator.protocol.tracestates import (
    HEADER_TRACESTATE,
    HEADER_TRACESTATES,
    TRACESTATES_BYTES_MAX,
    decoded_tracestates,
    encoded_tracestates,
)
from coordinator.protocol.wire import (
    PACK_CONTENT,
    CommandMessage,
    Envelope,
    encode_pack,
    headers_of,
    headers_of_pack,
)
from coordinator.runtime.recording import Recorder, use_recorder
from coordinator.runtime.telemetry import trace_from
from coordinator.service.ids import new_command_id
from coordinator.service.trace_context import (
    TRACEPARENT_CHARACTERS_MAX,
    TRACESTATE_CHARACTERS_MAX,
    TRACESTATE_MEMBERS_MAX,
    checked_tracestate,
    child_span_id,
    is_unsampled,
    parsed,
)
from coordinator.transports.in_flight import InFlight, packs_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (PARENT, "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-03", "03"),
        # Of a later version the known part counts, and no flag but the first.
        (f"01-{TRACE}-{SPAN}-01", "01"),
        (f"fe-{TRACE}-{SPAN}-ff", "01"),
        (f"cc-{TRACE}-{SPAN}-02", "00"),
        (f"cc-{TRACE}-{SPAN}-01-", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-{'x' * 400}", "01"),
    ],
)
def test_every_version_of_a_traceparent_is_read(given: str, flags: str) -> None:
    found = parsed(given)
    assert found is not None
    assert (found.trace_id, found.span_id, found.flags) == (TRACE, SPAN, flags)
    assert found.traceparent == f"00-{TRACE}-{SPAN}-{flags}"
    assert found.is_sampled == (flags in {"01", "03"})
    assert not (found.is_sampled and is_unsampled(given))
    assert is_unsampled(found.traceparent) != found.is_sampled


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01-\x00",
        f" {PARENT}",
        f"{PARENT}\n",
        f"{PARENT},{PARENT}",
        f"0x-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * TRACEPARENT_CHARACTERS_MAX}",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(given: str | None) -> None:
    assert parsed(given) is None
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace_from(given, "a=1").traceparent)
    assert trace_from(given, "a=1").tracestate is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a=1", "a=1"),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,\t, b=2,", "a=1,b=2"),
        ("tenant@system=x y", "tenant@system=x y"),
        ("0a@b=c;p:d", "0a@b=c;p:d"),
        ("a*_-/=~!", "a*_-/=~!"),
        ("", None),
        (" ,, ", None),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a", None),
        ("a=", None),
        ("a=b=c", None),
        ("a=\u00e9", None),
        ("a=1\r\nX: y", None),
        ("@b=c", None),
        ("a@b@c=d", None),
        (None, None),
        (7, None),
    ],
)
def test_a_tracestate_is_kept_whole_or_not_at_all(given: object, kept: str | None) -> None:
    assert checked_tracestate(given) == kept


def test_a_tracestate_has_limits() -> None:
    members = [f"k{number}={'v' * 10}" for number in range(TRACESTATE_MEMBERS_MAX)]
    assert checked_tracestate(",".join(members)) == ",".join(members)
    assert checked_tracestate(",".join([*members, "one=more"])) is None
    long = [f"k{number}={'v' * 200}" for number in range(5)]
    kept = checked_tracestate(",".join(long))
    assert kept == ",".join(long[:2])
    assert len(kept) <= TRACESTATE_CHARACTERS_MAX
    assert checked_tracestate(f"{'k' * 256}={'v' * 255}") == f"{'k' * 256}={'v' * 255}"
    assert checked_tracestate(f"{'k' * 257}=v") is None
    assert checked_tracestate(f"k={'v' * 257}") is None


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*"), st.text())
def test_whatever_is_sent_what_is_sent_on_is_well_formed(traceparent: str, tracestate: str) -> None:
    context = trace_from(traceparent, tracestate)
    assert parsed(context.traceparent, context.tracestate) == context
    assert context.tracestate is None or checked_tracestate(context.tracestate) == context.tracestate


def test_a_span_is_ours_where_spans_are_recorded() -> None:
    caller = parsed(PARENT, "a=1")
    assert trace_from(PARENT, "a=1") == caller
    use_recorder(Recorder(lambda: 0, 1, 1, lambda: None))
    try:
        ours = trace_from(PARENT, "a=1")
    finally:
        use_recorder(None)
    assert (ours.trace_id, ours.flags, ours.tracestate) == (TRACE, "01", "a=1")
    assert ours.span_id != SPAN


def test_the_span_about_a_command_is_the_same_wherever_it_is_computed() -> None:
    cause, other = parsed(PARENT), parsed(f"00-{TRACE}-{SPAN[:-1]}8-01")
    assert cause is not None
    assert other is not None
    ids = {child_span_id(what, name, each) for what in ("a", "b") for name in ("1", "2") for each in (cause, other)}
    assert len(ids) == 8
    assert child_span_id("a", "1", cause) in ids
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)


def message(tracestate: str | None = None) -> CommandMessage:
    return CommandMessage(new_command_id(), "t.t", b"{}", traceparent=PARENT, tracestate=tracestate)


def test_a_tracestate_travels_with_a_command_and_with_a_pack() -> None:
    alone = message("a=1")
    envelope = Envelope(message_id=alone.command_id, type=alone.type, headers=headers_of(alone))
    assert decode(envelope, b"{}") == (alone,)
    pack = [message("a=1"), message("a=1")]
    assert decode(Envelope(content_type=PACK_CONTENT, headers=headers_of_pack(pack)), encode_pack(pack)) == (*pack,)


@pytest.mark.parametrize("wrong", ["A=1", b"a=1", 1, None, {}, "a=1,a=1", "x" * 5000])
def test_a_malformed_tracestate_harms_no_command(wrong: object) -> None:
    given = message()
    envelope = Envelope(
        message_id=given.command_id, type=given.type, headers=headers_of(given) | {HEADER_TRACESTATE: wrong}
    )
    assert decode(envelope, b"{}") == (given,)
    if isinstance(wrong, str):
        assert issuable(message(wrong)).tracestate is None


async def test_commands_with_different_tracestates_travel_together() -> None:
    """Each client chooses his own: nobody sends others' commands alone by it."""
    states = [None, "a=1", "b=2", "a=1", None]
    loop = asyncio.get_running_loop()
    issued = [InFlight(message(state), loop.create_future(), 1.0) for state in states]
    ((entries, _),) = packs_of(issued, lambda _: False)
    pack = [entry.message for entry in entries]
    headers = headers_of_pack(pack)
    assert headers == {HEADER_TRACESTATES: '{"a=1":[1,3],"b=2":[2]}'}
    assert decode(Envelope(content_type=PACK_CONTENT, headers=headers), encode_pack(pack)) == (*pack,)


@given(
    st.lists(
        st.sampled_from([None, "a=1", 'b="\\', *(f"k{n}={'v' * 250}" for n in range(4))]), min_size=1, max_size=500
    )
)
def test_what_has_no_room_goes_without(states: list[str | None]) -> None:
    headers = encoded_tracestates(states)
    assert len(headers.get(HEADER_TRACESTATES, "")) <= TRACESTATES_BYTES_MAX
    assert TRACESTATES_BYTES_MAX + ACTORS_BYTES_MAX < 8192 - 700, "of the head of one message"
    found = decoded_tracestates(headers, len(states))
    assert all(read in (None, state) for read, state in zip(found, states, strict=True))
    assert len(states) > 40 or len({*states} - {None}) > 2 or found == states


@pytest.mark.parametrize(
    "wrong", ["", "[]", '{"a=1":[9,-1,99]}', '{"a=1":"x"}', '{"A=1":[0]}', 1, None, b"{}", '{"a=1":[0', "[" * 5000]
)
def test_malformed_tracestates_harm_no_command(wrong: object) -> None:
    pack = [message(), message()]
    envelope = Envelope(content_type=PACK_CONTENT, headers={HEADER_TRACESTATES: wrong})
    assert decode(envelope, encode_pack(pack)) == (*pack,)


def test_commands_of_a_pack_that_is_not_read_have_no_others_tracestate() -> None:
    pack = [message(), message("a=1"), message()]
    envelope = Envelope(content_type=PACK_CONTENT, headers=headers_of_pack(pack))
    assert [each.tracestate for each in decode(envelope, encode_pack(pack), commands_max=2)] == [None] * 3
