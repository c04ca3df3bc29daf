"""Who gets into the operations gateway, and what other sites and hostile requests cannot do. The lane is a file."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from coordinator.access.settings import AccessSettings
from coordinator.http.contract.served import CONTRACT
from coordinator.http.server import create_runner
from coordinator.migrations.migrate import migrate
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.operations.lane_routes import COLLECTOR
from coordinator.operations.main import operations_app
from coordinator.operations.pages import CONTENT_SECURITY_POLICY
from coordinator.operations.sessions import COOKIE, MARK_HEADER
from coordinator.registry import APP_SETTING
from coordinator.runtime.settings import DatabaseSettings, GatewaySettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.stores.audit import ActQuery
from tests.support.callers import key_of
from tests.support.documented_answers import DocumentedAnswers
from tests.support.seats import seats

LANE = "seats"
PAUSE = f"/api/lanes/{LANE}/pause"
ASSETS = Path(__file__).parents[2] / "coordinator" / "operations" / "assets"
Start = Callable[..., Awaitable["Door"]]


class Door:
    """A running operations gateway, as one client sees it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, app: web.Application) -> None:
        self.url, self.app = url, app
        self._session = session
        self.mark = ""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        asked = self._session.request(method, self.url + path, headers=headers, **content)
        async with asked as answer:
            is_json = "json" in answer.content_type
            return answer.status, (await answer.json(content_type=None) if is_json else await answer.text()), answer

    async def post(self, path: str, body: AsyncIterator[bytes], **headers: str) -> int:
        """The status of a request of which the body comes in parts."""
        async with self._session.post(self.url + path, data=body, headers=headers) as answer:
            return answer.status

    def stream(self) -> Any:
        """The events of a page, as an answer that does not end."""
        return self._session.get(self.url + "/api/events")

    async def open(self, path: str) -> aiohttp.ClientResponse:
        """An answer of which the body is still to come."""
        return await self._session.get(self.url + path)

    async def sign_in(self, key: str) -> int:
        status, _, _ = await self.ask("POST", "/api/session", {"key": key})
        if status == 204:
            self.mark = (await self.ask("GET", "/api/session"))[1]["mark"]
        return status

    async def pause(self, **headers: str) -> int:
        return (await self.ask("POST", PAUSE, {"reason": "r"}, **headers))[0]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Start]:
    url = f"sqlite:///{tmp_path}/seats.sqlite"
    monkeypatch.setenv(APP_SETTING, "tests.support.seats:seats")
    monkeypatch.setenv("SEATS_DATABASE_URL", url)
    monkeypatch.delenv("AMQP_URL", raising=False)
    await asyncio.to_thread(migrate, seats, DatabaseSettings(database_url=url))
    ends: list[Callable[[], Awaitable[None]]] = []
    watched: list[DocumentedAnswers] = []

    async def started(**settings: str) -> Door:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        app = operations_app([LANE], "127.0.0.1", load(GatewaySettings))
        watched.append(DocumentedAnswers(app, app[CONTRACT]))
        runner = create_runner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        ends.extend((runner.cleanup, session.close))
        return Door(f"http://127.0.0.1:{runner.addresses[0][1]}", session, app)

    yield started
    for end in reversed(ends):
        await end()
    undocumented = {found for each in watched for found in each.undocumented}
    assert undocumented == set(), "answers that the OpenAPI document does not have"


def key(tmp_path: Path, *scopes: str) -> str:
    return key_of("ada", {LANE: f"sqlite:///{tmp_path}/seats.sqlite"}, *scopes)


async def test_whoever_has_no_key_sees_nothing(start: Start, tmp_path: Path) -> None:
    door = await start(ACCESS_METHODS="keys")
    for path in ("/api/session", "/api/events", f"/api/lanes/{LANE}/letters", f"/api/lanes/{LANE}/letters/1"):
        assert (await door.ask("GET", path))[0] == 401, path
    for path in (f"/api/lanes/{LANE}/commands", f"/api/lanes/{LANE}/acts", "/api/commands/" + "0" * 36):
        assert (await door.ask("GET", path))[0] == 401, path
    for path in (PAUSE, f"/api/lanes/{LANE}/letters/replay", f"/api/lanes/{LANE}/cancel"):
        assert (await door.ask("POST", path, {"reason": "r"}))[0] == 401, path
    assert (await door.ask("GET", "/"))[0] == 200


async def test_a_read_that_says_how_recent_it_must_be_is_answered(start: Start) -> None:
    """It reads no rows of a lane. Anybody could fill the log with tracebacks."""
    door = await start()
    for path in ("/healthz", "/api/session"):
        status, body, _ = await door.ask("GET", path, **{"Read-After": "seats=1"})
        assert status == 200, body


async def test_a_session_is_made_of_a_key_with_the_scope_and_ends(start: Start, tmp_path: Path) -> None:
    staff, operator = key(tmp_path, "staff"), key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    assert await door.sign_in("wck_nonsense") == 401
    assert await door.sign_in(staff) == 401
    _, _, answer = await door.ask("POST", "/api/session", {"key": operator})
    # A cookie is of a host, whatever the port: that of another gateway there has another name.
    cookie = answer.cookies[f"{COOKIE}_{door.url.rpartition(':')[2]}"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert await door.sign_in(operator) == 204
    assert (await door.ask("GET", "/api/session"))[1]["lanes"] == [{"name": LANE, "operates": True}]
    assert (await door.ask("DELETE", "/api/session"))[0] == 204
    assert (await door.ask("GET", "/api/session"))[0] == 401


def revoke(text: str) -> None:
    with lane_api_keys(LANE) as keys:
        keys.revoke(text.split("_")[1], datetime.now(UTC), "tests")


async def test_a_revoked_key_ends_its_sessions(start: Start, tmp_path: Path) -> None:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.1")
    assert await door.sign_in(text) == 204
    await asyncio.to_thread(revoke, text)
    async with asyncio.timeout(10):
        while (await door.ask("GET", "/api/session"))[0] != 401:  # noqa: ASYNC110  # it is another's clock
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("ends", ["revoked", "signed out"])
async def test_who_may_act_is_asked_once_the_body_is_there(start: Start, tmp_path: Path, ends: str) -> None:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.1")
    assert await door.sign_in(text) == 204

    async def body() -> AsyncIterator[bytes]:
        yield b'{"rea'
        if ends == "revoked":
            await asyncio.to_thread(revoke, text)
        else:
            await door.ask("DELETE", "/api/session")
        async with asyncio.timeout(10):
            while (await door.ask("GET", "/api/session"))[0] != 401:  # noqa: ASYNC110  # it is another's clock
                await asyncio.sleep(0.05)
        yield b'son": "r"}'

    headers = {"Content-Type": "application/json", MARK_HEADER: door.mark}
    assert await door.post(PAUSE, body(), **headers) == 401
    with lane_admin(LANE) as admin:
        assert not [act for act in admin.acts(ActQuery(), None, 10) if act.act == "pause"]


async def followed(door: Door) -> aiohttp.ClientResponse:
    """The lanes as they are again and again, once the first event has come."""
    stream = await door.open("/api/events")
    await stream.content.readuntil(b"event: lanes\n")
    return stream


async def test_a_revoked_key_ends_what_its_sessions_follow(start: Start, tmp_path: Path) -> None:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.1", OPERATIONS_REFRESH_S="0.1")
    assert await door.sign_in(text) == 204
    stream = await followed(door)
    await asyncio.to_thread(revoke, text)
    async with asyncio.timeout(10):
        await stream.content.read()
    assert (await door.ask("GET", "/api/events"))[0] == 401


async def test_a_session_that_is_signed_out_follows_nothing_any_more(start: Start, tmp_path: Path) -> None:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys", OPERATIONS_REFRESH_S="0.1")
    assert await door.sign_in(text) == 204
    stream = await followed(door)
    assert (await door.ask("DELETE", "/api/session"))[0] == 204
    async with asyncio.timeout(10):
        await stream.content.read()


@pytest.mark.parametrize(
    ("act", "body"),
    [
        ("pause", '{"reason": "a", "reason": "b"}'),
        ("pause", '{"reason": "a", "r\\u0065ason": "b"}'),
        ("cancel", '{"reason": "a", "command_id": "%s", "command_id": "%s"}' % (UUID(int=1), UUID(int=2))),  # noqa: UP031
        ("letters/discard", '{"reason": "a", "letters": [1], "letters": [2]}'),
    ],
)
async def test_a_name_that_is_there_twice_is_refused(start: Start, act: str, body: str) -> None:
    """Or what a proxy, or a log, has seen would be another act."""
    door = await start()
    mark = (await door.ask("GET", "/api/session"))[1]["mark"]
    json = {MARK_HEADER: mark, "Content-Type": "application/json"}
    status, problem, _ = await door.ask("POST", f"/api/lanes/{LANE}/{act}", body.encode(), **json)
    assert (status, problem["code"]) == (400, "malformed_json")
    assert "twice" in problem["detail"]
    for asked in ("acts?before=", "commands?status=", "commands?until=", "letters?limit="):
        status, problem, _ = await door.ask("GET", f"/api/lanes/{LANE}/{asked}")
        assert (status, problem["code"]) == (400, "invalid_query"), asked
    status, problem, _ = await door.ask("GET", f"/api/lanes/{LANE}/commands?limit=1&limit=2")
    assert (status, problem["code"], problem["field"]) == (400, "invalid_query", "limit")


@pytest.mark.parametrize("query", ["what=a%00b", "what=a&subject=%00", "what=a&tenant=%00"])
async def test_nothing_is_looked_for_by_what_no_text_of_a_database_has(start: Start, query: str) -> None:
    door = await start()
    async with asyncio.timeout(10):
        await door.app[COLLECTOR].next(0)
    status, problem, _ = await door.ask("GET", f"/api/find?{query}")
    assert (status, problem["code"]) == (400, "invalid_query")


async def test_a_change_needs_the_mark_and_comes_from_no_other_site(start: Start, tmp_path: Path) -> None:
    operator = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    await door.sign_in(operator)
    mark = {MARK_HEADER: door.mark}
    assert await door.pause() == 403
    assert await door.pause(**{MARK_HEADER: "é"}) == 403
    assert await door.pause(**mark, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert await door.pause(**mark, Origin="https://elsewhere.example") == 403
    assert await door.pause(**mark, Origin="null") == 403
    assert await door.pause(**mark, Origin=door.url, **{"Sec-Fetch-Site": "same-origin"}) == 200
    assert (await door.ask("GET", f"/api/lanes/{LANE}/acts"))[1]["acts"][0]["author"] == "page:ada"


async def test_a_link_makes_nobody_else_of_who_is_signed_in(start: Start, tmp_path: Path) -> None:
    mine, another = key(tmp_path, "viewer"), key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    assert (await door.ask("POST", "/api/session", {"key": mine, "is_link": True}))[0] == 204
    assert await door.sign_in(mine) == 204
    operates = [{"name": LANE, "operates": False}]
    status, _, answer = await door.ask("POST", "/api/session", {"key": another, "is_link": True})
    assert (status, answer.cookies) == (204, {})
    assert (await door.ask("GET", "/api/session"))[1]["lanes"] == operates


@pytest.mark.parametrize(("scope", "is_shown"), [("viewer", False), ("operator", True)])
async def test_what_is_found_is_for_those_who_may_see_it(
    start: Start, tmp_path: Path, scope: str, *, is_shown: bool
) -> None:
    text = key(tmp_path, scope)
    with closing(sqlite3.connect(tmp_path / "seats.sqlite")) as database, database:
        database.execute("INSERT INTO seats (id, version, code, holder) VALUES (7, 1, '7A', 'ada')")
    door = await start(ACCESS_METHODS="keys")
    assert (await door.ask("GET", "/api/find?what=7"))[0] == 401
    await door.sign_in(text)
    async with asyncio.timeout(10):
        await door.app[COLLECTOR].next(0)
    for what in ("7", "seats/7", "seats.id=7", "seat 7", "/seats/7"):
        status, found, _ = await door.ask("GET", f"/api/find?what={quote(what)}")
        (row,) = found["rows"]
        assert (status, row["table"], row["key"], row["is_stuck"]) == (200, "seats", "7", False), what
        assert (row["row"] is not None and "ada" in row["row"]) == is_shown
    status, found, _ = await door.ask("GET", "/api/find?what=nobody%27s+key")
    assert (status, found["sagas"], found["commands"], found["rows"]) == (200, [], [], [])
    assert "nobody's key" in found["nothing"]
    for wrong in ("", f"?what={'x' * 301}", "?what=7&more=1"):
        assert (await door.ask("GET", f"/api/find{wrong}"))[0] == 400


async def test_a_viewer_may_not_act(start: Start, tmp_path: Path) -> None:
    viewer = key(tmp_path, "viewer")
    door = await start(ACCESS_METHODS="keys")
    await door.sign_in(viewer)
    mark = {MARK_HEADER: door.mark}
    assert await door.pause(**mark) == 403
    for path in ("letters/replay", "letters/discard"):
        asked = await door.ask("POST", f"/api/lanes/{LANE}/{path}", {"letters": [1], "reason": "r"}, **mark)
        assert asked[0] == 403
    assert (await door.ask("GET", f"/api/lanes/{LANE}/letters?contains=a"))[0] == 403
    assert (await door.ask("GET", f"/api/lanes/{LANE}/letters"))[0] == 200


async def test_many_wrong_keys_are_told_to_wait_and_keep_nobody_out(start: Start, tmp_path: Path) -> None:
    operator = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys")
    statuses = [await door.sign_in(f"wck_{number:016x}_{'a' * 43}") for number in range(25)]
    assert statuses[:20] == [401] * 20
    assert 429 in statuses[20:]
    assert await door.sign_in(operator) == 204


async def test_one_who_signed_in_has_a_share_of_the_pages(start: Start, tmp_path: Path) -> None:
    viewer, operator = key(tmp_path, "viewer"), key_of("eve", {LANE: f"sqlite:///{tmp_path}/seats.sqlite"}, "operator")
    door = await start(ACCESS_METHODS="keys", OPERATIONS_VIEWERS_MAX="10")
    await door.sign_in(viewer)
    streams = [await door.stream() for _ in range(3)]
    assert [each.status for each in streams] == [200, 200, 503]
    assert "pages of yours" in (await streams[-1].json(content_type=None))["detail"]
    await door.sign_in(operator)
    streams.append(await door.stream())
    assert streams[-1].status == 200
    for each in streams:
        each.close()


async def test_a_page_that_is_open_is_told_nothing_once_its_session_is_over(start: Start, tmp_path: Path) -> None:
    operator = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys", OPERATIONS_REFRESH_S="0.1")
    await door.sign_in(operator)
    async with asyncio.timeout(10), door.stream() as answer:
        await answer.content.readuntil(b"event: lanes\n")
        await door.ask("DELETE", "/api/session")
        # It ends: what is read is what was sent before.
        assert b"retry" not in await answer.content.read()


async def test_without_keys_only_this_machine_s_names_lead_to_it(start: Start) -> None:
    """Or a page of another site could ask it, by a name of its own that leads to loopback."""
    door = await start()
    mark = (await door.ask("GET", "/api/session"))[1]["mark"]
    for path in ("/", "/api/session", f"/api/lanes/{LANE}/letters", "/api/events"):
        assert (await door.ask("GET", path, Host="elsewhere.example:8080"))[0] == 403, path
    assert await door.pause(**{MARK_HEADER: mark}, Host="elsewhere.example") == 403
    assert await door.pause(**{MARK_HEADER: mark}) == 200


def test_others_are_not_let_in_without_a_word() -> None:
    with pytest.raises(ConfigurationError, match="ACCESS_METHODS is not set"):
        operations_app([LANE], "0.0.0.0", GatewaySettings())
    assert AccessSettings().methods == ""


async def test_no_page_runs_what_is_not_a_file_of_ours(start: Start) -> None:
    door = await start()
    for path in ("/", "/assets/app.js", "/api/session", "/nowhere"):
        _, _, answer = await door.ask("GET", path)
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    page = (ASSETS / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=\"/assets/)|\bon\w+=|\bstyle=|<style", page) == []
    for asset in ASSETS.iterdir():
        text = asset.read_text().replace("there is no innerHTML anywhere", "")
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text) == [], asset
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), asset


@pytest.mark.parametrize("name", ["..%2fmain.py", "%2e%2e/main.py", "main.py", "__init__.py", "app.js%00", "x.css"])
async def test_only_assets_are_served(start: Start, name: str) -> None:
    door = await start()
    assert (await door.ask("GET", f"/assets/{name}"))[0] == 404


async def test_whoever_asks_for_the_head_of_the_events_gets_no_event(start: Start) -> None:
    """What came behind it would be the beginning of the next answer, which may be another client's behind a proxy."""
    door = await start(OPERATIONS_REFRESH_S="0.1")
    address = urlsplit(door.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    for asked in ("HEAD /api/events", "GET /healthz"):
        writer.write(f"{asked} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(2)]
    writer.close()
    assert [head.partition(b"\r\n")[0] for head in heads] == [b"HTTP/1.1 200 OK"] * 2
    assert b"text/event-stream" in heads[0]
    assert door.app[COLLECTOR].watching == 0


async def test_so_many_watch_and_no_more_and_all_of_them_cost_one_look(start: Start) -> None:
    door = await start(OPERATIONS_VIEWERS_MAX="3")
    collector = door.app[COLLECTOR]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        streams = [await session.get(f"{door.url}/api/events") for _ in range(3)]
        assert [each.status for each in streams] == [200] * 3
        status, problem, _ = await door.ask("GET", "/api/events")
        assert (status, problem["code"]) == (503, "overloaded")
        assert "OPERATIONS_VIEWERS_MAX" in problem["detail"]
        for each in streams:
            await each.content.readuntil(b"event: lanes\n")
        assert collector.watching == 3
        streams[0].close()
        async with asyncio.timeout(10):
            while collector.watching > 2:  # noqa: ASYNC110  # the other side notices
                await asyncio.sleep(0.02)
        again = await session.get(f"{door.url}/api/events")
        assert again.status == 200
        for each in (*streams, again):
            each.close()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PAUSE, {"reason": ""}, 422),
        (PAUSE, {"reason": "x" * 501}, 422),
        (PAUSE, {"reason": "a\nb"}, 422),
        (PAUSE, {}, 422),
        (PAUSE, {"reason": "r", "more": 1}, 422),
        (PAUSE, [], 422),
        (f"/api/lanes/{LANE}/cancel", {"reason": "r", "command_id": "no"}, 422),
        (f"/api/lanes/{LANE}/letters/discard", {"reason": "r", "letters": []}, 422),
        (f"/api/lanes/{LANE}/letters/discard", {"reason": "r", "letters": list(range(1, 102))}, 422),
        (f"/api/lanes/{LANE}/letters/replay", {"reason": "r", "letters": [1, 2], "args": {}}, 422),
        (f"/api/lanes/{LANE}/letters/replay", {"reason": "r", "letters": [1], "args": [1]}, 422),
        (f"/api/lanes/{LANE}/letters/replay", {"reason": "r", "letters": [1], "args": None}, 422),
        ("/api/lanes/nowhere/pause", {"reason": "r"}, 404),
    ],
)
async def test_what_is_wrong_with_an_act_is_said(start: Start, path: str, body: Any, status: int) -> None:
    door = await start()
    mark = (await door.ask("GET", "/api/session"))[1]["mark"]
    found, problem, _ = await door.ask("POST", path, body, **{MARK_HEADER: mark})
    assert found == status, problem
    assert problem["detail"]


async def test_a_lane_that_runs_nowhere_says_so(start: Start) -> None:
    """Its database answers, so letters and commands are still shown."""
    door = await start()
    mark = (await door.ask("GET", "/api/session"))[1]["mark"]
    body = {"reason": "r", "letters": [1]}
    status, problem, _ = await door.ask("POST", f"/api/lanes/{LANE}/letters/discard", body, **{MARK_HEADER: mark})
    assert status == 503, problem
    assert "no process" in problem["detail"] or "listens" in problem["detail"], problem
    async with asyncio.timeout(10):
        await door.app[COLLECTOR].next(0)
    view = door.app[COLLECTOR].views[LANE]
    assert view.state == "unknown"
    assert view.why
