"""The gateway that is made from a service: its commands, its public rows, and what an author adds."""

from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct
from structlog.testing import capture_logs
from yarl import URL

from coordinator.http import Gateway, NoQuery, gateway_of, json_response, read_query
from coordinator.http.service_gateway import REPOSITORIES
from coordinator.registry import App, Registry
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.allowing import any_principal
from coordinator.service.commands import Command
from coordinator.service.continuation import Continuation
from coordinator.service.errors import CommandPending, ConfigurationError, DatabaseUnavailable, UnreadableRow
from coordinator.service.ids import command_id_for
from coordinator.service.paging import Page, page_of
from coordinator.service.rows import Row, VersionedRow, key_of
from coordinator.service.rules import check_decided
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.row_checks import InvalidRow
from tests.support.seats import Seat, seats
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import RESULTS, applied, refused

CINEMA = Service("cinema")


@CINEMA.row(is_public=True)
class Film(Row, table="films", key="title"):
    title: str
    minutes: int


@CINEMA.row(is_public=True)
class Hall(VersionedRow, table="commands", key="id"):
    id: int
    name: str = "the small one"


@CINEMA.row
class Taking(Row, table="takings", key="id"):
    id: int
    amount: int


class Show(Command, type="cinema.show"):
    title: Annotated[str, Meta(max_length=50)]
    minutes: int = 90


class CloseHalls(Command, type="cinema.halls.close"):
    reason: str | None = None


class Count(Command, type="cinema.count"):
    pass


class Counted(Continuation, type="cinema.counted"):
    """What became of a count."""


class Price(Struct, frozen=True):
    amount: Decimal
    weight: float = 0.5


class SetPrices(Command, type="cinema.set_prices"):
    prices: list[Price]
    note: Any = None


class Shown(Struct, frozen=True):
    shows: int


@CINEMA.handles(Show, target=lambda command: Film.at(command.title))
def show(_work: UnitOfWork, command: Show) -> Film:
    return Film(title=command.title, minutes=command.minutes)


@CINEMA.handles(CloseHalls)
def close_halls(_work: UnitOfWork, _command: CloseHalls) -> None:
    return None


@CINEMA.handles(SetPrices)
def set_prices(_work: UnitOfWork, _command: SetPrices) -> None:
    return None


@CINEMA.handles(Count, is_internal=True)
def count(_work: UnitOfWork, _command: Count) -> Shown:
    return Shown(1)


@CINEMA.handles(Counted)
def counted(_work: UnitOfWork, _command: Counted) -> None:
    """Its author forgot `is_internal`: what became of a count is nothing that a client says."""


FILM = Film(title="Metropolis", minutes=153)
HALL = Hall(id=-3, version=4)


class Shelf:
    """Implements `Repository`, in memory, with keys that may have no NUL."""

    def __init__(self, *rows: Row) -> None:
        self.rows = {key_of(row): row for row in rows}
        self.error: Exception | None = None
        self.asked: list[Any] = []

    async def get(self, key: int | str) -> Any:
        self.asked.append(key)
        if self.error is not None:
            raise self.error
        return self.rows.get(key)

    async def page(self, after: int | str | None, limit: int, where: Any) -> Page[Any]:
        assert where == {}
        if isinstance(after, str) and "\0" in after:
            raise InvalidRow("text with a NUL character")
        if self.error is not None:
            raise self.error
        rows: dict[Any, Row] = self.rows
        return page_of([row for key, row in sorted(rows.items()) if after is None or key > after], limit)


class MadeGateway:
    """A gateway that serves what was made from CINEMA."""

    def __init__(self, running: RunningGateway, films: Shelf, halls: Shelf) -> None:
        self.running = running
        self.call = running.call
        self.writes = running.writes
        self.films = films
        self.halls = halls

    async def exactly(self, path: str) -> tuple[int, Any]:
        """The status and the answer to a GET of a path that the client sends as it is."""
        url = URL(f"http://127.0.0.1:{self.running.port}{path}", encoded=True)
        async with self.running.session.get(url) as response:
            return response.status, await response.json(content_type=None)

    @property
    def arguments(self) -> Any:
        return msgspec.json.decode(self.writes.last.arguments)


@pytest.fixture
async def cinema(start: Start, monkeypatch: pytest.MonkeyPatch) -> MadeGateway:
    for kind, result in (("cinema.show", FILM), ("cinema.halls.close", None), ("cinema.set_prices", None)):
        monkeypatch.setitem(RESULTS, kind, result)
    return await begin(start, gateway_of(CINEMA))


async def begin(start: Start, gateway: Gateway, settings: GatewaySettings | None = None) -> MadeGateway:
    running = await start(gateway, settings)
    films, halls = Shelf(FILM), Shelf(HALL)
    repositories: Any = running.app[REPOSITORIES]
    repositories |= {Film: films, Hall: halls}
    return MadeGateway(running, films, halls)


def test_every_command_and_every_public_row_has_its_routes_and_nothing_else_has() -> None:
    made = gateway_of(CINEMA)
    assert [(route.method, route.path) for route in made.routes if isinstance(route, web.RouteDef)] == [
        ("POST", "/cinema/commands/show"),
        ("POST", "/cinema/commands/halls.close"),
        ("POST", "/cinema/commands/set_prices"),
        ("GET", "/cinema/films"),
        ("GET", "/cinema/films/{key:[^/]*}"),
        ("GET", "/cinema/commands"),
        ("GET", "/cinema/commands/{key:[^/]*}"),
    ]
    assert made.commands == (Show, CloseHalls, SetPrices)
    assert made.reads == (Film, Hall)


def test_rows_are_public_where_their_author_says_so() -> None:
    assert gateway_of(seats).reads == (Seat,)
    private = seats.replace(public_models=())
    assert gateway_of(private).reads == ()
    assert all("/commands/" in route.path for route in gateway_of(private).routes if isinstance(route, web.RouteDef))


async def test_a_command_is_applied_at_its_path(cinema: MadeGateway) -> None:
    response, body = await cinema.call("POST", "/cinema/commands/show", json={"title": "Metropolis"})
    assert (response.status, body) == (200, {"title": "Metropolis", "minutes": 153})
    lane, message, wait_s = cinema.writes.issued[-1]
    assert (lane, message.type, wait_s) == ("cinema", "cinema.show", 10.0)
    assert cinema.arguments == {"title": "Metropolis", "minutes": 90}
    assert response.headers["Command-Id"] == message.command_id
    assert response.headers["Location"] == f"/commands/{message.command_id}"
    assert response.headers["Content-Location"] == "/cinema/films/Metropolis"
    assert response.headers["Command-Sequence"] == "41"
    assert "ETag" not in response.headers, "a film has no version"


async def test_the_path_of_a_result_is_one_that_shows_it(cinema: MadeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Film(title="a/b?\r\né%", minutes=1)
    monkeypatch.setitem(RESULTS, "cinema.show", odd)
    cinema.films.rows = {odd.title: odd}
    response, body = await cinema.call("POST", "/cinema/commands/show", json={"title": "M"})
    assert await cinema.exactly(response.headers["Content-Location"]) == (200, body)


async def test_a_versioned_result_has_its_tag(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULTS, "seats.book", Seat(id=7, code="A7", holder="ada", version=2))
    running = await start(gateway_of(seats))
    response, body = await running.call(
        "POST", "/seats/commands/book", json={"id": 7, "holder": "ada"}, headers={"If-Match": '"1"'}
    )
    assert (response.status, body["holder"], response.headers["ETag"]) == (200, "ada", '"2"')
    assert response.headers["Content-Location"] == "/seats/seats/7"
    assert running.writes.last.expected_version == 1


@pytest.mark.parametrize("body", [None, b"{}", b'{"reason": "fire"}'])
async def test_a_command_without_a_result_leaves_204_and_one_that_needs_nothing_takes_no_body(
    cinema: MadeGateway, body: bytes | None
) -> None:
    headers = {} if body is None else {"Content-Type": "application/json"}
    response, shown = await cinema.call("POST", "/cinema/commands/halls.close", data=body, headers=headers)
    assert (response.status, shown) == (204, b"")
    assert response.headers["Location"] == f"/commands/{cinema.writes.last.command_id}"
    assert cinema.arguments == {"reason": None} | msgspec.json.decode(body or b"{}")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (None, 400, "missing_body", "body"),
        (b"{}", 422, "invalid_arguments", "title"),
        (b'{"title": "M", "id": 1}', 422, "invalid_arguments", "id"),
        (b'{"title": 1}', 422, "invalid_arguments", "title"),
        (b'{"title": "M", "title": "N"}', 400, "malformed_json", "body"),
        (b"[]", 422, "invalid_arguments", None),
        (b"\xff", 400, "malformed_json", "body"),
    ],
)
async def test_arguments_that_are_wrong_issue_nothing(
    cinema: MadeGateway, body: bytes | None, status: int, code: str, field: str | None
) -> None:
    headers = {"Content-Type": "application/json"}
    response, problem = await cinema.call("POST", "/cinema/commands/show", data=body, headers=headers)
    assert (response.status, problem["code"], problem.get("field")) == (status, code, field)
    assert cinema.writes.issued == []


@pytest.mark.parametrize("number", ["12345678901234567.89", "0.1", "9.90", "1E+30", "123456789012345678901234567890"])
async def test_a_decimal_number_is_taken_as_it_is_written(cinema: MadeGateway, number: str) -> None:
    body = f'{{"prices": [{{"amount": {number}, "weight": 0.1}}, {{"amount": "{number}"}}]}}'
    headers = {"Content-Type": "application/json"}
    response, _ = await cinema.call("POST", "/cinema/commands/set_prices", data=body, headers=headers)
    assert response.status == 204
    # To the lane goes a text, which no reader rounds.
    prices = [{"amount": number, "weight": 0.1}, {"amount": number, "weight": 0.5}]
    assert cinema.arguments == {"prices": prices, "note": None}


FLAT = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    FLAT | st.text(max_size=5), lambda part: st.lists(part) | st.dictionaries(st.text(max_size=5), part)
)
EXACT = st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:e}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=EXACT, note=JSON)
async def test_both_doors_make_the_same_arguments_of_the_same_text(
    cinema: MadeGateway, amount: str, note: object
) -> None:
    args = f'{{"prices": [{{"amount": {amount}}}], "note": {msgspec.json.encode(note).decode()}}}'
    headers = {"Content-Type": "application/json"}
    await cinema.call("POST", "/cinema/commands/set_prices", data=args, headers=headers)
    one = cinema.writes.last.arguments
    batch = f'[{{"type": "cinema.set_prices", "args": {args}}}]'
    await cinema.call("POST", "/commands", data=batch, headers=headers)
    assert one == cinema.writes.last.arguments
    assert len(cinema.writes.issued) % 2 == 0


@pytest.mark.parametrize("amount", ["1e9999999999999999999", "-1e9999999999999999999", "1e-9999999999999999999"])
async def test_a_number_that_no_decimal_can_be_is_the_clients_fault(cinema: MadeGateway, amount: str) -> None:
    body = f'{{"prices": [{{"amount": {amount}}}]}}'
    headers = {"Content-Type": "application/json"}
    response, problem = await cinema.call("POST", "/cinema/commands/set_prices", data=body, headers=headers)
    assert (response.status, problem["code"]) == (422, "invalid_arguments")
    assert cinema.writes.issued == []


def test_nor_does_one_take_a_continuation_that_it_lists_itself() -> None:
    """It starts as it did, whoever may ask: nobody has to say who may use what is left out."""
    listing = Gateway(name="cinema", routes=(), attach=lambda *_: None, commands=(Show, Counted))
    assert listing.commands == (Show,)
    check_decided(listing.name, listing.commands, [CINEMA.replace(allow=any_principal, public_models=())])


async def test_keys_preferences_and_refusals_are_those_of_any_write(cinema: MadeGateway) -> None:
    path, film = "/cinema/commands/show", {"title": "M"}
    cinema.writes.answer = lambda message: applied(message, replayed=True)
    again, _ = await cinema.call("POST", path, json=film, headers={"Idempotency-Key": "k"})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert cinema.writes.last.command_id == command_id_for("cinema", "k")
    cinema.writes.answer = refused("rejected", "version_conflict")
    stale, _ = await cinema.call("POST", path, json=film, headers={"If-Match": '"2"'})
    assert (stale.status, cinema.writes.last.expected_version) == (412, 2)
    cinema.writes.answer = refused("rejected", "sold_out")
    late, problem = await cinema.call("POST", path, json=film)
    assert (late.status, problem["code"], problem["instance"]) == (409, "sold_out", path)
    cinema.writes.error = lambda message: CommandPending(message.command_id or "")
    pending, _ = await cinema.call("POST", path, json=film, headers={"Prefer": "respond-async"})
    assert (pending.status, cinema.writes.last_wait_s) == (202, 0.0)
    assert pending.headers["Location"] == f"/commands/{cinema.writes.last.command_id}"


@pytest.mark.parametrize("name", ["count", "counted", "Show", "cinema.show", "", "show/", "halls", "halls/close"])
async def test_what_is_no_command_of_anybodys_is_404(start: Start, name: str) -> None:
    made = await begin(start, gateway_of(CINEMA.replace(public_models=(Film,))))
    response, problem = await made.call("POST", f"/cinema/commands/{name}", json={"title": "M"})
    assert (response.status, problem["code"]) == (404, "not_found")
    assert made.writes.issued == []
    read, _ = await made.call("GET", "/cinema/commands/show")
    assert (read.status, read.headers["Allow"]) == (405, "POST")


async def test_a_row_is_shown_with_its_version(cinema: MadeGateway) -> None:
    response, body = await cinema.call("GET", "/cinema/commands/-3")
    assert (response.status, body) == (200, {"id": -3, "version": 4, "name": "the small one"})
    assert response.headers["ETag"] == '"4"'
    same, _ = await cinema.call("GET", "/cinema/commands/-3", headers={"If-None-Match": '"4"'})
    other, _ = await cinema.call("GET", "/cinema/commands/-3", headers={"If-None-Match": '"3"'})
    assert (same.status, other.status) == (304, 200)
    head, body = await cinema.call("HEAD", "/cinema/commands/-3")
    assert (head.status, body) == (200, b"")


@pytest.mark.parametrize(
    "key", ["Metropolis", "a/b", "a b", "a+b", "%", "%41", "?x=1", "#", "é", "{x}", "", "\n", "..."]
)
async def test_a_text_is_found_by_its_key_in_any_spelling_of_the_path(cinema: MadeGateway, key: str) -> None:
    cinema.films.rows = {key: Film(title=key, minutes=1)}
    for spelt in (quote(key, safe=""), "".join(f"%{byte:02x}" for byte in key.encode())):
        assert await cinema.exactly(f"/cinema/films/{spelt}") == (200, {"title": key, "minutes": 1}), spelt
    assert cinema.films.asked == [key, key]


@pytest.mark.parametrize(
    "path", ["films/%FF", "films/%C3%28", "films/%ED%A0%80", "films/nothing", "takings/1", "films/a/b"]
)
async def test_a_key_that_no_row_can_have_is_404(cinema: MadeGateway, path: str) -> None:
    cinema.films.rows = {"%FF": FILM, "�": FILM}
    status, problem = await cinema.exactly(f"/cinema/{path}")
    assert status == 404
    assert problem["code"] == ("row_not_found" if path.count("/") == 1 and "films" in path else "not_found")


@pytest.mark.parametrize("key", ["03", "+3", "-0", "3.0", " 3", "٣", "1e1", "0x3", "", "3_0", "9" * 5000])
async def test_an_integer_has_one_spelling(cinema: MadeGateway, key: str) -> None:
    cinema.halls.rows = dict.fromkeys((0, 3, 10, 30), HALL)
    response, problem = await cinema.call("GET", f"/cinema/commands/{quote(key)}")
    assert (response.status, problem["code"]) == (404, "row_not_found")
    assert cinema.halls.asked == []


async def test_rows_come_in_pages(cinema: MadeGateway) -> None:
    cinema.halls.rows = {number: Hall(id=number) for number in (-2, 0, 5)}
    _, first = await cinema.call("GET", "/cinema/commands?limit=2")
    assert ([row["id"] for row in first["items"]], first["next"]) == ([-2, 0], 0)
    _, second = await cinema.call("GET", "/cinema/commands?limit=2&after=0")
    assert ([row["id"] for row in second["items"]], second["next"]) == ([5], None)
    _, negative = await cinema.call("GET", "/cinema/commands?after=-2")
    assert [row["id"] for row in negative["items"]] == [0, 5]
    cinema.films.rows = {title: Film(title=title, minutes=1) for title in ("1", "a&b", "ö")}
    _, texts = await cinema.call("GET", "/cinema/films", params={"after": "a&b"})
    assert [row["title"] for row in texts["items"]] == ["ö"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=", "after"),
        ("after=1&after=2", "after"),
        ("of=1", "of"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(cinema: MadeGateway, query: str, field: str) -> None:
    response, problem = await cinema.call("GET", f"/cinema/commands?{query}")
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_query", field)


async def test_a_key_that_the_database_does_not_take_is_no_key_of_a_page(cinema: MadeGateway) -> None:
    response, problem = await cinema.call("GET", "/cinema/films?after=%00")
    assert (response.status, problem["code"], problem["field"]) == (400, "invalid_query", "after")


async def test_a_row_that_cannot_be_read_now_is_503(cinema: MadeGateway) -> None:
    cinema.films.error = DatabaseUnavailable("secret-host")
    for path in ("/cinema/films", "/cinema/films/Metropolis"):
        response, problem = await cinema.call("GET", path)
        assert (response.status, problem["code"]) == (503, "database_unavailable")


@pytest.mark.parametrize("path", ["/cinema/films/Metropolis", "/cinema/films", "/cinema/films?after=M"])
async def test_a_row_that_is_none_of_its_class_is_named_to_operators(cinema: MadeGateway, path: str) -> None:
    """The client gets an id to quote, and how to go on behind it in a list."""
    cinema.films.error = error = UnreadableRow("films", "Metropolis", "minutes", "holds a str")
    error.next = "Metropolis" if "Metropolis" not in path else None
    with capture_logs() as lines:
        response, problem = await cinema.call("GET", path)
    assert (response.status, problem["code"], problem.get("next")) == (500, "row_unreadable", error.next)
    assert "minutes" not in str(problem)
    assert ("`next` is the `after`" in problem["detail"]) is (error.next is not None)
    (line,) = [each for each in lines if each["log_level"] == "error"]
    assert (line["event"], line["table"], line["key"], line["column"]) == (
        "row_unreadable",
        "films",
        "Metropolis",
        "minutes",
    )
    assert problem["trace_id"]


async def test_an_author_adds_routes_and_replaces_some(start: Start) -> None:
    routes = web.RouteTableDef()
    seen: list[str] = []

    @routes.get("/cinema/programme")
    @routes.get("/cinema/films")
    async def programme(request: web.Request) -> web.Response:
        read_query(request, NoQuery)
        return json_response("by hand")

    made = gateway_of(
        CINEMA, routes=routes, attach=lambda app, dependencies: seen.append(dependencies.service), reads=(Taking, Film)
    )
    cinema = await begin(start, made)
    assert (seen, made.reads) == (["cinema"], (Film, Hall, Taking))
    for path in ("/cinema/programme", "/cinema/films"):
        assert (await cinema.call("GET", path))[1] == "by hand"
    assert (await cinema.call("GET", "/cinema/films/Metropolis"))[0].status == 200
    assert (await cinema.call("GET", "/healthz"))[0].status == 200


def test_a_service_without_a_gateway_of_its_own_is_served() -> None:
    registry = Registry(
        App(
            services={"users": "shared.users:SERVICE", "seats": "tests.support.seats:seats"},
            gateways={"users": "gateways.users:GATEWAY"},
        )
    )
    assert registry.gateway_names == ("users", "seats")
    assert registry.gateway("seats").reads == (Seat,)
    assert len(registry.gateway("users").routes) > len(registry.service("users").commands)
    with pytest.raises(ConfigurationError, match="no gateway 'others': there are users"):
        registry.gateway("others")


def undeclared(_work, _command):  # type: ignore[no-untyped-def]  # that is what is tested
    return None


class Odd(Command, type="cinema.what/ever"):
    pass


def odd(_work: UnitOfWork, _command: Odd) -> None:
    return None


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (Handler(Show, undeclared), r"cinema\.show: its gateway must know what its handler returns: .* does not say"),
        (Handler(Odd, odd), r"cinema\.what/ever: there is no path for a command of this name"),
    ],
)
def test_a_service_of_which_no_gateway_can_be_made_is_refused(handler: Handler[Any], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        gateway_of(CINEMA.replace(handlers=(handler,)))
