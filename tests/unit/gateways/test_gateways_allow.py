"""Who may, at a gateway that is made from a service, with its lane in the same process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from aiohttp import web

from coordinator import (
    Command,
    ConfigurationError,
    Handler,
    Principal,
    Reading,
    Row,
    Service,
    UnitOfWork,
    VersionedRow,
    any_principal,
    anybody,
    command_id_for,
    has_scope,
    new_command_id,
)
from coordinator.access.authenticator import NotAuthentic
from coordinator.http import create_app, gateway_of
from coordinator.migrations.migrate import migrate
from coordinator.protocol.wire import CommandMessage
from coordinator.reading import close_database, open_command_log, open_database
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings
from coordinator.service.rules import check_decided
from coordinator.writing import InProcessWrites, open_store

NO_HEADERS: Mapping[str, str] = {}
NOTES = Service("notes", allow=any_principal)


def own_notes(who: Principal) -> Any:
    return True if "staff" in who.scopes else {"owner": who.subject}


@NOTES.row(is_public=True, allow=own_notes)
class Note(VersionedRow, table="notes", key="id", index=("owner", "subject")):
    id: int
    owner: str
    text: str
    subject: int = 0


@NOTES.row(is_public=True, allow=has_scope("staff"))
class Secret(Row, table="secrets", key="id"):
    id: int


@NOTES.row(is_public=True, allow=anybody)
class Poster(Row, table="posters", key="id"):
    id: int


class Write(Command, type="notes.write"):
    id: int
    text: str


class Edit(Command, type="notes.edit"):
    id: int
    text: str


class Post(Command, type="notes.post"):
    id: int


def its_owner(who: Principal, command: Edit, rows: Reading) -> bool:
    note = rows.get(Note, command.id)
    return note is None or note.owner == who.subject


@NOTES.handles(Write)
def write(work: UnitOfWork, command: Write) -> Note:
    work.add(Secret(id=command.id))
    owner = work.actor.subject if work.actor else ""
    return work.add(Note(id=command.id, owner=owner, text=command.text, subject=command.id % 2))


@NOTES.handles(Edit, target=lambda command: Note.at(command.id), allow=its_owner)
def edit(work: UnitOfWork, command: Edit) -> Note:
    note = work.get(Note, command.id)
    assert note is not None
    return work.save(note.replace(text=command.text))


@NOTES.handles(Post, allow=anybody)
def post(work: UnitOfWork, command: Post) -> Poster:
    return work.add(Poster(id=command.id))


class ByName:
    """The credential is the subject, and what follows a tilde his only scope."""

    knows_anybody = True

    def known(self, _authorization: str, /) -> Principal | None:
        return None

    async def principal_of(self, credential: str) -> Principal:
        subject, _, scope = credential.partition("~")
        if subject == "nobody":
            raise NotAuthentic("nobody")
        return Principal(subject=subject, scopes=frozenset({scope} if scope else ()))

    async def problem(self) -> str | None:
        return None

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Asking:
    def __init__(self, url: str, session: aiohttp.ClientSession, writes: Any, app: web.Application) -> None:
        self.writes = writes
        self.app = app
        self._url = url
        self._session = session

    async def call(
        self, who: str | None, method: str, path: str, body: Any = None, others: Mapping[str, str] = NO_HEADERS
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        headers = dict(others) | ({} if who is None else {"Authorization": f"Bearer {who}"})
        async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None), response


async def asking(stack: AsyncExitStack, path: Path, *, authenticates: bool, service: Service = NOTES) -> Asking:
    url = f"sqlite:///{path}"
    migrate(service, DatabaseSettings(database_url=url))
    writes = await stack.enter_async_context(InProcessWrites({service.name: open_store(url, service)}, [service]))
    database = open_database(url)
    stack.push_async_callback(close_database, database)
    app = create_app(
        gateway_of(service),
        transport=writes,
        database=database,
        command_log=open_command_log(database),
        settings=GatewaySettings(),
        authenticator=ByName() if authenticates else None,
    )
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    return Asking(f"http://127.0.0.1:{port}", await stack.enter_async_context(aiohttp.ClientSession()), writes, app)


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Asking]:
    async with AsyncExitStack() as stack:
        yield await asking(stack, tmp_path / "notes.sqlite", authenticates=True)


@pytest.fixture
async def unguarded(tmp_path: Path) -> AsyncIterator[Asking]:
    async with AsyncExitStack() as stack:
        yield await asking(stack, tmp_path / "notes.sqlite", authenticates=False)


async def test_a_command_that_its_rule_refuses_is_403(notes: Asking) -> None:
    assert (await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"}))[0] == 200
    status, problem, response = await notes.call("bob", "POST", "/notes/commands/edit", {"id": 1, "text": "b"})
    assert (status, problem["code"]) == (403, "forbidden")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="write-coordinator", error="insufficient_scope"'
    assert (await notes.call("ada", "POST", "/notes/commands/edit", {"id": 1, "text": "c"}))[1]["text"] == "c"
    many = [{"type": "notes.edit", "args": {"id": 1, "text": "d"}}]
    _, outcomes, _ = await notes.call("bob", "POST", "/commands", many)
    assert [each["error"]["code"] for each in outcomes] == ["forbidden"]
    assert (await notes.call("ada", "GET", "/notes/notes/1"))[1]["text"] == "c"


async def test_rows_that_one_may_not_see_are_not_there(notes: Asking) -> None:
    for number, who in ((1, "ada"), (2, "bob"), (3, "ada"), (4, "ada")):
        await notes.call(who, "POST", "/notes/commands/write", {"id": number, "text": "a"})
    not_there = await notes.call("bob", "GET", "/notes/notes/9")
    hidden = await notes.call("bob", "GET", "/notes/notes/1")
    assert (hidden[0], hidden[1]["code"]) == (404, "row_not_found")
    assert hidden[1]["detail"].replace("'1'", "'9'") == not_there[1]["detail"]
    assert (await notes.call("bob", "GET", "/notes/notes/2"))[1]["owner"] == "bob"
    first = (await notes.call("ada", "GET", "/notes/notes?limit=2"))[1]
    assert [row["id"] for row in first["items"]] == [1, 3]
    rest = (await notes.call("ada", "GET", f"/notes/notes?limit=2&after={first['next']}"))[1]
    assert ([row["id"] for row in rest["items"]], rest["next"]) == ([4], None)
    everything = (await notes.call("carl~staff", "GET", "/notes/notes"))[1]
    assert [row["id"] for row in everything["items"]] == [1, 2, 3, 4]


async def test_a_list_of_what_is_asked_for_has_nothing_that_one_may_not_see(notes: Asking) -> None:
    for number, who in ((1, "ada"), (2, "bob"), (3, "ada"), (4, "ada")):
        await notes.call(who, "POST", "/notes/commands/write", {"id": number, "text": "a"})

    async def ids(who: str, query: str) -> Any:
        page = (await notes.call(who, "GET", f"/notes/notes?{query}"))[1]
        return [row["id"] for row in page["items"]], page["next"]

    assert await ids("carl~staff", "owner=ada&limit=2") == ([1, 3], 3)
    assert await ids("carl~staff", "owner=ada&limit=2&after=3") == ([4], None)
    assert await ids("ada", "owner=ada") == ([1, 3, 4], None)
    assert await ids("bob", "owner=ada") == ([], None)
    assert await ids("carl~staff", "owner=") == ([], None)
    assert await ids("carl~staff", "owner=%00") == ([], None)
    for query, field in (("text=a", "text"), ("owner=a&owner=b", "owner"), ("owner=ada&after=x", "after")):
        status, problem, _ = await notes.call("ada", "GET", f"/notes/notes?{query}")
        assert (status, problem["code"], problem["field"]) == (400, "invalid_query", field)
    # A rule and what is asked for have an index each, and none together.
    assert await ids("ada", "subject=1") == ([1, 3], None)
    assert await ids("ada", "subject=1&limit=1&after=1") == ([3], None)
    assert await ids("bob", "subject=1") == ([], None)
    assert await ids("carl~staff", "subject=1") == ([1, 3], None)
    # One may see nothing under a name that no row can have.
    assert (await notes.call("a\u00e9", "GET", "/notes/notes"))[0] == 401


async def test_a_text_that_no_database_keeps_is_refused_by_its_name(notes: Asking) -> None:
    body = {"id": 1, "text": "a\0"}
    status, problem, _ = await notes.call("ada", "POST", "/notes/commands/write", body)
    assert (status, problem["code"], problem["field"]) == (422, "invalid_arguments", "text")
    others = {"Command-Version": "1"}
    assert (await notes.call("ada", "POST", "/notes/commands/write", body, others))[1]["field"] == "text"
    _, outcomes, _ = await notes.call("ada", "POST", "/commands", [{"type": "notes.write", "args": body}])
    assert (outcomes["code"], outcomes["field"]) == ("invalid_arguments", "[0].args.text")
    assert (await notes.call("ada", "POST", "/notes/commands/write", body | {"text": "\\u0000"}))[0] == 200


async def test_a_class_of_which_one_may_see_nothing(notes: Asking) -> None:
    await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"})
    status, problem, _ = await notes.call("ada", "GET", "/notes/secrets")
    assert (status, problem["code"]) == (403, "forbidden")
    assert (await notes.call("ada", "GET", "/notes/secrets/1"))[0] == 404
    assert (await notes.call("carl~staff", "GET", "/notes/secrets/1"))[1] == {"id": 1}


async def test_what_is_for_everybody_asks_nobody_who_he_is(notes: Asking) -> None:
    assert (await notes.call(None, "POST", "/notes/commands/post", {"id": 1}))[0] == 200
    assert (await notes.call(None, "GET", "/notes/posters/1"))[1] == {"id": 1}
    assert (await notes.call("nobody", "GET", "/notes/posters"))[0] == 200
    assert (await notes.call(None, "GET", "/notes/notes"))[0] == 401
    assert (await notes.call(None, "POST", "/notes/commands/write", {"id": 1, "text": "a"}))[0] == 401


async def test_nobody_uses_up_the_key_of_somebody_who_is_known(notes: Asking) -> None:
    key = {"Idempotency-Key": "order-1"}
    status, _, response = await notes.call(None, "POST", "/notes/commands/post", {"id": 1}, key)
    assert (status, response.headers["Command-Id"] == command_id_for("notes", "order-1")) == (200, False)
    assert (await notes.call(None, "POST", "/notes/commands/post", {"id": 1}, key))[2].headers["Idempotent-Replayed"]
    _, _, own = await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"}, key)
    assert own.status == 200
    taken = {"Command-Id": command_id_for("notes", "order-2")}
    status, problem, _ = await notes.call(None, "POST", "/notes/commands/post", {"id": 2}, taken)
    assert (status, problem["code"], problem["field"]) == (400, "invalid_header", "Command-Id")
    fresh = {"Command-Id": new_command_id()}
    assert (await notes.call(None, "POST", "/notes/commands/post", {"id": 2}, fresh))[0] == 200


async def test_what_was_refused_to_nobody_stands_for_nobodys_key(notes: Asking) -> None:
    """Somebody publishes it with an id that everybody can make, and nobody knows who he is."""
    body = {"id": 1, "text": "a"}
    arguments = msgspec.json.encode(body)
    message = CommandMessage(command_id_for("notes", "order-1"), Write.type, arguments, "public")
    outcome = await notes.writes.issue("notes", message, 10)
    assert outcome.error is not None
    assert outcome.error.code == "forbidden"
    assert (await notes.call("ada", "POST", "/notes/commands/write", body, {"Idempotency-Key": "order-1"}))[0] == 200


async def test_nobody_takes_a_key_by_an_id_that_everybody_can_make(notes: Asking) -> None:
    """A new lane has let nobody in without asking who he is."""
    message = CommandMessage(command_id_for("notes", "order-1\n0"), Post.type, b'{"id":1}', "public")
    assert (await notes.writes.issue("notes", message, 10)).status == "applied"
    own = [{"type": "notes.post", "args": {"id": 2}}]
    (outcome,) = (await notes.call("ada", "POST", "/commands", own, {"Idempotency-Key": "order-1"}))[1]
    assert outcome["status"] == "applied"


async def test_a_key_that_is_used_for_other_content_is_named(notes: Asking) -> None:
    key = {"Idempotency-Key": "order-1"}
    assert (await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"}, key))[0] == 200
    status, problem, _ = await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "b"}, key)
    assert (status, problem["code"]) == (422, "idempotency_mismatch")
    assert problem["detail"].startswith("the Idempotency-Key 'order-1' was used before, for other content: ")
    assert problem["detail"].endswith(", settled with sequence 1"), "whose it was may know"
    many = [{"type": "notes.write", "args": {"id": number, "text": "a"}} for number in (2, 3)]
    assert {each["status"] for each in (await notes.call("ada", "POST", "/commands", many, key))[1]} == {"applied"}
    many[1]["args"]["text"] = "b"  # type: ignore[index]
    first, second = (await notes.call("ada", "POST", "/commands", many, key))[1]
    assert (first["status"], first["replayed"]) == ("applied", True)
    assert second["error"]["message"].startswith("the Idempotency-Key 'order-1' was used before, for other content: ")
    own = [{"type": "notes.write", "args": {"id": 9, "text": "b"}, "id": first["command_id"]}]
    message = (await notes.call("ada", "POST", "/commands", own, key))[1][0]["error"]["message"]
    assert message.startswith("the id is that of another command"), "it has an id of its own, and no key"


async def test_the_outcome_of_a_command_is_for_whoever_asked_for_it(notes: Asking) -> None:
    _, _, response = await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"})
    place = f"/commands/{response.headers['Command-Id']}"
    assert (await notes.call("ada", "GET", place))[1]["status"] == "applied"
    assert (await notes.call("olga~operator", "GET", place))[1]["status"] == "applied"
    other, unknown = await notes.call("bob", "GET", place), await notes.call("bob", "GET", f"{place[:-4]}0000")
    assert (other[0], other[1]["code"]) == (404, "command_not_found")
    assert set(other[1]) == set(unknown[1])
    assert "Command-Sequence" not in other[2].headers
    # Nor by sending the same once more under its id.
    command_id = place.rpartition("/")[2]
    for text in ("a", "b"):
        body = [{"type": "notes.write", "args": {"id": 1, "text": text}, "id": command_id}]
        error = (await notes.call("bob", "POST", "/commands", body))[1][0]["error"]
        assert error["code"] == "idempotency_mismatch"
        assert error["message"] == f"the id is that of another command: {command_id}", "not even that it is settled"


async def test_where_nobody_is_asked_rules_of_commands_refuse_and_rows_are_shown(unguarded: Asking) -> None:
    status, problem, _ = await unguarded.call(None, "POST", "/notes/commands/write", {"id": 1, "text": "a"})
    assert (status, problem["code"]) == (403, "forbidden")
    assert (await unguarded.call(None, "POST", "/notes/commands/post", {"id": 1}))[0] == 200
    assert (await unguarded.call(None, "GET", "/notes/secrets"))[0] == 200


def test_a_gateway_that_asks_who_asks_needs_a_rule_for_everything() -> None:
    check_decided("notes", NOTES.commands, [NOTES])
    undecided = NOTES.replace(allow=None)
    with pytest.raises(
        ConfigurationError, match=r"use notes\.write: declare it .* Service\(\"notes\", allow=any_princip"
    ):
        check_decided("notes", (), [undecided])
    rows = Service("notes", public_models=[Note], models=[Note])
    with pytest.raises(ConfigurationError, match="may use Note:"):
        check_decided("notes", (), [rows])


def test_so_it_does_for_commands_of_other_lanes() -> None:
    front = Service("front", allow=any_principal)
    check_decided("front", NOTES.commands, [front, NOTES])
    with pytest.raises(ConfigurationError, match=r"use notes\.write: declare it .* Service\(\"notes\""):
        check_decided("front", NOTES.commands, [front, NOTES.replace(allow=None)])
    with pytest.raises(ConfigurationError, match=r"use notes\.edit, notes\.post, notes\.write:"):
        check_decided("front", NOTES.commands, [front])
    with pytest.raises(ConfigurationError, match=r"use notes\.edit, notes\.post, notes\.write:"):
        check_decided("front", NOTES.commands, [])


def test_what_only_the_system_issues_needs_none() -> None:
    handlers: list[Handler[Any]] = [Handler(Write, write, is_internal=True), Handler(Post, post, is_operators=True)]
    check_decided("notes", (), [Service("notes", models=NOTES.models, handlers=handlers)])
    assert [each.allow for each in NOTES.replace(handlers=handlers).handlers] == [None, None]


def test_a_rule_of_rows_needs_an_index() -> None:
    with pytest.raises(ConfigurationError, match="`allow` of Note: Note has no index that begins with text"):
        gateway_of(NOTES.replace(row_rules={Note: lambda who: {"text": who.subject}}))


def test_a_rule_of_rows_gives_values_of_its_column() -> None:
    wrong = r"`allow` of Note: notes\.subject: a str where an integer belongs"
    with pytest.raises(ConfigurationError, match=wrong):
        gateway_of(NOTES.replace(row_rules={Note: lambda who: {"subject": who.subject}}))


@pytest.fixture
async def mistaken(tmp_path: Path) -> AsyncIterator[Asking]:
    """Rules that are wrong for some only."""

    def by_tenant(who: Principal) -> Any:
        return {"ada": {"owner": "ada"}, "bob": {"subject": "7"}, "tim": {"owner": who.tenant}}.get(who.subject, True)

    async with AsyncExitStack() as stack:
        service = NOTES.replace(row_rules={**NOTES.row_rules, Note: by_tenant})
        yield await asking(stack, tmp_path / "notes.sqlite", authenticates=True, service=service)


async def test_a_rule_that_gives_another_type_is_an_error_that_operators_find(mistaken: Asking) -> None:
    with structlog.testing.capture_logs() as logs:
        for path in ("/notes/notes", "/notes/notes/1"):
            await mistaken.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"})
            assert (await mistaken.call("ada", "GET", path))[0] == 200
            status, problem, _ = await mistaken.call("bob", "GET", path)
            assert (status, problem["code"]) == (500, "internal_error")
            assert "subject" not in str(problem)
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["internal_error"] * 2


async def test_where_each_row_has_a_tenant_somebody_without_one_sees_none(mistaken: Asking) -> None:
    assert (await mistaken.call("tim", "GET", "/notes/notes"))[0] == 403
    assert (await mistaken.call("tim", "GET", "/notes/notes/1"))[0] == 404
