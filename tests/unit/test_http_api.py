"""docs/HTTP_API.md, and the descriptions of routes from which it is made."""

import ast
import inspect
import json
import re
import shlex
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from aiohttp import web
from msgspec import Meta, Struct

from coordinator.documents.generated import gateway_ports
from coordinator.documents.http_api import http_api, shown
from coordinator.documents.made_gateway import made_operations
from coordinator.http import Gateway, NoQuery, described, gateway_of
from coordinator.http.app import common_routes
from coordinator.http.contract.route_operations import HttpOperation, operations_of, rejections_of
from coordinator.http.described import description_of
from coordinator.registry import registry
from coordinator.service.commands import Id, parse
from tests.support.seats import BookSeat, Seat, seats
from tests.unit.test_http_documentation import documented

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "HTTP_API.md").read_text()
SERVICES = {service.name: service for service in registry().services}
GATEWAYS = {name: registry().gateway(name) for name in registry().gateway_names}
OPERATIONS = [
    (name, operation)
    for name, gateway in GATEWAYS.items()
    for operation in operations_of(gateway.routes, SERVICES.values())
]
ALL = [*OPERATIONS, *(("every gateway", operation) for operation in operations_of(common_routes, ()))]
ROUTES = [
    route
    for routes in (*(gateway.routes for gateway in GATEWAYS.values()), common_routes)
    for route in routes
    if isinstance(route, web.RouteDef)
]
NAMES = [f"{operation.method} {operation.path}" for _, operation in OPERATIONS]
READERS = ("read_command", "path_command", "read_query")


def section(heading: str) -> str:
    return re.split(r"^##", TEXT.partition(f"\n### `{heading}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])
def test_every_route_is_in_the_document(route: web.RouteDef) -> None:
    assert section(f"{route.method} {route.path}"), "run: python -m coordinator.documents.generated --write"


def test_the_document_has_no_other_routes() -> None:
    headings = re.findall(r"^### `([A-Z]+ [^`]+)`$", TEXT, re.MULTILINE)
    made = [f"{operation.method} {operation.path}" for operation in made_operations()]
    assert sorted(headings) == sorted([*(f"{route.method} {route.path}" for route in ROUTES), *made])


def test_a_route_that_nobody_described_is_named() -> None:
    async def silent(_request: web.Request) -> web.Response:
        return web.Response()

    gateway = Gateway(name="seats", routes=[web.get("/silent", silent)], attach=lambda *_: None)
    with pytest.raises(ValueError, match="GET /silent is not described: decorate its handler with `described`"):
        operations_of(gateway.routes, [])


@pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])
def test_a_description_says_what_the_handler_does(route: web.RouteDef) -> None:
    """It reads the command and the query that are described, the latter where it is not that of a write."""
    description = description_of(route.handler)
    assert description is not None
    code = ast.parse(dedent(inspect.getsource(route.handler)))
    read: dict[str, set[str]] = {reader: set() for reader in READERS}
    for node in ast.walk(code):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in READERS:
            model = node.args[1]
            assert isinstance(model, ast.Name)
            read[node.func.id].add(model.id)
    command = set() if description.command is None else {description.command.__name__}
    assert read["read_command"] | read["path_command"] == command
    if description.query is None:
        assert read["read_query"] | command == set()
    else:
        assert (read["read_query"] or {NoQuery.__name__}) == {description.query.__name__}
    assert description.is_body_optional == (bool(read["read_command"]) and bool(read["path_command"]))


def test_every_command_has_a_route_and_one_only() -> None:
    named = [operation.command.type for _, operation in OPERATIONS if operation.command is not None]
    assert len(set(named)) == len(named)
    known = {handler.command.type for service in SERVICES.values() for handler in service.public_handlers}
    # That one is for sagas: a price is read with its item.
    assert known - set(named) == {"items.quote"}


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=NAMES)
def test_path_and_body_have_the_fields_of_the_command(name: str, operation: HttpOperation) -> None:
    given = [*operation.of("path"), *operation.of("body")]
    if operation.command is not None:
        fields = msgspec.structs.fields(operation.command)
        assert len(given) == len(fields)
        assert {each.name for each in operation.of("body")} < {field.encode_name for field in fields} | {"id"}
        handler = next(each for each in SERVICES[name].handlers if each.command is operation.command)
        assert ("If-Match" in operation.headers) is (handler.target is not None)
        assert ("version_conflict" in operation.codes.get(412, ())) is (handler.target is not None)
        assert set(rejections_of(operation.command)) == {code for codes in operation.codes.values() for code in codes}
    else:
        assert operation.of("body") == ()


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=NAMES)
def test_the_example_is_taken(name: str, operation: HttpOperation) -> None:
    (block,) = re.findall(
        r"^```sh\n(.*?)^```$", section(f"{operation.method} {operation.path}"), re.MULTILINE | re.DOTALL
    )
    words = shlex.split(block)
    assert words[0] == "curl"
    (url,) = (word for word in words if word.startswith("localhost:"))
    assert url.startswith(f"localhost:{gateway_ports()[name]}/")
    assert ("-d" in words) is bool(operation.example)
    if operation.command is None:
        return
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else {}
    assert {each.name for each in operation.of("body") if each.is_required} <= set(body)
    in_path = set(operation.command.__struct_encode_fields__) - {each.name for each in operation.of("body")}
    parse(operation.command, {**body, **dict.fromkeys(in_path, 1)})


def test_codes_have_the_statuses_of_the_problems() -> None:
    known = documented()
    for _, operation in ALL:
        for status, codes in operation.codes.items():
            for code in codes:
                assert status in known[code], (operation.path, code)


def test_answers_that_are_named_are_described() -> None:
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)}
    named = set(re.findall(r"\]\(#([a-z]+)\)", TEXT.partition("## ")[2]))
    assert len(anchors) > 10
    assert anchors == named - {"answers"}


def test_links_into_the_other_document_lead_somewhere() -> None:
    other = (ROOT / "docs" / "HTTP.md").read_text()
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", other, re.MULTILINE)}
    assert set(re.findall(r"\(HTTP\.md#([a-z-]+)\)", TEXT)) <= headings


def test_a_service_of_an_author_s_is_described_by_his_routes() -> None:
    class Where(Struct):
        row: int

    @described("Book it.", command=BookSeat, path={"seat": "id"}, example={"holder": "ada"}, statuses=(201, 202))
    async def book(_request: web.Request) -> web.Response:
        return web.Response()

    @described("Find it.", path={"code": str}, answer={200: Where, 202: "later"}, codes={"row_not_found": 404})
    async def find(_request: web.Request) -> web.Response:
        return web.Response()

    routes = [web.post("/seats/{seat}/booking", book), web.get("/where/{code:[A-Z]+}", find)]
    booked, found = operations_of(routes, [seats])
    assert booked.text == "Sell a seat.\n\nBook it."
    assert [(each.place, each.name, each.is_required) for each in booked.parameters] == [
        ("path", "seat", True),
        ("body", "holder", True),
    ]
    assert booked.headers == ("Idempotency-Key", "Command-Id", "Prefer", "If-Match")
    assert [(each.status, each.content) for each in booked.answers] == [(201, Seat), (202, Seat)]
    assert booked.answers[0].headers == ("Command-Id", "Command-Sequence", "Read-After", "ETag", "Location")
    assert booked.codes == {404: ("seat_not_found",), 409: ("taken",)}
    assert found.path == "/where/{code}"
    assert found.of("path")[0].schema == {"type": "string"}
    assert [(each.status, each.content) for each in found.answers] == [(200, Where), (202, "later")]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Id, "integer, 1 to 2^53-1"),
        (Annotated[int, Meta(ge=-(10**12), le=10**12)], "integer, -10^12 to 10^12"),
        (Annotated[int, Meta(ge=3)], "integer, at least 3"),
        (Annotated[int, Meta(le=30)] | None, "integer, at most 30 or null"),
        (Annotated[str, Meta(min_length=1, max_length=9)], "text, 1 to 9 characters"),
        (
            Annotated[str, Meta(min_length=3, max_length=3, pattern=r"\A[A-Z]+\Z")],
            "text, 3 characters, of the form `[A-Z]+`",
        ),
        (Annotated[str, Meta(description="of ours", pattern="a")], "text: of ours"),
        (UUID, "UUID"),
        (Literal["b", "a"], "one of `a`, `b`"),
        (Literal["a"], "`a`"),
        (list[bool], "array of boolean"),
        (dict[str, float], "object with values: number"),
        (Any, "any JSON"),
    ],
)
def test_types_are_said_in_words(kind: Any, words: str) -> None:
    assert shown(msgspec.json.schema(kind)) == words


def test_the_document_is_the_same_every_time() -> None:
    assert http_api(registry(), gateway_ports()) == http_api(registry(), gateway_ports())


def test_a_made_gateway_is_in_the_document_with_examples_that_are_taken() -> None:
    made = made_operations()
    assert [f"{each.method} {each.path}" for each in made] == [
        *("POST /seats/commands/book", "GET /seats/seats", "GET /seats/seats/{key}")
    ]
    assert made[0].command is not None
    parse(made[0].command, dict(made[0].example))
    assert "-d '{" in section("POST /seats/commands/book")
    assert "`If-Match`" in section("POST /seats/commands/book")
    assert "`If-None-Match`" in section("GET /seats/seats/{key}")


def test_every_route_that_is_made_says_what_it_takes_and_answers() -> None:
    found = {f"{each.method} {each.path}": each for each in operations_of(gateway_of(seats).routes, [seats])}
    book = found["POST /seats/commands/book"]
    assert [each.name for each in book.of("body")] == ["id", "holder"]
    assert [(answer.status, answer.content) for answer in book.answers] == [(200, Seat)]
    assert not book.is_body_optional
    assert [each.name for each in found["GET /seats/seats"].of("query")] == ["after", "limit", "code"]
    assert found["GET /seats/seats/{key}"].codes == {404: ("row_not_found",)}
