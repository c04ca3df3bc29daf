"""The OpenAPI documents of gateways: they are valid, whole, and say what the code says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import web

from coordinator.http import Gateway, gateway_of
from coordinator.http.app import common_routes, contract_of
from coordinator.http.contract.problem_codes import PROBLEM_CODES
from coordinator.http.contract.route_operations import HttpOperation
from coordinator.http.contract.route_problems import OF_NO_ROUTE, ROUTE_PROBLEMS, problems_of
from coordinator.http.contract.served import ServedContract
from coordinator.operations.contract import PROBLEMS as OPERATIONS_PROBLEMS
from coordinator.operations.contract import SESSION, operations_contract
from coordinator.operations.contract import common_routes as operations_common
from coordinator.operations.main import OWN_ROUTES
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.commands import INTEGER_MAX, Command
from coordinator.service.service import Service
from tests.support.seats import seats

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "openapi-3.1.json").read_text())
NAMES = (*registry().gateway_names, "seats")
WITH_OPERATIONS = (*NAMES, "operations")
BODY_METHODS = ("post", "put", "patch")


def gateway(name: str) -> Gateway:
    """A service's."""
    made = gateway_of(seats) if name == "seats" else registry().gateway(name)
    assert isinstance(made, Gateway)
    return made


def contract(name: str, *, asks: bool = True) -> ServedContract:
    if name == "operations":
        return operations_contract(OWN_ROUTES, asks=asks)
    services = [seats] if name == "seats" else registry().services
    return contract_of(name, [gateway(name)], services, GatewaySettings(), asks=asks)


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(document: Any, value: Any) -> Any:
    while "$ref" in value:
        found = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        value = found
    return value


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def schemas(document: Any) -> Iterator[Any]:
    """Every schema that stands at a place for one."""
    yield from document["components"]["schemas"].values()
    for _, _, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            yield resolved(document, parameter)["schema"]
        for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media in resolved(document, holder).get("content", {}).values():
                yield media["schema"]


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("name", WITH_OPERATIONS)
def test_a_document_is_valid_openapi(name: str, asks: bool) -> None:
    document = json.loads(contract(name, asks=asks).text)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    for schema in schemas(document):
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in references(document):
        assert resolved(document, {"$ref": reference}) is not None, reference


@pytest.mark.parametrize("name", WITH_OPERATIONS)
def test_every_route_is_in_the_document_and_no_other(name: str) -> None:
    is_of_service = name != "operations"
    own, common = (gateway(name).routes, common_routes) if is_of_service else (OWN_ROUTES, operations_common)
    routes = [*own, *common]
    served = {
        (route.method.lower(), re.sub(r"\{([a-z_]+):(?:[^{}]|\{[^{}]*\})*\}", r"{\1}", route.path))
        for route in routes
        if isinstance(route, web.RouteDef)
    }
    assert {(method, path) for path, method, _ in operations(contract(name).document)} == served


@pytest.mark.parametrize("name", WITH_OPERATIONS)
def test_every_operation_has_a_name_of_its_own(name: str) -> None:
    found = [operation["operationId"] for _, _, operation in operations(contract(name).document)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_its_fields_are_in_the_document(name: str) -> None:
    document = contract(name).document
    components = document["components"]["schemas"]
    for command in gateway(name).commands:
        element = components[f"{command.type}.element"]
        assert element["properties"]["type"] == {"const": command.type}
        arguments = resolved(document, element["properties"]["args"])
        assert set(arguments.get("properties", ())) == set(command.__struct_encode_fields__)
        assert arguments["additionalProperties"] is False
    assert len(components["CommandElement"]["anyOf"]) == len(gateway(name).commands)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_bodies_are_valid(name: str) -> None:
    document = contract(name).document
    for path, method, operation in operations(document):
        for media in resolved(document, operation.get("requestBody", {})).get("content", {}).values():
            if path == "/commands" or path.startswith("/webhooks"):
                continue
            assert "example" in media, (method, path)
            schema = {**media["schema"], "components": document["components"]}
            jsonschema.Draft202012Validator(schema).validate(media["example"])


def test_what_a_route_takes_is_in_the_document() -> None:
    document = contract("users").document
    update = document["paths"]["/users/{id}"]["patch"]
    names = [resolved(document, each)["name"] for each in update["parameters"]]
    assert names == [
        *("id", "Idempotency-Key", "Command-Id", "Prefer", "If-Match", "Command-Version", "traceparent", "tracestate")
    ]
    assert update["parameters"][0]["schema"] == {"type": "integer", "minimum": 1, "maximum": INTEGER_MAX}
    assert set(update["requestBody"]["content"]) == {"application/json", "application/merge-patch+json"}
    body = update["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"name", "email"}
    listed = {each["name"]: each["schema"] for each in document["paths"]["/users"]["get"]["parameters"][:2]}
    assert listed["limit"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    one = document["paths"]["/users/{id}"]["get"]
    assert "#/components/parameters/If-None-Match" in [each.get("$ref") for each in one["parameters"]]
    assert one["responses"]["304"]["headers"] == {
        name: {"$ref": f"#/components/headers/{name}"}
        for name in ("ETag", "Served-By", "RateLimit-Policy", "RateLimit")
    }


def test_what_a_route_answers_is_in_the_document() -> None:
    document = contract("users").document
    credit = document["paths"]["/users/{id}/credit"]["post"]["responses"]
    assert set(credit) == {
        *("200", "202", "400", "401", "403", "404", "408", "409", "410", "412", "413", "415", "417", "422", "429"),
        *("500", "502", "503", "504"),
    }
    problem = resolved(document, credit["409"])
    (media,) = problem["content"].values()
    codes = media["schema"]["allOf"][1]["properties"]["code"]["enum"]
    assert {"insufficient_credit", "credit_limit", "cancelled"} <= set(codes)
    assert "(/problems/insufficient_credit)" in problem["description"]
    assert {"Retry-After", "RateLimit-Policy", "RateLimit"} <= set(resolved(document, credit["429"])["headers"])
    assert resolved(document, credit["401"])["headers"]["WWW-Authenticate"]["required"]


def test_a_gateway_that_asks_who_asks_says_so() -> None:
    document = contract("items").document
    assert document["security"] == [{"bearer": []}]
    assert document["paths"]["/items/{id}"]["get"]["security"] == []
    assert "401" not in document["paths"]["/items/{id}"]["get"]["responses"]
    assert "security" not in document["paths"]["/items"]["post"]
    assert "401" in document["paths"]["/items"]["post"]["responses"]
    for_all = contract("items", asks=False).document
    assert "security" not in for_all
    assert "securitySchemes" not in for_all["components"]
    assert "401" not in for_all["paths"]["/items"]["post"]["responses"]


def test_answers_lead_to_what_they_made() -> None:
    users = contract("users").document["paths"]["/users"]["post"]["responses"]
    assert users["201"]["links"]["get_users_id"]["parameters"] == {"id": "$response.body#/id"}
    assert users["202"]["links"]["get_commands_id"]["parameters"] == {"id": "$response.header.Command-Id"}
    refunds = contract("payments").document["paths"]["/payments/{id}/refunds"]["post"]["responses"]
    assert refunds["201"]["links"]["get_payments_id_refunds_refund_id"]["parameters"] == {
        "id": "$request.path.id",
        "refund_id": "$response.body#/id",
    }
    made = contract("seats").document["paths"]["/seats/commands/book"]["post"]["responses"]
    assert made["200"]["links"]["get_seats_seats_key"]["parameters"] == {"key": "$response.body#/id"}


def test_every_code_of_the_framework_s_is_one_of_some_route_s() -> None:
    routes = {code for kinds in ROUTE_PROBLEMS.values() for codes in kinds.values() for code in codes}
    found: set[str] = set()
    for name in NAMES:
        facts = contract(name).facts
        own: list[HttpOperation] = [*facts.own, *facts.common]
        found |= {code for each in own for codes in each.codes.values() for code in codes}
    known = {problem.code: problem for problem in PROBLEM_CODES}
    assert set(known) - routes - found == OF_NO_ROUTE - {"not_found"}
    assert routes <= set(known)
    for kinds in ROUTE_PROBLEMS.values():
        for status, codes in kinds.items():
            assert all(status in known[code].statuses for code in codes), (status, codes)


@pytest.mark.parametrize("asks", [True, False])
def test_the_operations_gateway_says_what_it_takes(asks: bool) -> None:
    document = contract("operations", asks=asks).document
    assert document.get("security") == ([{"session": []}] if asks else None)
    pause = document["paths"]["/api/lanes/{lane}/pause"]["post"]
    (mark,) = (
        found
        for each in pause["parameters"]
        if (found := resolved(document, each))["in"] == "header" and found.get("required")
    )
    assert mark["name"] == "Operations-Mark"
    assert ("401" in pause["responses"]) is asks
    assert {"403", "404", "409", "422", "503"} <= set(pause["responses"])
    reason = resolved(document, pause["requestBody"]["content"]["application/json"]["schema"])["properties"]["reason"]
    assert (reason["minLength"], reason["maxLength"]) == (1, 500)
    # Nothing of writes is said of a gateway that takes none.
    assert "CommandElement" not in document["components"]["schemas"]
    assert set(document["components"]["parameters"]) == {"Operations-Mark", "traceparent", "tracestate"}
    assert "RateLimit" not in document["components"]["headers"]
    letters = document["paths"]["/api/lanes/{lane}/letters"]["get"]["responses"]["200"]
    assert (
        letters["links"]["get_api_lanes_lane_letters_letter"]["parameters"]["letter"] == "$response.body#/letters/0/id"
    )


def test_every_code_of_the_operations_gateway_has_its_text() -> None:
    served = contract("operations")
    facts = served.facts
    codes = {
        code
        for operation in (*facts.own, *facts.common)
        for each in problems_of(operation, SESSION.problems).values()
        for code in each
    }
    texts = {problem.code: problem for problem in (*PROBLEM_CODES, *OPERATIONS_PROBLEMS)}
    assert codes <= set(texts)
    assert {problem.code for problem in OPERATIONS_PROBLEMS} <= codes
    for operation in (*facts.own, *facts.common):
        for status, each in problems_of(operation, SESSION.problems).items():
            assert all(status in texts[code].statuses for code in each), (operation.path, status, each)


def test_a_route_that_nobody_described_does_not_stop_its_gateway() -> None:
    async def silent(_request: web.Request) -> web.Response:
        return web.Response()

    made = Gateway(name="quiet", routes=[web.get("/silent/{id}", silent)], attach=lambda *_: None)
    document = contract_of(made.name, [made], [], GatewaySettings(), asks=False).document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert "decorate its handler" in document["paths"]["/silent/{id}"]["get"]["summary"]
    assert "default" in document["paths"]["/silent/{id}"]["get"]["responses"]


def test_a_type_without_a_schema_takes_nothing_from_the_others() -> None:
    """Such as a union of two classes that nothing tells apart."""
    service = Service("odd")

    class Odd(Command, type="odd.odd"):
        value: Any = None

    @service.handles(Odd)
    def odd(_work: Any, _command: Odd) -> None:
        return None

    document = contract_of(service.name, [gateway_of(service)], [service], GatewaySettings(), asks=False).document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert "/odd/commands/odd" in document["paths"]
