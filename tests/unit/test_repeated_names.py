"""A name that an object of JSON text has twice is refused at every door: readers differ in the value that counts."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.lane.request import prepare
from coordinator.operate.send import checked
from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import arguments_again
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import new_command_id
from coordinator.service.repeated_names import repeated_name
from shared.users import SERVICE

HANDLERS = {handler.command.type: handler for handler in SERVICE.handlers}


def _object(members: list[tuple[str, bool, str]]) -> str:
    parts = []
    for name, is_escaped, value in members:
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
        written = f'"{escaped}"' if is_escaped else json.dumps(name, ensure_ascii=False)
        parts.append(f"{written} :{value}")
    return f"{{{', '.join(parts)}}}"


# Few names, so that they are repeated; texts with what a count of colons could be led astray by.
names = st.sampled_from(["a", "b", ":", "\\", '"', "\u003a\u003a", "é"])
scalars = st.none() | st.booleans() | st.integers(-(10**25), 10**25) | names | st.just(1.5)
texts = st.recursive(
    st.tuples(scalars, st.booleans()).map(lambda pair: json.dumps(pair[0], ensure_ascii=pair[1])),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{' , '.join(parts)}]")
        | st.lists(st.tuples(names, st.booleans(), inner), max_size=4).map(_object)
    ),
    max_leaves=12,
)


def repeated_in(text: str) -> list[str]:
    found: list[str] = []

    def note(members: list[tuple[str, Any]]) -> None:
        seen = [name for name, _ in members]
        found.extend(name for name in seen if seen.count(name) > 1)

    json.loads(text, object_pairs_hook=note)
    return found


@given(texts)
def test_a_repeated_name_is_found_wherever_it_is_and_however_it_is_written(text: str) -> None:
    expected = repeated_in(text)
    name = repeated_name(text.encode())
    assert (name is None) == (not expected)
    assert name is None or name in expected
    message = CommandMessage(command_id=new_command_id(), type="t.t", arguments=text.encode())
    assert repeated_name(text.encode(), arguments_again(message)) == name


def test_an_escaped_colon_makes_up_for_no_repeated_name() -> None:
    assert repeated_name(b'{"a":1,"a":2,"b":"\\u003a"}') == "a"
    assert repeated_name(b'{"a":1,"a":2,"b":"\\u003A"}') == "a"
    assert repeated_name(b'{"a":1,"b":"\\u003a"}') is None


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"a":1e400}', b"[" * 100_000, b'{"a":1e400,"a":'])
def test_what_cannot_be_read_is_left_to_whoever_reads_it(text: bytes) -> None:
    assert repeated_name(text) is None


ARGUMENTS = [
    b'{"id": 7, "amount": 5, "amount": 500}',
    b'{"id": 7, "amount": 5, "\\u0061mount": 500}',
    b'{"id": 7, "amount": 500, "amount": 500}',
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_a_lane_refuses_arguments_that_name_one_twice(arguments: bytes) -> None:
    message = CommandMessage(command_id=new_command_id(), type="users.credit", arguments=arguments)
    defect = prepare(message, HANDLERS, redelivered=False).defect
    assert defect is not None
    assert (defect.code, "'amount'" in defect.message) == ("malformed_json", True)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_an_operator_s_command_is_not_sent_with_one_twice(arguments: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "gateways.app:APP")
    message = CommandMessage(command_id=new_command_id(), type="users.credit", arguments=arguments, origin="system")
    with pytest.raises(InvalidCommand, match="'amount' twice"):
        checked(message, None)


def frames() -> Iterator[tuple[str, bool]]:
    """A command of a pack, by its members; whether it keeps its id, under which it fails."""
    other = "01a223ed-33a3-7501-b967-259a9f4c4f17"
    good = '"id":"{id}","type":"users.credit","args":{{"id":7,"amount":5}}'
    yield f'{good},"args":{{{{"id":7,"amount":500}}}}', True
    yield f'{good},"type":"users.delete"', True
    yield f'{good},"typ\\u0065":"users.delete"', True
    yield f'{good},"deadline":1,"deadline":2', True
    yield f'{good},"expected_version":null,"expected_version":2', True
    yield f'{good},"id":"{other}"', False
    yield f'{good},"i\\u0064":"{other}"', False


@pytest.mark.parametrize(("members", "keeps_id"), list(frames()))
def test_a_command_of_a_pack_that_has_a_member_twice_fails_and_hides_no_other(members: str, keeps_id: bool) -> None:
    ids = [new_command_id() for _ in range(3)]
    plain = '"id":"{id}","type":"users.credit","args":{{"id":7,"amount":5}}'
    parts = [each.format(id=id_) for each, id_ in zip((plain, members, plain), ids, strict=True)]
    body = ("[" + ",".join(f"{{{part}}}" for part in parts) + "]").encode()
    first, second, third = decode(Envelope(content_type=PACK_CONTENT), body)
    assert [(each.command_id, each.defect) for each in (first, third)] == [(ids[0], None), (ids[2], None)]
    assert second.defect is not None
    assert (second.defect.code, "twice" in second.defect.message) == ("malformed_command", True)
    assert second.command_id == (ids[1] if keeps_id else None)


def test_a_pack_with_colons_in_its_texts_is_read_as_any_other() -> None:
    body = [
        {"id": new_command_id(), "type": "a:b.c", "args": {"x": "::"}, "traceparent": "a:b"},
        {"id": new_command_id(), "type": "a.c", "args": {}, "origin": None},
    ]
    found = decode(Envelope(content_type=PACK_CONTENT), msgspec.json.encode(body))
    assert [(each.type, each.defect) for each in found] == [("a:b.c", None), ("a.c", None)]
