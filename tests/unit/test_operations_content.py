"""What commands hold is shown to operators alone, and to them in a size that a browser can take. The lane is a file."""

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import pytest
from msgspec import Meta, structs

from coordinator import Command, CommandPending, Service, UnitOfWork, VersionedRow
from coordinator.migrations.migrate import migrate
from coordinator.operations.content import HIDDEN_REASON, LAID_OUT_BYTES_MAX, act_without_content, laid_out
from coordinator.operations.lane_routes import COLLECTOR
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.nesting import NESTING_MAX
from coordinator.service.text import unseen_in
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.sqlite.store import SqliteStore
from coordinator.transports.inprocess.operators_socket import operators_socket, socket_beside
from coordinator.worker.inprocess import InProcessWrites
from tests.support.seats import AddSeat, Seat, seats
from tests.unit.test_odd_processes import Odd, odd
from tests.unit.test_operations_doors import ASSETS, LANE, Door, Start, key, start

__all__ = ("odd", "start")

SECRET = "ADA1"
DEEP = b'{"id":1,"code":' + b"[" * (NESTING_MAX - 2) + b"1," * 400_000 + b"1" + b"]" * (NESTING_MAX - 2) + b"}"


async def settled(tmp_path: Path, *arguments: bytes) -> list[str]:
    """Commands that a lane has settled, whatever came of them."""
    ids = []
    async with InProcessWrites({LANE: SqliteStore(str(tmp_path / "seats.sqlite"), seats)}, [seats]) as writes:
        for each in arguments:
            ids.append(str(uuid4()))
            await writes.issue(LANE, CommandMessage(ids[-1], "seats.add", each), None)
    return ids


async def seen(door: Door, ids: list[str]) -> Mapping[str, Any]:
    """All that the pages show of these commands, by path."""
    paths = [f"/api/lanes/{LANE}/{each}" for each in ("letters", "letters/1", "commands")]
    found = {path: (await door.ask("GET", path))[1] for path in (*paths, *(f"/api/commands/{each}" for each in ids))}
    return found | {"/api/events": await event(door, len(ids))}


async def event(door: Door, sequence: int) -> Any:
    """What a page is told of the lane once it is known to be there."""
    async with asyncio.timeout(10), door.stream() as answer:
        while True:
            await answer.content.readuntil(b"event: lanes\ndata: ")
            told = json.loads(await answer.content.readuntil(b"\n"))
            if told["lanes"][LANE]["status"]["sequence"] == sequence:
                return told


@pytest.mark.parametrize(("scope", "is_seen"), [("operator", True), ("viewer", False)])
async def test_what_commands_hold_is_for_operators(start: Start, tmp_path: Path, scope: str, is_seen: bool) -> None:
    """A seat, one that quotes it as it is rejected, and a letter whose reason quotes what came."""
    text = key(tmp_path, scope)
    door = await start(ACCESS_METHODS="keys")
    good = b'{"id":1,"code":"%s"}' % SECRET.encode()
    ids = await settled(tmp_path, good, good, b'{"id":2,"code":"A","%s":1}' % SECRET.encode())
    assert await door.sign_in(text) == 204
    found = await seen(door, ids)
    assert all(SECRET in json.dumps(found[f"/api/commands/{each}"]) for each in ids) is is_seen
    assert {path for path, each in found.items() if SECRET in json.dumps(each)} == (
        set(found) - {f"/api/lanes/{LANE}/commands"} if is_seen else set()
    )
    letter, entry = found[f"/api/lanes/{LANE}/letters/1"], found[f"/api/commands/{ids[0]}"]["found"][0]["entry"]
    assert (letter["code"], letter["is_hidden"]) == ("invalid_arguments", not is_seen)
    assert (entry["status"], bool(entry["fingerprint"])) == ("applied", is_seen)


async def test_a_stranger_s_letter_does_not_grow_as_it_is_shown(start: Start, tmp_path: Path) -> None:
    operator = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    await settled(tmp_path, DEEP)
    assert await door.sign_in(operator) == 204
    status, letter, _ = await door.ask("GET", f"/api/lanes/{LANE}/letters/1")
    assert (status, letter["is_json"], letter["kept_bytes"]) == (200, True, len(DEEP))
    assert len(letter["text"]) == len(DEEP)


@pytest.mark.parametrize("text", [b'{"a":[1,{"b":2}]}', b"[%s]" % b",".join([b'{"name":"a,b[c"}'] * 20_000), b"1"])
def test_text_of_usual_depth_is_laid_out(text: bytes) -> None:
    shown = laid_out(text)
    assert json.loads(shown) == json.loads(text)
    assert len(shown) <= LAID_OUT_BYTES_MAX
    assert ("\n" in shown) is (text != b"1")


UNSEEN = "\u202e\u200b\u00ad\u061c\u115f\u2028\u2066\ufe0f\ufeff\U000e0041"


def test_what_an_operator_edits_is_what_he_sees_and_the_same_json() -> None:
    """What turns a text around, or is drawn as nothing, is there as its code, and he sends back what he saw."""
    told = {"to": f"ada{UNSEEN}", UNSEEN: ["é", "日本", "😀", "a\\b\n"]}
    shown = laid_out(json.dumps(told, ensure_ascii=False).encode())
    assert json.loads(shown) == told
    assert all(each == "\n" or (each.isprintable() and each not in UNSEEN) for each in shown)
    assert "日本" in shown
    assert "\\udb40\\udc41" in shown


def test_pages_show_the_codes_of_the_same_characters() -> None:
    """`shown` of dom.js, through which every text of a page goes."""
    script = (ASSETS / "dom.js").read_text()
    (found,) = re.findall(r"^const UNSEEN = /\[(.*)\]/gu;$", script, re.MULTILINE)
    python = re.sub(r"\\u\{([0-9a-f]+)\}", lambda code: f"\\U{code[1]:0>8}", found)
    of_pages = re.compile(f"[{python}]")
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    ends = "\t\n"
    assert [each for each in letters if (unseen_in(each) is not None) != bool(of_pages.match(each))] == list(ends)


@pytest.mark.parametrize(("scope", "is_seen"), [("operator", True), ("viewer", False)])
async def test_a_viewer_is_told_which_command_blocks_and_not_the_words_of_its_error(
    start: Start, odd: Odd, tmp_path: Path, scope: str, is_seen: bool
) -> None:
    """Neither of the lane, nor where it is the reason why something waits, or is not found."""
    text, blocking = key(tmp_path, scope), f"blocked by command {uuid4()} (seats.add)"
    said = {"status": "unready", "lane": LANE, "reason": f"{blocking}: there is a seat {SECRET}\nor two"}
    url = await odd(json.dumps(said).encode(), b"")
    door = await start(ACCESS_METHODS="keys", OPERATIONS_COORDINATORS=url)
    assert await door.sign_in(text) == 204
    async with asyncio.timeout(10):
        await door.app[COLLECTOR].next(0)
    command_id = uuid4()
    # A row, a type, a key, a command, and one that only the system can have sent.
    asked = ("seats/7", "seats.book", "nonsense", str(command_id), f"{str(command_id)[:14]}8{str(command_id)[15:]}")
    paths = [*(f"/api/find?what={each}" for each in asked), *(f"/api/commands/{each}" for each in asked[3:])]
    found = {path: json.dumps((await door.ask("GET", path))[1]) for path in paths}
    found["/api/events"] = json.dumps(await event(door, 0))
    assert [path for path, each in found.items() if blocking not in each] == []
    assert {path for path, each in found.items() if SECRET in each} == (set(found) if is_seen else set())


blocking = Service("seats")


class BlockSeat(Command, type="seats.block"):
    code: str


@blocking.handles(BlockSeat, on_failure="block")
def block(_: UnitOfWork, command: BlockSeat) -> None:
    raise ValueError(f"nothing can be done with seat {command.code}")


@pytest.mark.parametrize(("scope", "is_seen"), [("operator", True), ("viewer", False)])
async def test_nor_by_the_process_that_runs_a_lane_without_a_broker(
    start: Start, tmp_path: Path, scope: str, is_seen: bool
) -> None:
    text, path = key(tmp_path, scope), tmp_path / "seats.sqlite"
    door = await start(ACCESS_METHODS="keys", OPERATIONS_REFRESH_S="0.1")
    assert await door.sign_in(text) == 204
    lanes = InProcessWrites({LANE: SqliteStore(str(path), blocking)}, [blocking], addresses={LANE: f"sqlite:///{path}"})
    async with asyncio.timeout(20), lanes, operators_socket(socket_beside(path), lanes), door.stream() as answer:
        arguments = b'{"code":"%s"}' % SECRET.encode()
        with pytest.raises(CommandPending):
            await lanes.issue(LANE, CommandMessage(str(uuid4()), "seats.block", arguments), 0)
        told = ""
        while "blocked by command" not in told:
            await answer.content.readuntil(b"event: lanes\ndata: ")
            told = (await answer.content.readuntil(b"\n")).decode()
    assert json.loads(told)["lanes"][LANE]["state"] == "suspended"
    assert (SECRET in told) is is_seen


named = Service("seats")


@named.row
class Label(VersionedRow, table="labels", key="text", audited=True):
    text: Annotated[str, Meta(max_length=10)]


class AddLabel(Command, type="seats.label"):
    text: str


@named.handles(AddLabel)
def label(work: UnitOfWork, command: AddLabel) -> Label:
    return work.add(Label(text=command.text))


@pytest.mark.parametrize(("scope", "is_seen"), [("operator", True), ("viewer", False)])
async def test_the_key_of_a_row_that_a_command_has_changed_is_for_operators(
    start: Start, tmp_path: Path, scope: str, is_seen: bool
) -> None:
    text, command_id, path = key(tmp_path, scope), str(uuid4()), tmp_path / "seats.sqlite"
    migrate(named, DatabaseSettings(database_url=f"sqlite:///{path}"))
    door = await start(ACCESS_METHODS="keys")
    assert await door.sign_in(text) == 204
    async with InProcessWrites({LANE: SqliteStore(str(path), named)}, [named]) as writes:
        arguments = b'{"text":"%s"}' % SECRET.encode()
        assert (
            await writes.issue(LANE, CommandMessage(command_id, "seats.label", arguments), None)
        ).status == "applied"
    (found,) = (await door.ask("GET", f"/api/commands/{command_id}"))[1]["found"]
    (change,) = found["changes"]
    assert change == {"row_table": "labels", "row_key": change["row_key"], "how": "inserted", "version": 1}
    assert (SECRET in json.dumps(found)) is is_seen


def jam(_: UnitOfWork, __: Command) -> None:
    raise ValueError("this release has a defect")


jammed = seats.replace(
    handlers=tuple(
        structs.replace(each, handle=jam, on_failure="park-key", target=lambda command: Seat.at(code=command.code))
        for each in seats.handlers
        if each.command is AddSeat
    )
)


@pytest.mark.parametrize(("scope", "is_seen"), [("operator", True), ("viewer", False)])
async def test_the_key_for_which_commands_wait_is_for_operators(
    start: Start, tmp_path: Path, scope: str, is_seen: bool
) -> None:
    """A viewer is told which command keeps others waiting, and how many, and not what they are for."""
    text, (failed, waiting) = key(tmp_path, scope), (str(uuid4()), str(uuid4()))
    door = await start(ACCESS_METHODS="keys")
    assert await door.sign_in(text) == 204
    path = f"/api/lanes/{LANE}/parked"
    async with (
        asyncio.timeout(20),
        InProcessWrites({LANE: SqliteStore(str(tmp_path / "seats.sqlite"), jammed)}, [jammed]) as writes,
    ):
        arguments = b'{"id":1,"code":"%s"}' % SECRET.encode()
        assert (await writes.issue(LANE, CommandMessage(failed, "seats.add", arguments), None)).status == "failed"
        with pytest.raises(CommandPending):
            await writes.issue(LANE, CommandMessage(waiting, "seats.add", arguments), 0)
        while (found := (await door.ask("GET", path))[1])["keys"][0]["waiting"] == 0:
            pass
    paths = (f"/api/commands/{waiting}", f"/api/find?what={waiting}")
    told = {path: json.dumps(found)} | {each: json.dumps((await door.ask("GET", each))[1]) for each in paths}
    assert [each for each, said in told.items() if failed not in said] == []
    assert {each for each, said in told.items() if SECRET in said} == (set(told) if is_seen else set())
    assert ("coordinator release seats" in told[paths[1]]) is is_seen
    assert json.loads(told[paths[0]])["found"][0]["waits_behind"] == failed


def test_nor_is_it_shown_by_the_act_that_released_it() -> None:
    details = {"ordering_key": f"seats.code={SECRET}", "command_id": "7"}
    release = OperatorAct(
        id="1",
        done_at=datetime.now(UTC),
        author="ada",
        account=None,
        act="release",
        details=json.dumps(details),
    )
    assert json.loads(act_without_content(release).details) == details | {"ordering_key": HIDDEN_REASON}
    # As a lane of an earlier release has kept whom it was to forget. What a key was made for is no such thing.
    forgotten = structs.replace(release, act="forget", details='{"table":"users","subject":"df8adc09"}')
    assert json.loads(act_without_content(forgotten).details) == {"table": "users", "subject": HIDDEN_REASON}
    made = structs.replace(forgotten, act="keys create")
    assert act_without_content(made) == made
    pause = structs.replace(release, act="pause", details="{}")
    assert act_without_content(pause) == pause
