"""Decoding is total: whatever is published becomes commands, each with what is wrong with it."""

import pytest

from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, encode_pack
from coordinator.service.ids import new_command_id
from coordinator.service.nesting import is_too_deep


def test_the_commands_of_a_pack_that_is_too_large_are_found_by_their_ids() -> None:
    messages = [
        CommandMessage(command_id=new_command_id(), type="t.t", arguments=b'{"id":1}', continuation="a.b")
        for _ in range(500)
    ]
    body = encode_pack(messages)
    pack = Envelope(content_type=PACK_CONTENT)
    for found, code in (
        (decode(pack, body, bytes_max=len(body) - 1), "message_too_large"),
        (decode(pack, body, commands_max=499), "pack_too_large"),
    ):
        assert [(each.command_id, each.type, each.continuation) for each in found] == [
            (each.command_id, each.type, each.continuation) for each in messages
        ]
        assert {each.defect.code for each in found if each.defect is not None} == {code}
    nameless = decode(pack, b"[" + b",".join([b"{}"] * 300_000) + b"]")
    assert len(nameless) == 1


@pytest.mark.parametrize("depth", [1, 99, 101, 500, 900, 1100, 5000, 300_000])
@pytest.mark.parametrize("place", ["id", "type", "args", "deadline", "traceparent", "nonsense"])
def test_decoding_is_total_however_deep_a_message_is(depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth
    parts = {"id": f'"{new_command_id()}"', "type": '"t.t"', "args": "{}"} | {place: deep}
    body = ("[{" + ",".join(f'"{name}":{value}' for name, value in parts.items()) + "}]").encode()
    for messages in (
        decode(Envelope(content_type=PACK_CONTENT), body),
        decode(Envelope(content_type=PACK_CONTENT), body, bytes_max=1),
        decode(Envelope(message_id=new_command_id(), type="t.t"), deep.encode()),
    ):
        (message,) = messages
        UNKEYED.of(message)


@pytest.mark.parametrize("depth", [98, 102, 950, 1050, 5_000])
@pytest.mark.parametrize("place", ["args", "id", "deadline", "nonsense"])
@pytest.mark.parametrize(
    ("openers", "closers"), [("[", "]"), ('{"a":', "}"), ('[{"\\"]":', "}]"), ('["}",{"b":[],"c":', "}]")]
)
def test_a_command_that_is_nested_too_deep_hides_no_other_of_its_pack(
    depth: int, place: str, openers: str, closers: str
) -> None:
    times = depth // len(closers)
    deep = openers * times + "0" + closers * times
    ids = [new_command_id() for _ in range(5)]
    parts = [{"id": f'"{each}"', "type": '"t.t"', "args": '{"id":[1]}'} for each in ids]
    parts[1][place] = parts[4][place] = deep
    texts = ["{" + ",".join(f'"{name}":{value}' for name, value in each.items()) + "}" for each in parts]
    body = ("[" + ", ".join(texts) + "]").encode()

    def at(frames: int, **limits: int) -> tuple[CommandMessage, ...]:
        return at(frames - 1, **limits) if frames else decode(Envelope(content_type=PACK_CONTENT), body, **limits)

    known = [None if place == "id" and number in (1, 4) else each for number, each in enumerate(ids)]
    codes: list[list[str | None]] = []
    for found in (at(0), at(800)):
        assert [each.command_id for each in found] == known
        assert all(found[number].arguments == b'{"id":[1]}' for number in (0, 2, 3))
        if place == "args":
            assert found[1].arguments == found[4].arguments == deep.encode()
            assert is_too_deep(found[1].arguments) == (depth > 100)
        codes.append([None if each.defect is None else each.defect.code for each in found])
    assert codes[0] == codes[1]
    assert {each.command_id for each in at(800, commands_max=2)} == {*known}


def test_what_is_nested_too_deep_is_refused_wherever_the_stack_stands() -> None:
    """A parser's own limit is that of the stack where it happens to run: the same command would differ."""

    def at(frames: int) -> tuple[str, bool]:
        if frames:
            return at(frames - 1)
        message = CommandMessage(command_id=new_command_id(), type="t.t", arguments=b"[" * 101 + b"]" * 101)
        return UNKEYED.of(message), is_too_deep(message.arguments)

    assert at(0) == at(700)
    assert at(0)[1]
    assert not is_too_deep(b"[" * 100 + b"]" * 100)
    assert not is_too_deep(b'{"a": "' + b"[" * 500 + b'"}')
    assert not is_too_deep(b"[],{}," * 5000)


def test_what_stands_for_a_deep_value_can_be_said_by_nobody() -> None:
    """One who could would have the value of another command as his own, as often as he likes."""
    deep = "[" * 5000 + "]" * 5000
    marks = [
        deep[:101] + deep[-101:],
        *(f'["nested too deep {"0" * 32} {number}"]' for number in (0, 1)),
        *(f'"<nested deeper than 100 levels: {number}>"' for number in (0, 1)),
    ]
    parts = [f'"id":"{new_command_id()}","type":"t.t","args":{args}' for args in (deep, *marks, deep)]
    body = ("[" + ",".join(f"{{{each}}}" for each in parts) + "]").encode()
    found = decode(Envelope(content_type=PACK_CONTENT), body)
    assert [each.arguments.decode() for each in found] == [deep, *marks, deep]


@pytest.mark.parametrize("depth", [150, 700, 960, 980, 5000])
@pytest.mark.parametrize("closers", ["}", "],", "]\x01"])
def test_what_is_no_json_is_read_alike_however_deep_it_is(depth: int, closers: str) -> None:
    ids = [new_command_id() for _ in range(3)]
    args = ["{}", "[" * depth + (closers * depth).rstrip(",\x01"), "{}"]
    parts = [f'{{"id":"{each}","type":"t.t","args":{text}}}' for each, text in zip(ids, args, strict=True)]
    body = ("[" + ",".join(parts) + "]").encode()

    def at(frames: int) -> tuple[CommandMessage, ...]:
        return at(frames - 1) if frames else decode(Envelope(content_type=PACK_CONTENT), body)

    for found in (at(0), at(600)):
        assert [each.command_id for each in found] == ids
        assert [each.arguments.decode() for each in found] == args


WRONG_ARGUMENTS = (
    '{"a":"\\ud83d"}',
    '{"a":"\\x"}',
    '{"a":"\x01"}',
    '{"a":01}',
    "{]",
    '{"a"}',
    '{"a":nul}',
    '["\\u12"]',
    '{"a":1e}',
)


@pytest.mark.parametrize("args", WRONG_ARGUMENTS)
def test_whatever_is_wrong_with_one_command_s_arguments_hides_no_other_of_its_pack(args: str) -> None:
    ids = [new_command_id() for _ in range(3)]
    texts = ['{"name":"\\ud83d\\ude00"}', args, "{}"]
    parts = [f'{{"id":"{each}","type":"t.t","args":{text}}}' for each, text in zip(ids, texts, strict=True)]
    body = ("[" + ",".join(parts) + "]").encode()
    found = decode(Envelope(content_type=PACK_CONTENT), body)
    assert [(each.command_id, each.arguments.decode(), each.defect) for each in found] == [
        (each, text, None) for each, text in zip(ids, texts, strict=True)
    ]
    assert {each.command_id for each in decode(Envelope(content_type=PACK_CONTENT), body, commands_max=2)} == {*ids}


def test_what_is_not_read_of_a_command_is_not_the_same_as_anything_else() -> None:
    command_id = new_command_id()
    texts = ['"args":{},"x":1', '"args":{},"x":2', '"x":1', '"args":5,"deadline":{}', '"args":{}']
    bodies = [f'[{{"id":"{command_id}","type":"t.t",{text}}}]'.encode() for text in texts]
    prints = [UNKEYED.of(decode(Envelope(content_type=PACK_CONTENT), body)[0]) for body in bodies]
    assert len({*prints}) == len(prints)


def test_a_member_that_no_command_has_is_named_and_hides_no_other_command() -> None:
    """It may be a condition, misspelt."""
    ids = [new_command_id() for _ in range(3)]
    parts = [f'"id":"{each}","type":"t.t","args":{{}}' for each in ids]
    body = f'[{{{parts[0]}}},{{{parts[1]},"deadline_ms":5}},{{{parts[2]}}}]'.encode()
    found = decode(Envelope(content_type=PACK_CONTENT), body)
    assert [each.command_id for each in found] == ids
    assert [each.defect is not None for each in found] == [False, True, False]
    assert found[1].defect is not None
    assert (found[1].defect.code, "`deadline_ms`" in found[1].defect.message) == ("malformed_command", True)


@pytest.mark.parametrize(
    "headers", [{"publisher": "p"}, {"publisher-seq": 1}, {"publisher": "p", "publisher-sequence": 1}]
)
def test_half_a_place_in_a_session_is_refused(headers: dict[str, object]) -> None:
    (message,) = decode(Envelope(message_id=new_command_id(), type="t.t", headers=headers), b"{}")
    assert message.defect is not None
    assert message.defect.code == "invalid_header"


def test_in_a_pack_that_is_too_large_what_is_wrong_with_one_command_hides_no_other() -> None:
    ids = [new_command_id() for _ in range(1500)]
    elements = [f'{{"id":"{each}","type":"t.t","args":{{}}}}'.encode() for each in ids]
    for odd in (b"7", b"[]", b'{"id":5}'):
        body = b"[" + b",".join([*elements[:700], odd, *elements[700:]]) + b"]"
        found = decode(Envelope(content_type=PACK_CONTENT), body)
        assert [each.command_id for each in found] == [*ids, None]
        assert {each.defect.code for each in found if each.defect is not None} == {"pack_too_large"}


@pytest.mark.parametrize("content_type", [None, PACK_CONTENT])
def test_of_what_is_too_large_only_the_beginning_is_kept(content_type: str | None) -> None:
    """As many as a consumer's prefetch wait in memory, and the broker lets each be as large as it likes."""
    body = b'{"owner":"' + b"x" * (20 << 20) + b'"}'
    envelope = Envelope(message_id=new_command_id(), type="t.t", content_type=content_type)
    (message,) = decode(envelope, body)
    assert (len(message.arguments), message.size_bytes) == (1 << 20, len(body))
