"""The fields of a command are the same wherever a command travels."""

from typing import Any

import msgspec
import pytest

from coordinator.protocol.decoding import decode
from coordinator.protocol.fields import FIELDS, OPTIONS, Field
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, Packed, encode_pack, headers_of, values_of
from coordinator.service.ids import is_uuid, new_command_id
from coordinator.service.options import Options

ID = "01900000-0000-7000-8000-000000000000"
GOOD: dict[str, list[Any]] = {
    "deadline": [0, 1, 2**53 - 1],
    "expected-version": [0, 2**53 - 1],
    "publisher": ["p", "!", "~" * 100],
    "publisher-seq": [1, 2**53 - 1],
    "traceparent": ["", "é", "x" * 100],
    "continuation": ["a.b", "a.b.c", f"{'l' * 64}.{'t' * 35}"],
    "command-version": [1, 2, 2**53 - 1],
}
NUMBERS = ("deadline", "expected-version", "publisher-seq", "command-version")
IN_OTHER_WORDS: dict[str, list[Any]] = {name: ["1", "0007", "9007199254740991"] for name in NUMBERS}
WRONG: list[Any] = [-1, 2**53, 2**70, 1.0, 0.5, True, False, "", " ", "a b", "x\n", "é", "-1", "1.0", "9" * 16]
WRONG += [".", "a.", ".b", "x" * 101, "a." + "b" * 99, f"{'l' * 65}.t", [], {}, [1], {"a": 1}, "\x7f", "\u0661", "٣"]


def of_message(field: Field, value: Any) -> CommandMessage:
    (message,) = decode(Envelope(message_id=ID, type="t.t", headers=paired(field, value, "header")), b"{}")
    return message


def of_pack(field: Field, value: Any) -> CommandMessage:
    packed = {"id": ID, "type": "t.t", "args": {}} | paired(field, value, "name")
    (message,) = decode(Envelope(content_type=PACK_CONTENT), msgspec.json.encode([packed]))
    return message


def paired(field: Field, value: Any, by: str) -> dict[str, Any]:
    """With the other half of a place in a session, if it is one."""
    others = {"publisher": 1, "publisher-seq": "p"}
    return {getattr(each, by): others[field.header] for each in OPTIONS if {each.header, field.header} == {*others}} | {
        getattr(field, by): value
    }


@pytest.mark.parametrize("field", OPTIONS, ids=lambda field: field.name)
def test_the_type_of_an_option_and_its_check_take_the_same(field: Field) -> None:
    """The type reads whole packs, the check what is by itself, or said in another way."""
    values = [value for values in GOOD.values() for value in values] + WRONG
    for value in values:
        try:
            by_type = msgspec.json.decode(msgspec.json.encode(value), type=field.form.type)
        except msgspec.MsgspecError:
            by_type = None
        by_check = field.form.check(value)
        assert by_type is None or (by_check, type(by_check)) == (by_type, type(by_type)), value
        assert by_check is None or by_type is not None or isinstance(by_check, int), value
    assert all(field.form.check(value) == value for value in GOOD[field.header])


@pytest.mark.parametrize("field", OPTIONS, ids=lambda field: field.name)
def test_an_option_is_read_alike_by_itself_and_in_a_pack(field: Field) -> None:
    for value in [*GOOD[field.header], *IN_OTHER_WORDS.get(field.header, []), *WRONG]:
        alone, packed = of_message(field, value), of_pack(field, value)
        assert alone == packed, value
        is_taken = value in GOOD[field.header] or value in IN_OTHER_WORDS.get(field.header, [])
        if is_taken and not isinstance(value, bool | float):
            assert (alone.defect, getattr(alone, field.attribute) is not None) == (None, True), value


def test_an_option_that_is_said_in_another_way_hides_no_other_command() -> None:
    ids = [new_command_id() for _ in range(3)]
    commands = [{"id": each, "type": "t.t", "args": {}, "deadline": 7} for each in ids]
    commands[1]["deadline"] = "7"
    found = decode(Envelope(content_type=PACK_CONTENT), msgspec.json.encode(commands))
    assert [(each.command_id, each.deadline_ms, each.defect) for each in found] == [(each, 7, None) for each in ids]


def test_what_is_written_is_read_as_it_was() -> None:
    message = CommandMessage(ID, "t.t", b"{}", **{field.attribute: GOOD[field.header][-1] for field in OPTIONS})
    assert None not in values_of(message)
    assert decode(Envelope(content_type=PACK_CONTENT), encode_pack([message])) == (message,)
    assert decode(Envelope(message_id=ID, type="t.t", headers=headers_of(message)), b"{}") == (message,)


def test_messages_packs_and_rows_have_the_fields_of_the_table() -> None:
    attributes = [field.attribute for field in OPTIONS]
    place = CommandMessage.__struct_fields__.index(attributes[0])
    assert list(CommandMessage.__struct_fields__[place : place + len(attributes)]) == attributes
    assert set(Packed.__struct_fields__) == {"id", "type", "args", "origin", *(field.name for field in OPTIONS)}
    # Who asks, who sent it, and of which effect it is the result, are headers of their own, and no members of a pack;
    # so is `tracestate`.
    ours = {"replayed", "actor", "sender", "tracestate", "result_of"}
    assert set(Options.__struct_fields__) - ours <= {field.attribute for field in FIELDS}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (ID, True),
        (ID.upper(), True),
        ("ABCDEFab-0123-4567-89cd-efABCDEF0123", True),
        ("", False),
        (ID[:-1], False),
        (ID + "0", False),
        (ID + "\n", False),
        (ID.replace("-", "0"), False),
        (ID.replace("-", "_"), False),
        (ID[:-1] + "g", False),
        (ID[:-1] + "é", False),
        (ID[:-1] + "\ud800", False),
        (ID[:-1] + "-", False),
        ("{" + ID[1:], False),
        ("0" * 36, False),
    ],
)
def test_what_is_a_uuid(text: str, is_one: bool) -> None:
    assert is_uuid(text) is is_one
