"""The operations gateway where nobody is asked who he is, its cookie, and the names under which acts are kept."""

import asyncio
from contextlib import nullcontext
from http.cookies import Morsel
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from coordinator.access.authenticator import NotAuthentic
from coordinator.access.settings import AccessSettings
from coordinator.http.problems import RequestRefused
from coordinator.operate.output import BY_CHARACTERS_MAX, as_user
from coordinator.operations.lane_access import LaneAccess, author_of, rights_of_everybody
from coordinator.operations.lane_routes import COLLECTOR
from coordinator.operations.main import operations_app
from coordinator.operations.sessions import COOKIE, HOST_PREFIX, MARK_HEADER, Sessions
from coordinator.operations.settings import OperationsSettings
from coordinator.runtime.host_names import LOOPBACK_NAMES
from coordinator.runtime.settings import GatewaySettings, load
from coordinator.service.errors import ConfigurationError
from coordinator.service.principal import Principal
from tests.unit.test_operations_doors import LANE, Door, Start, key, start

__all__ = ("start",)

ELSEWHERE = "evil.example:8080"


async def pauses(door: Door, host: str) -> int:
    mark = (await door.ask("GET", "/api/session"))[1]["mark"]
    return await door.pause(**{MARK_HEADER: mark}, Host=host, Origin=f"http://{host}")


@pytest.mark.parametrize("methods", ["", "none"])
async def test_a_name_of_another_site_leads_nobody_in(start: Start, methods: str) -> None:
    """`none` opens gateways, whose rules refuse what is not for everybody; here it makes everybody an operator."""
    door = await start(ACCESS_METHODS=methods)
    assert (await door.ask("GET", "/api/session", Host=ELSEWHERE))[0] == 403
    assert await pauses(door, ELSEWHERE) == 403
    assert await pauses(door, door.url.removeprefix("http://")) == 200


@pytest.mark.parametrize(
    "said",
    [
        {"X-Forwarded-For": "10.0.0.9"},
        {"Forwarded": "for=10.0.0.9"},
        {"Via": "1.1 p"},
        {"CF-Connecting-IP": "10.0.0.9"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_who_comes_through_a_proxy_or_from_another_site_is_nobody_of_this_machine(
    start: Start, said: dict[str, str]
) -> None:
    door = await start(ACCESS_METHODS="")
    for path in ("/", "/api/session", f"/api/lanes/{LANE}/letters", "/api/find?what=x"):
        assert (await door.ask("GET", path, **said))[0] == 403, path


@pytest.mark.parametrize(
    ("target", "is_served"),
    [("http://localhost:8080/api/session", True), ("http://evil.example/api/session", False), ("evil.example", False)],
)
def test_the_address_in_a_request_line_counts_more_than_the_host(target: str, *, is_served: bool) -> None:
    method = "GET" if "://" in target else "CONNECT"
    request = make_mocked_request(method, target, headers={"Host": "localhost"})
    with nullcontext() if is_served else pytest.raises(RequestRefused):
        Sessions(None, (LANE,), 60).check_host(request)


async def test_a_port_that_is_opened_to_all_is_asked_through_proxies(start: Start) -> None:
    door = await start(ACCESS_METHODS="none", OPERATIONS_OPEN_AS="localhost")
    for name, expected in (("X-Forwarded-For", 200), ("Via", 200), ("Sec-Fetch-Site", 403)):
        said = {name: "cross-site"}
        assert (await door.ask("GET", "/api/session", Host="localhost", **said))[0] == expected, name


def test_none_alone_makes_nobody_beyond_this_machine_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCESS_METHODS", "none")
    monkeypatch.delenv("OPERATIONS_OPEN_AS", raising=False)
    for host in ("0.0.0.0", "::", "10.0.0.5", "operations"):
        with pytest.raises(ConfigurationError, match="OPERATIONS_OPEN_AS"):
            operations_app([LANE], host, GatewaySettings())


async def test_who_may_is_said_by_names_of_hosts(start: Start) -> None:
    door = await start(ACCESS_METHODS="none", OPERATIONS_OPEN_AS="Ops.internal, [fd00::5]")
    assert load(OperationsSettings).open_as == "ops.internal fd00::5"
    for host in ("ops.internal:8080", "OPS.INTERNAL", "[fd00::5]:8080", "localhost"):
        assert (await door.ask("GET", "/api/session", Host=host))[0] == 200, host
    for host in (ELSEWHERE, "", "[", "internal", "a.ops.internal"):
        assert (await door.ask("GET", "/api/session", Host=host))[0] == 403, host
    assert "localhost" in LOOPBACK_NAMES


@pytest.mark.parametrize("text", ["http://ops", "ops:8080", "a/b", "u@ops", "[", "ops]", "?", "ops#"])
def test_what_is_no_name_of_a_host_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATIONS_OPEN_AS", text)
    with pytest.raises(ConfigurationError, match="OPERATIONS_OPEN_AS"):
        load(OperationsSettings)


async def cookie_of(door: Door, text: str) -> Morsel[str]:
    _, _, answer = await door.ask("POST", "/api/session", {"key": text})
    (cookie,) = answer.cookies.values()
    assert isinstance(cookie, Morsel)
    return cookie


async def test_behind_a_proxy_with_tls_the_cookie_is_for_https(start: Start, tmp_path: Path) -> None:
    text = key(tmp_path, "operator")
    door = await start(ACCESS_METHODS="keys", OPERATIONS_BEHIND_TLS="true")
    cookie = await cookie_of(door, text)
    assert cookie.key == f"{HOST_PREFIX}{COOKIE}_{door.url.rpartition(':')[2]}"
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Strict")
    assert (cookie["path"], cookie["domain"]) == ("/", "")
    said = {"Cookie": f"{cookie.key}={cookie.value}"}
    assert (await door.ask("GET", "/api/session", **said))[0] == 200
    # A cookie that came by HTTP, from another server of this host, counts for nothing.
    weak = {"Cookie": f"{cookie.key.removeprefix(HOST_PREFIX)}={cookie.value}"}
    assert (await door.ask("GET", "/api/session", **weak))[0] == 401
    _, _, answer = await door.ask("DELETE", "/api/session", **said)
    (ended,) = answer.cookies.values()
    assert (ended.key, ended.value, ended["secure"], ended["path"]) == (cookie.key, "", True, "/")
    assert (await door.ask("GET", "/api/session", **said))[0] == 401


class OfOneLane:
    """In place of a key ring: the key `k` is whatever its database says."""

    knows_anybody = True

    def __init__(self, subject: str | None, scope: str, tenant: str | None = None) -> None:
        self._principal = None if subject is None else _principal(subject, scope, tenant)

    async def principal_of(self, _credential: str, /) -> Principal:
        if self._principal is None:
            raise NotAuthentic("no such key")
        return self._principal


def _principal(subject: str, scope: str, tenant: str | None) -> Principal:
    return Principal(subject=subject, tenant=tenant, scopes=frozenset({scope}))


def access_of(**rings: OfOneLane) -> LaneAccess:
    access = LaneAccess(AccessSettings(methods="tokens", token_issuer="i", token_audience="a", token_keys="k"), [])
    every: dict[str, Any] = dict(rings)
    access._lanes, access._rings, access._tokens = tuple(rings), every, None
    return access


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.access.tokens.Tokens", lambda _: None)


@pytest.mark.usefixtures("keys")
async def test_each_lane_says_itself_who_acts_on_it() -> None:
    """Whoever may write into one lane's database cannot act under another's name on the others."""
    rights = await access_of(orders=OfOneLane("boss", "viewer"), seats=OfOneLane("eve", "operator")).rights_of("k")
    assert rights.authors == {"orders": "page:boss", "seats": "page:eve"}
    assert (rights.author, rights.operated) == ("boss, eve", frozenset({"seats"}))
    boss = await access_of(orders=OfOneLane("boss", "viewer"), seats=OfOneLane(None, "")).rights_of("k")
    assert boss.share != rights.share


@pytest.mark.usefixtures("keys")
async def test_two_of_one_name_and_two_tenants_are_two() -> None:
    one, other = [await access_of(seats=OfOneLane("ada", "operator", each)).rights_of("k") for each in ("t1", "t2")]
    assert (one.authors["seats"], other.authors["seats"]) == ("page:ada (t1)", "page:ada (t2)")
    assert one.share != other.share


def test_a_long_name_is_cut_and_still_its_own() -> None:
    long = [_principal("a" * 200, "viewer", tenant) for tenant in (None, "b" * 99 + "1", "b" * 99 + "2")]
    names = [author_of(each) for each in long]
    # One whose name is that of another as it was cut.
    names += [
        author_of(_principal(name.removeprefix(mark), "viewer", None)) for name in names for mark in ("", "page:")
    ]
    assert len(set(names)) == 9
    assert max(map(len, names)) <= BY_CHARACTERS_MAX


def test_no_two_authors_have_one_name() -> None:
    """Whoever chooses his subject passes neither for a tenant's operator nor for somebody who ran a command."""
    subjects = [
        as_user(),
        "eve",
        "eve (t)",
        '"eve (t)"',
        '"eve" (t)',
        "eve (t) (t)",
        "page:eve",
        f"page of {as_user()}",
    ]
    names = [
        author_of(_principal(subject, "operator", tenant)) for subject in subjects for tenant in (None, "t", "t) (t")
    ]
    names += [as_user(), *rights_of_everybody(as_user(), frozenset({LANE})).authors.values()]
    assert len(set(names)) == len(names) == 3 * len(subjects) + 2
    assert names[:2] == [f"page:{as_user()}", f"page:{as_user()} (t)"]


async def test_an_act_by_a_page_is_kept_as_one(start: Start, tmp_path: Path) -> None:
    text = key(tmp_path, "operator")
    authors = []
    for methods in ("", "keys"):
        door = await start(ACCESS_METHODS=methods)
        if methods:
            await door.sign_in(text)
        _, viewer, _ = await door.ask("GET", "/api/session")
        assert await door.pause(**{MARK_HEADER: viewer["mark"]}) == 200
        authors.append((viewer["author"], (await door.ask("GET", f"/api/lanes/{LANE}/acts"))[1]["acts"][0]["author"]))
    assert authors == [(as_user(), f"page of {as_user()}"), ("ada", "page:ada")]


@pytest.mark.parametrize("scope", ["viewer", "operator"])
async def test_whoever_may_only_look_tries_nobody_s_idempotency_key(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """Nobody else can tell from a command's id which key it stands for."""
    text, asked = key(tmp_path, scope), list[str]()
    door = await start(ACCESS_METHODS="keys")
    await door.sign_in(text)
    async with asyncio.timeout(10):
        await door.app[COLLECTOR].next(0)

    def noted(_keys: object, _lane: str, what: str, *_: object) -> list[str]:
        asked.append(what)
        return []

    monkeypatch.setattr("coordinator.operate.finding.ids_of_key", noted)
    status, found, _ = await door.ask("GET", "/api/find?what=order-1&subject=ada")
    assert (status, asked) == (200, ["order-1"] if scope == "operator" else [])
    assert ("that you operate" in found["nothing"]) is (scope == "viewer")
