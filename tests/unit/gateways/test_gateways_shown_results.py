"""Rows in the results of commands, at a made gateway: they are shown to whom the rule of their class shows them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import attrs
import pytest
from msgspec import Raw, Struct
from structlog.testing import capture_logs

from coordinator import Command, Handler, Principal, Row, Service, UnitOfWork, VersionedRow, any_principal, anybody
from coordinator.http import shown_results
from coordinator.http.shown_results import ShownResults
from tests.unit.gateways.test_gateways_allow import Asking, asking

NOTES = Service("notes", allow=any_principal)


def own_notes(who: Principal) -> Any:
    if who.subject == "raises":
        raise RuntimeError("a defect")
    return True if "staff" in who.scopes else {"owner": who.subject}


@NOTES.row(is_public=True, allow=own_notes)
class Note(VersionedRow, table="notes", key="id", index=("owner",)):
    id: int
    owner: str
    text: str


@NOTES.row(is_public=False, allow=own_notes)
class Draft(VersionedRow, table="drafts", key=("owner", "id")):
    owner: str
    id: int
    text: str


class Signed(VersionedRow):
    """What rows of several tables have."""

    id: int
    owner: str


@NOTES.row(is_public=False, allow=own_notes)
class Letter(Signed, table="letters", key="id"):
    text: str = "secret"


class Dated(VersionedRow):
    """The same of what everybody may see."""

    id: int


@NOTES.row(is_public=False, allow=anybody)
class Holiday(Dated, table="holidays", key="id"):
    """A day."""


class Rest(Command, type="notes.rest"):
    id: int


class Seal(Command, type="notes.seal"):
    id: int
    owner: str


class Write(Command, type="notes.write"):
    """Anybody writes a note, for anybody."""

    id: int
    owner: str
    text: str = "secret"


class Sign(Command, type="notes.sign"):
    id: int
    owner: str


class Outline(Command, type="notes.outline"):
    id: int
    owner: str


class Exchange(Command, type="notes.exchange"):
    first: int
    second: int


class Beside(Struct):
    mine: Note | None
    other: VersionedRow


class Counts(TypedDict):
    many: int


class Counted(Struct):
    of: Counts


class Exchanged(Struct, frozen=True):
    before: tuple[Note, ...]
    by_name: dict[str, Note]
    how_many: int


@NOTES.handles(Sign, allow=anybody)
def sign(work: UnitOfWork, command: Sign) -> Note:
    return work.add(Note(id=command.id, owner=command.owner, text="secret"))


@NOTES.handles(Write, target=lambda command: Note.at(command.id))
def write(work: UnitOfWork, command: Write) -> Note:
    known = work.get(Note, command.id)
    if known is not None:
        return work.save(known.replace(text=command.text))
    return work.add(Note(id=command.id, owner=command.owner, text=command.text))


@NOTES.handles(Outline)
def outline(work: UnitOfWork, command: Outline) -> Draft:
    return work.add(Draft(owner=command.owner, id=command.id, text="secret"))


@NOTES.handles(Exchange)
def exchange(work: UnitOfWork, command: Exchange) -> Exchanged:
    first, second = work.get(Note, command.first), work.get(Note, command.second)
    assert first is not None
    assert second is not None
    return Exchanged((first, second), {"first": first}, 2)


@dataclass(frozen=True, slots=True)
class Compared:
    first: Note
    is_same: bool


@attrs.frozen
class Second:
    note: Note


class Weighed(Struct, frozen=True):
    compared: Compared
    second: Second


class Compare(Command, type="notes.compare"):
    first: int
    second: int


@NOTES.handles(Compare)
def compare(work: UnitOfWork, command: Compare) -> Weighed:
    first, second = work.get(Note, command.first), work.get(Note, command.second)
    assert first is not None
    assert second is not None
    return Weighed(Compared(first, is_same=False), Second(second))


class Envelope(Struct):
    letter: Signed | None


class Post(Command, type="notes.post"):
    id: int
    owner: str


@NOTES.handles(Rest)
def rest(work: UnitOfWork, command: Rest) -> Dated:
    return work.add(Holiday(id=command.id))


@NOTES.handles(Seal)
def seal(work: UnitOfWork, command: Seal) -> Signed:
    return work.add(Letter(id=command.id, owner=command.owner))


@NOTES.handles(Post)
def post(work: UnitOfWork, command: Post) -> Envelope:
    return Envelope(work.add(Letter(id=command.id, owner=command.owner)))


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Asking]:
    async with AsyncExitStack() as stack:
        yield await asking(stack, tmp_path / "notes.sqlite", authenticates=True, service=NOTES)


ADAS = {"id": 1, "owner": "ada"}
WHOLE = ADAS | {"text": "secret", "version": 1}


@pytest.mark.parametrize(("who", "shown"), [("ada", WHOLE), ("bob", {"id": 1}), ("carl~staff", WHOLE)])
async def test_a_result_shows_a_row_to_whom_its_rule_shows_it(notes: Asking, who: str, shown: Any) -> None:
    status, result, response = await notes.call(who, "POST", "/notes/commands/write", ADAS)
    assert (status, result) == (200, shown)
    assert ("ETag" in response.headers, "Content-Location" in response.headers) == ((shown == WHOLE,) * 2)
    assert response.headers["Location"].startswith("/commands/")


async def test_so_does_each_way_to_the_same_result(notes: Asking) -> None:
    key = {"Idempotency-Key": "order-1"}
    first = (await notes.call("bob", "POST", "/notes/commands/write", ADAS, key))[2]
    _, again, response = await notes.call("bob", "POST", "/notes/commands/write", ADAS, key)
    assert (again, response.headers["Idempotent-Replayed"]) == ({"id": 1}, "true")
    place = first.headers["Location"]
    assert (await notes.call("bob", "GET", place))[1]["result"] == {"id": 1}
    assert (await notes.call("olga~operator", "GET", place))[1]["result"] == {"id": 1}
    body = [{"type": "notes.write", "args": ADAS}, {"type": "notes.write", "args": {"id": 2, "owner": "bob"}}]
    outcomes = (await notes.call("bob", "POST", "/commands", body))[1]
    assert [each["result"].get("text") for each in outcomes] == [None, "secret"]
    assert outcomes[0]["result"] == {"id": 1}
    later = await notes.call("bob", "POST", "/notes/commands/write", ADAS, {"Prefer": "respond-async"})
    assert later[0] == 202
    while (found := await notes.call("bob", "GET", later[2].headers["Location"]))[0] == 202:
        pass
    assert found[1]["result"] == {"id": 1}


async def test_of_a_row_that_is_not_public_a_rule_counts_too(notes: Asking) -> None:
    own = await notes.call("ada", "POST", "/notes/commands/outline", {"id": 1, "owner": "ada"})
    other = await notes.call("bob", "POST", "/notes/commands/outline", {"id": 2, "owner": "ada"})
    assert (own[1]["text"], other[1]) == ("secret", {"owner": "ada", "id": 2})


async def test_a_version_that_is_not_expected_is_not_told(notes: Asking) -> None:
    """Whoever may issue the command need not be one who sees the row, and its version is a field of it."""
    for _ in range(3):
        await notes.call("ada", "POST", "/notes/commands/write", ADAS)
    status, problem, response = await notes.call("bob", "POST", "/notes/commands/write", ADAS, {"If-Match": '"9"'})
    assert (status, problem["detail"]) == (412, "notes 1 has another version than 9")
    assert "ETag" not in response.headers


async def test_whoever_is_not_asked_who_he_is_sees_no_row_with_a_rule(notes: Asking) -> None:
    assert (await notes.call(None, "POST", "/notes/commands/sign", ADAS))[:2] == (200, {"id": 1})


async def test_rows_within_a_result_have_their_rule(notes: Asking) -> None:
    for number, owner in ((1, "ada"), (2, "bob")):
        await notes.call("ada", "POST", "/notes/commands/write", {"id": number, "owner": owner})
    _, result, _ = await notes.call("bob", "POST", "/notes/commands/exchange", {"first": 1, "second": 2})
    bobs = {"id": 2, "owner": "bob", "text": "secret", "version": 1}
    assert result == {"before": [{"id": 1}, bobs], "by_name": {"first": {"id": 1}}, "how_many": 2}
    body = [{"type": "notes.exchange", "args": {"first": 1, "second": 2}}]
    assert (await notes.call("bob", "POST", "/commands", body))[1][0]["result"] == result


async def test_so_have_rows_within_dataclasses_and_classes_of_attrs(notes: Asking) -> None:
    for number, owner in ((1, "ada"), (2, "bob")):
        await notes.call("ada", "POST", "/notes/commands/write", {"id": number, "owner": owner})
    bobs = {"id": 2, "owner": "bob", "text": "secret", "version": 1}
    _, result, response = await notes.call("bob", "POST", "/notes/commands/compare", {"first": 1, "second": 2})
    assert result == {"compared": {"first": {"id": 1}, "is_same": False}, "second": {"note": bobs}}
    assert (await notes.call("bob", "GET", response.headers["Location"]))[1]["result"] == result


@pytest.mark.parametrize("command", ["seal", "post"])
async def test_nothing_is_shown_of_what_is_promised_as_a_base_whichever_way_it_is_asked_for(
    notes: Asking, command: str
) -> None:
    key = {"Idempotency-Key": "order-1"}
    with capture_logs() as logs:
        for _ in range(2):
            status, result, response = await notes.call("bob", "POST", f"/notes/commands/{command}", ADAS, key)
            assert (status, result, "ETag" in response.headers) == (200, None, False)
        assert (await notes.call("bob", "GET", response.headers["Location"]))[1]["result"] is None
    assert [each["times"] for each in logs if each["event"] == "result_withheld"] == [1]
    body = [{"type": f"notes.{command}", "args": {"id": 2, "owner": "ada"}}]
    assert (await notes.call("bob", "POST", "/commands", body))[1][0]["result"] is None


async def test_what_is_withheld_is_told_once_a_minute_with_how_often(
    notes: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    request: Any = SimpleNamespace(app=notes.app)
    results, now_s = ShownResults([NOTES]), 100.0
    monkeypatch.setattr(shown_results, "monotonic", lambda: now_s)
    with capture_logs() as logs:
        for now_s in (100.0, 101.0, 102.0, 161.0, 162.0):
            for kind in ("notes.gone", "notes.lost")[: 1 if now_s == 162 else 2]:
                assert bytes(results.of_logged(request, kind, Raw(b'{"text":"secret"}'))) == b"null"
    assert [(each["type"], each["times"]) for each in logs] == [
        *(("notes.gone", 1), ("notes.lost", 1)),
        *(("notes.gone", 3), ("notes.lost", 3)),
    ]


async def test_the_document_of_the_routes_says_so(notes: Asking) -> None:
    paths = (await notes.call("ada", "GET", "/openapi.json"))[1]["paths"]
    promised = {"seal": True, "post": True, "write": False, "exchange": False, "rest": False}
    for command, is_nothing in promised.items():
        answer = paths[f"/notes/commands/{command}"]["post"]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"]
        assert ("null" in [each.get("type") for each in schema.get("anyOf", ())]) is is_nothing, command


@pytest.mark.parametrize("promised", [Row, VersionedRow, Struct, list[VersionedRow], VersionedRow | None])
async def test_of_a_row_that_is_promised_as_a_base_of_its_class_nothing_is_shown(notes: Asking, promised: Any) -> None:
    """Whoever reads it as that does not know whose rule it has."""

    def based(work: UnitOfWork, command: Write) -> Any: ...

    based.__annotations__["return"] = promised
    request: Any = SimpleNamespace(app=notes.app)
    results = ShownResults([NOTES.replace(handlers=(Handler(Write, based, allow=anybody),))])
    assert bytes(results.of_logged(request, Write.type, Raw(b'{"text":"secret"}'))) == b"null"


async def test_nor_where_a_row_of_a_known_class_is_beside_it(notes: Asking) -> None:
    """What that row's rule shows says nothing of the other one."""

    def beside(work: UnitOfWork, command: Write) -> Beside:
        return Beside(None, Note(id=command.id, owner=command.owner, text=command.text))

    request: Any = SimpleNamespace(app=notes.app)
    results = ShownResults([NOTES.replace(handlers=(Handler(Write, beside, allow=anybody),))])
    logged = Raw(b'{"mine":null,"other":{"version":1,"text":"secret"}}')
    assert bytes(results.of_logged(request, Write.type, logged)) == b"null"


@pytest.mark.parametrize(
    ("promised", "logged"), [(Counts, b'{"many":2}'), (Counted, b'{"of":{"many":2}}'), (list[Counts], b'[{"many":2}]')]
)
async def test_what_has_no_row_is_shown_also_of_a_typed_dict(notes: Asking, promised: Any, logged: bytes) -> None:
    """Nobody can ask whether a class is a subclass of one."""

    def counting(work: UnitOfWork, command: Write) -> Any: ...

    counting.__annotations__["return"] = promised
    request: Any = SimpleNamespace(app=notes.app)
    results = ShownResults([NOTES.replace(handlers=(Handler(Write, counting, allow=anybody),))])
    assert bytes(results.of_logged(request, Write.type, Raw(logged))) == logged


async def test_a_rule_that_raises_shows_nothing_of_a_command_that_is_applied(notes: Asking) -> None:
    with capture_logs() as logs:
        assert (await notes.call("raises", "POST", "/notes/commands/write", ADAS))[:2] == (200, {"id": 1})
    assert [each["table"] for each in logs if each["event"] == "row_rule_failed"] == ["notes"]


async def test_of_a_result_that_cannot_be_read_nothing_is_shown(notes: Asking) -> None:
    """An earlier release's rows had other fields; of a type that is gone nobody knows what it returned."""
    request: Any = SimpleNamespace(app=notes.app)
    results = ShownResults([NOTES])
    with capture_logs() as logs:
        for kind, result in (("notes.write", b'{"text":"secret"}'), ("notes.gone", b'{"text":"secret"}')):
            assert bytes(results.of_logged(request, kind, Raw(result))) == b"null"
    assert [each["type"] for each in logs] == ["notes.write", "notes.gone"]
    for kind in ("lane.marker", "other.command"):
        assert bytes(results.of_logged(request, kind, Raw(b'{"a":1}'))) == b'{"a":1}'
