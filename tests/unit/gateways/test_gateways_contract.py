"""What a gateway serves of its contract: the document, the page, JSON Schemas, and what problems mean."""

import json
import re
from html.parser import HTMLParser
from typing import Annotated, Any

import jsonschema
import pytest
from msgspec import Meta, Struct

from coordinator import Command, Service, UnitOfWork
from coordinator.http import gateway_of
from coordinator.http.contract.problem_codes import PROBLEM_CODES
from coordinator.http.contract.served import PAGE_HEADERS
from coordinator.registry import registry
from coordinator.service.commands import parse
from coordinator.service.errors import InvalidCommand
from coordinator.service.json_schemas import schemas_of
from gateways.problem_codes import PROBLEMS
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.test_gateways_allow import ByName


class Tags(HTMLParser):
    """What a page loads, runs and leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    @property
    def addresses(self) -> list[str]:
        return [value or "" for _, each in self.found for name, value in each.items() if name in ("src", "href")]


@pytest.mark.parametrize("name", registry().gateway_names)
async def test_the_document_is_served(start: Start, name: str) -> None:
    running = await start(name)
    response, document = await running.call("GET", "/openapi.json")
    assert (response.status, document["openapi"], document["info"]["title"]) == (200, "3.1.1", name)
    assert (await running.call("HEAD", "/openapi.json"))[0].status == 200
    assert (await running.call("GET", "/openapi.json?a=1"))[0].status == 400


async def test_the_root_leads_to_the_page(users: RunningGateway) -> None:
    response, _ = await users.call("GET", "/", allow_redirects=False)
    assert (response.status, response.headers["Location"]) == (302, "/docs")
    response, page = await users.call("GET", "/")
    assert (response.status, response.content_type) == (200, "text/html")
    assert b"openapi.json" in page


async def test_the_page_loads_only_what_its_gateway_has(users: RunningGateway) -> None:
    response, page = await users.call("GET", "/docs")
    assert {name: response.headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
    assert "'unsafe" not in response.headers["Content-Security-Policy"]
    tags = Tags(page.decode())
    assert len(tags.addresses) > 4
    for address in tags.addresses:
        if not address.startswith("#"):
            assert (await users.call("GET", address))[0].status == 200, address
    assert not [tag for tag, each in tags.found if "style" in each or any(name.startswith("on") for name in each)]
    for name in ("docs.js", "docs.css", "icon.svg"):
        response, text = await users.call("GET", f"/docs/assets/{name}")
        assert response.headers["Content-Security-Policy"] == PAGE_HEADERS["Content-Security-Policy"]
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", text)
    assert b"innerHTML" not in (await users.call("GET", "/docs/assets/docs.js"))[1]


@pytest.mark.parametrize("name", ["docs.html", "nothing.js", "..%2Fserved.py", "__init__.py", "%00.js"])
async def test_no_other_file_is_served(users: RunningGateway, name: str) -> None:
    assert (await users.call("GET", f"/docs/assets/{name}"))[0].status == 404


@pytest.mark.parametrize("problem", [*PROBLEM_CODES, *PROBLEMS], ids=lambda problem: problem.code)
async def test_the_type_of_a_problem_leads_to_its_meaning(users: RunningGateway, problem: Any) -> None:
    response, page = await users.call("GET", f"/problems/{problem.code}")
    assert (response.status, response.content_type) == (200, "text/html")
    text = page.decode()
    assert f"<code>{problem.code}</code>" in text
    assert all(str(status) in text for status in problem.statuses)
    assert "](" not in text


async def test_the_type_is_that_of_the_answer(users: RunningGateway) -> None:
    _, problem = await users.call("GET", "/users/8")
    assert problem["type"] == "/problems/user_not_found"
    assert (await users.call("GET", problem["type"]))[0].status == 200
    assert (await users.call("GET", "/problems/nothing_of_ours"))[0].status == 404


async def test_schemas_are_listed_and_served(users: RunningGateway) -> None:
    _, listed = await users.call("GET", "/schemas")
    known = {command.type: command for command in registry().gateway("users").commands}
    assert [each["type"] for each in listed] == list(known)
    for each in listed:
        response, schema = await users.call("GET", each["location"])
        assert (response.status, response.content_type) == (200, "application/schema+json")
        assert schema["$id"] == each["location"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert set(schema["properties"]) == set(known[each["type"]].__struct_encode_fields__)
    for path in ("/schemas/users.nothing/1", "/schemas/users.create/2", "/schemas/users.create/x"):
        response, problem = await users.call("GET", path)
        assert (response.status, problem["code"]) == (404, "schema_not_found")


class BookedById(Struct, forbid_unknown_fields=True):
    """A seat by its number."""

    id: Annotated[int, Meta(ge=1)]


versioned = Service("versioned")


class Book(Command, type="versioned.book", version=3):
    place: str
    holder: str | None = None


@versioned.handles(Book)
def book(_work: UnitOfWork, _command: Book) -> None:
    return None


@versioned.upgrades(Book, from_version=1, arguments=BookedById)
def id_was_place(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"place": str(arguments["id"])}


@versioned.upgrades(Book, from_version=2)
def nobody_held(arguments: dict[str, Any]) -> dict[str, Any]:
    """The holder came with version 3."""
    return arguments


async def test_schemas_of_older_versions_are_served_as_their_upgrades_know_them(start: Start) -> None:
    running = await start(gateway_of(versioned))
    _, listed = await running.call("GET", "/schemas")
    assert [(each["version"], each["location"]) for each in listed] == [
        (version, f"/schemas/versioned.book/{version}") for version in (1, 2, 3)
    ]
    schemas = [(await running.call("GET", each["location"]))[1] for each in listed]
    for each, schema in zip(listed, schemas, strict=True):
        assert schema["$id"] == each["location"]
        jsonschema.Draft202012Validator.check_schema(schema)
    takes = [[jsonschema.Draft202012Validator(schema).is_valid(given) for schema in schemas] for given in GIVEN]
    assert takes == [[True, True, False], [False, True, False], [False, True, True], [False, False, False]]
    assert schemas[0]["description"] == "A seat by its number."
    assert schemas[1]["description"].endswith("of which version 3 is made. The holder came with version 3.")
    response, problem = await running.call("GET", "/schemas/versioned.book/4")
    assert (response.status, problem["code"]) == (404, "schema_not_found")
    assert "versions 1 to 3 are" in problem["detail"]
    (printed,) = schemas_of([versioned]).values()
    assert printed == {str(each["version"]): without(schema) for each, schema in zip(listed, schemas, strict=True)}


GIVEN: tuple[Any, ...] = ({"id": 7}, {"id": 0}, {"place": "7A"}, [])


def without(schema: Any) -> Any:
    return {name: value for name, value in schema.items() if name != "$id"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "Ada", "email": "ada@example.org"},
        {"name": "Ada"},
        {"name": "", "email": "ada@example.org"},
        {"name": "Ada", "email": "ada"},
        {"name": "Ada", "email": "ada@example.org", "credit": 1},
        {"name": " Ada", "email": "ada@example.org"},
        {"name": "Ada\nB", "email": "ada@example.org"},
        {"name": "Zo\u00eb \U0001f600", "email": "ada@example.org"},
        {"name": "\U000e0001", "email": "ada@example.org"},
        {"name": 7, "email": None},
    ],
)
async def test_a_schema_takes_what_the_command_takes(users: RunningGateway, arguments: Any) -> None:
    _, schema = await users.call("GET", "/schemas/users.create/1")
    (command,) = (each for each in registry().gateway("users").commands if each.type == "users.create")
    try:
        parse(command, arguments)
        is_taken = True
    except InvalidCommand:
        is_taken = False
    assert jsonschema.Draft202012Validator(schema).is_valid(arguments) is is_taken


async def test_documents_are_for_whoever_is_known_and_the_page_is_for_all(start: Start) -> None:
    running = await start("users", authenticator=ByName())
    bearing = {"Authorization": "Bearer ada"}
    for path in ("/openapi.json", "/schemas", "/schemas/users.create/1"):
        response, problem = await running.call("GET", path)
        assert (response.status, problem["code"]) == (401, "unauthenticated")
        assert (await running.call("GET", path, headers=bearing))[0].status == 200
    for path in ("/", "/docs", "/docs/assets/docs.js", "/problems/unauthenticated"):
        assert (await running.call("GET", path))[0].status == 200
    _, document = await running.call("GET", "/openapi.json", headers=bearing)
    assert json.dumps(document).count('"bearer"') > 1
