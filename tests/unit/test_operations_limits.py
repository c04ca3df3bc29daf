"""The limits of the operations gateway: so much is taken, and no more."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from msgspec.structs import replace

from coordinator.http.problems import RequestRefused
from coordinator.operations.lane_access import LaneRights, rights_of_everybody
from coordinator.operations.lane_routes import LettersAct
from coordinator.operations.lane_threads import READS_OF_ONE_MAX, SEARCHES_OF_ONE_MAX, WAITING_MAX, LaneThreads
from coordinator.operations.letters import STEP_MAX
from coordinator.operations.main import operations_app
from coordinator.operations.sessions import (
    CREDENTIAL_CHARACTERS_MAX,
    SESSIONS_MAX,
    SESSIONS_OF_ONE_MAX,
    Sessions,
)
from coordinator.operations.settled_commands import SCANNED_MAX, page_of_commands
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import ConfigurationError, Overloaded
from coordinator.stores.audit import AuditedCommand, ChangeQuery
from tests.unit.test_operations_doors import Start, start

__all__ = ("start",)

LANES = frozenset({"seats"})


class EverybodyMay:
    """In place of `LaneAccess`."""

    async def rights_of(self, credential: str) -> LaneRights:
        return rights_of_everybody(credential, LANES)


class Log:
    """In place of `LaneAdmin`: a log of so many commands, of which none is `rare`."""

    def __init__(self, entries: int) -> None:
        self.entries, self.read = entries, 0

    def audited(self, query: ChangeQuery, before: int, limit: int) -> list[AuditedCommand]:
        first = min(before - 1, self.entries)
        if query.type is not None:
            self.read += first - query.after
            return []
        return [_entry(sequence) for sequence in range(first, max(query.after, first - limit), -1)]

    def sequence(self) -> int:
        return self.entries

    def audit_bounds(self, _: str | None) -> Any:
        return type("Bounds", (), {"first": 1})


def _entry(sequence: int) -> AuditedCommand:
    return AuditedCommand(
        sequence=sequence,
        command_id="01a20505-b7c5-73ed-8a97-6b8d8dfcb689",
        type="seats.add",
        status="applied",
        settled_at=datetime.fromtimestamp(sequence, UTC),
        actor=None,
        changes=[],
    )


def test_one_question_looks_through_so_many_entries_and_says_where_to_go_on() -> None:
    log: Any = Log(SCANNED_MAX + 5)
    page = page_of_commands(log, None, 50, "seats.rare", None, None)
    assert (page.commands, page.next, log.read) == ([], 6, SCANNED_MAX)
    assert page_of_commands(log, page.next, 50, "seats.rare", None, None).next is None


def test_commands_come_in_pages_with_every_one_once() -> None:
    log: Any = Log(7)
    first = page_of_commands(log, None, 4, None, None, None)
    second = page_of_commands(log, first.next, 4, None, None, None)
    assert [each.sequence for page in (first, second) for each in page.commands] == [7, 6, 5, 4, 3, 2, 1]
    assert second.next is None


@pytest.mark.parametrize("until", range(1, 10))
def test_commands_before_a_time_are_found_by_halving(until: int) -> None:
    log: Any = Log(7)
    page = page_of_commands(log, None, 50, None, None, datetime.fromtimestamp(until, UTC))
    assert [each.sequence for each in page.commands] == list(range(min(until - 1, 7), 0, -1))


def test_one_step_replays_so_many_letters() -> None:
    def takes(count: int) -> bool:
        try:
            msgspec.convert({"reason": "r", "letters": list(range(1, count + 1))}, LettersAct)
        except msgspec.ValidationError:
            return False
        return True

    assert [takes(0), takes(1), takes(STEP_MAX), takes(STEP_MAX + 1)] == [False, True, True, False]


@pytest.fixture
def goes_on() -> Iterator[threading.Event]:
    """What a hanging lane waits for; at the end of a test it comes in any case."""
    event = threading.Event()
    yield event
    event.set()


def looks(who: str) -> LaneRights:
    return replace(operates(who), operated=frozenset())


def operates(who: str) -> LaneRights:
    return rights_of_everybody(who, frozenset({"hangs"}))


async def test_a_lane_that_hangs_keeps_so_many_waiting_and_no_others(goes_on: threading.Event) -> None:
    threads = LaneThreads(["hangs", "works"])
    waiting = [asyncio.ensure_future(threads.run("hangs", goes_on.wait, 30)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=f"{WAITING_MAX} requests wait for lane hangs"):
        await threads.run("hangs", goes_on.wait, 0.5)
    assert await threads.run("works", lambda: 7) == 7
    goes_on.set()
    assert await asyncio.gather(*waiting) == [True] * WAITING_MAX
    assert await threads.run("hangs", lambda: 8) == 8


async def test_whoever_reads_much_leaves_room_for_others_and_for_acts(goes_on: threading.Event) -> None:
    threads = LaneThreads(["hangs"])
    with patch.object(threads.admins, "opened", nullcontext):
        reads = [
            threads.read("hangs", looks(f"ada{each % 2}"), lambda _: goes_on.wait(), 30) for each in range(WAITING_MAX)
        ]
        waiting = [asyncio.ensure_future(each) for each in reads]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=f"{READS_OF_ONE_MAX} requests of ada1 wait for lane hangs"):
            await threads.read("hangs", looks("ada1"), lambda _: True)
        with pytest.raises(Overloaded, match=f"{WAITING_MAX} requests wait for lane hangs"):
            await threads.read("hangs", looks("eve"), lambda _: True)
        assert await threads.read("hangs", operates("olga"), lambda _: 6) == 6
        assert await threads.run("hangs", lambda: 7) == 7
        goes_on.set()
        assert await asyncio.gather(*waiting) == [True] * WAITING_MAX
        assert await threads.read("hangs", looks("ada1"), lambda _: 8) == 8


async def test_whoever_may_only_look_takes_the_search_from_nobody(goes_on: threading.Event) -> None:
    threads = LaneThreads(["hangs"])

    searches = [threads.search(looks("vera"), goes_on.wait, 30) for _ in range(SEARCHES_OF_ONE_MAX)]
    waiting = [asyncio.ensure_future(each) for each in searches]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=f"{SEARCHES_OF_ONE_MAX} requests of vera wait for the search"):
        await threads.search(looks("vera"), lambda: 1, 30)
    assert await threads.search(looks("another viewer"), lambda: 2, 30) == 2
    many = [threads.search(looks(f"viewer{each}"), goes_on.wait, 30) for each in range(WAITING_MAX - len(waiting))]
    waiting += [asyncio.ensure_future(each) for each in many]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=f"{WAITING_MAX} requests wait for the search"):
        await threads.search(looks("one more"), lambda: 3, 30)
    assert await threads.search(operates("olga"), lambda: 4, 30) == 4
    assert await threads.run("hangs", lambda: 5) == 5
    goes_on.set()
    assert await asyncio.gather(*waiting) == [True] * WAITING_MAX


async def test_who_waits_too_long_is_told_so(goes_on: threading.Event) -> None:
    threads = LaneThreads(["hangs"])
    with pytest.raises(Overloaded, match="has not answered within"):
        await threads.run("hangs", goes_on.wait, 0.01)


def one_cookie(response: web.Response) -> str:
    (cookie,) = response.cookies.values()
    return f"{cookie.key}={cookie.value}"


async def test_so_many_sessions_are_kept_and_the_oldest_makes_room() -> None:
    access: Any = EverybodyMay()
    sessions = Sessions(access, ("seats",), 60)
    tokens = []
    for number in range(SESSIONS_MAX + 1):
        response = await sessions.sign_in(make_mocked_request("POST", "/api/session"), f"ada{number}")
        tokens.append(one_cookie(response))

    async def counts(token: str) -> bool:
        request = make_mocked_request("GET", "/", headers={"Cookie": token})
        try:
            await sessions.rights_of(request)
        except Exception:  # noqa: BLE001
            return False
        return True

    assert [await counts(token) for token in (tokens[0], tokens[1], tokens[-1])] == [False, True, True]


async def test_one_who_signs_in_often_ends_his_own_sessions() -> None:
    access: Any = EverybodyMay()
    sessions = Sessions(access, ("seats",), 60)

    async def begun(author: str) -> str:
        response = await sessions.sign_in(make_mocked_request("POST", "/api/session"), author)
        return one_cookie(response)

    async def counts(token: str) -> bool:
        request = make_mocked_request("GET", "/", headers={"Cookie": token})
        return await sessions.rights_of(request) is not None

    ada = await begun("ada")
    eves = [await begun("eve") for _ in range(SESSIONS_OF_ONE_MAX + 1)]
    assert [await counts(each) for each in (ada, eves[1], eves[-1])] == [True] * 3
    with pytest.raises(RequestRefused, match="no session"):
        await counts(eves[0])


async def test_a_page_that_is_open_outlives_the_sessions_that_nobody_uses() -> None:
    """A script may sign in with the same key again and again."""
    access: Any = EverybodyMay()
    sessions = Sessions(access, ("seats",), 60)

    async def begun() -> str:
        return one_cookie(await sessions.sign_in(make_mocked_request("POST", "/api/session"), "ada"))

    page = make_mocked_request("GET", "/", headers={"Cookie": await begun()})
    for _ in range(2 * SESSIONS_OF_ONE_MAX):
        await begun()
        assert (await sessions.rights_of(page))[0].author == "ada"


async def test_a_session_ends_in_time() -> None:
    access: Any = EverybodyMay()
    sessions = Sessions(access, ("seats",), 60)
    response = await sessions.sign_in(make_mocked_request("POST", "/api/session"), "ada")
    request = make_mocked_request("GET", "/", headers={"Cookie": one_cookie(response)})
    assert (await sessions.rights_of(request))[0].author == "ada"
    with (
        patch("coordinator.operations.sessions.time.monotonic", return_value=1e12),
        pytest.raises(RequestRefused, match="over"),
    ):
        await sessions.rights_of(request)


async def test_a_credential_has_so_many_characters(start: Start) -> None:
    door = await start(ACCESS_METHODS="keys")
    assert await door.sign_in("k" * CREDENTIAL_CHARACTERS_MAX) == 401
    assert await door.sign_in("k" * (CREDENTIAL_CHARACTERS_MAX + 1)) == 422


@pytest.mark.parametrize(
    "url", ["10.0.0.5:9101", "http://10.0.0.5", "ftp://a:1", "http://a:b@c:1", "http://a:1/x", "http://[:1"]
)
def test_what_is_no_address_of_a_coordinator_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="is no address of a coordinator"):
        operations_app(["seats"], "127.0.0.1", GatewaySettings(), [url])
    monkeypatch.setenv("OPERATIONS_COORDINATORS", url)
    with pytest.raises(ConfigurationError, match="OPERATIONS_COORDINATORS"):
        operations_app(["seats"], "127.0.0.1", GatewaySettings())


@pytest.mark.parametrize("urls", ["http://a:hun,ter2@c:1", "http://c:1 http://a:hun,ter2,x@c:1"])
def test_no_part_of_a_password_is_shown_for_an_address(urls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comma in it divides the list."""
    monkeypatch.setenv("OPERATIONS_COORDINATORS", urls)
    with pytest.raises(ConfigurationError, match="OPERATIONS_COORDINATORS: one of them is no address") as refused:
        operations_app(["seats"], "127.0.0.1", GatewaySettings())
    assert "hun" not in str(refused.value)
    assert "ter2" not in str(refused.value)
