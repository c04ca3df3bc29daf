"""What docs/HTTP.md says is so: the routes of every gateway, and problem codes with their statuses."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from coordinator.http import gateway_of
from coordinator.http.app import common_routes
from coordinator.http.problems import STATUSES, NothingIssued, answer_to
from coordinator.registry import registry
from coordinator.service.errors import CommandFailed, CommandRejected, InvalidCommand, UnreadableRow
from coordinator.service.service import Service
from tests.support.seats import seats

ROOT = Path(__file__).parents[2]
HTTP = (ROOT / "docs" / "HTTP.md").read_text()
PROTOCOL = (ROOT / "docs" / "PROTOCOL.md").read_text()
NAME = re.compile(r"`([a-z_]+)`")


def section(title: str, text: str = HTTP) -> str:
    """From a heading to the next one of the same rank."""
    rank = title.partition(" ")[0]
    return re.split(rf"^#{{1,{len(rank)}}} ", text.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table's rows, without the names of columns."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {number for number, line in enumerate(lines[1:]) if line.startswith("| ---")}
    heads |= {number + 1 for number in heads}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if number not in heads
    ]


def routes_of(title: str) -> dict[tuple[str, str], list[str]]:
    """The other cells of the rows that begin with a method and a path."""
    found = [(re.fullmatch(r"`([A-Z]+) (/\S*)`", row[0]), row[1:]) for row in rows(section(title))]
    return {(match[1], match[2]): cells for match, cells in found if match}


def served(routes: Any) -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in routes}


def test_the_routes_of_every_gateway_are_documented() -> None:
    assert set(routes_of("## Every gateway")) == served(common_routes)


def test_the_routes_of_a_made_gateway_are_documented() -> None:
    made = {
        (method, re.sub(r"^/seats/commands/\w+", "/S/commands/NAME", path).replace("/seats/seats", "/S/TABLE"))
        for method, path in served(gateway_of(seats).routes)
    }
    documented = set(routes_of("## A gateway that is made from a service"))
    assert {(method, path.replace("{key:[^/]*}", "{key}")) for method, path in made} == documented


# Codes


OF_GATEWAYS = ("coordinator/access", "coordinator/http", "gateways")
REFUSERS = ("shared", *OF_GATEWAYS, *(f"coordinator/{name}" for name in ("client", "service", "transports")))


def calls(*folders: str) -> Iterator[tuple[str, ast.Call, dict[str, str]]]:
    """Every call in the code of these folders by the name of what is called, with the texts that names stand for."""
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        named = dict(re.findall(r'^([A-Z_]+): Final = "([a-z_]+)"$', text, re.MULTILINE))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                yield name, node, CONSTANTS | named


CONSTANTS = {
    "AMOUNT_MISMATCH": "amount_mismatch",
    "REFUND_IN_DOUBT": "refund_in_doubt",
    "REFUND_RETURNED": "refund_returned",
}


def texts(node: ast.expr, named: dict[str, str]) -> set[str]:
    """The texts that an expression may be; none for what is made of others."""
    match node:
        case ast.Constant(value=str() as value):
            return {value}
        case ast.Name(id=name) if name in named:
            return {named[name]}
        case ast.IfExp():
            return texts(node.body, named) | texts(node.orelse, named)
    return set()


def argument(call: ast.Call, position: int, keyword: str) -> list[ast.expr]:
    return call.args[position : position + 1] + [word.value for word in call.keywords if word.arg == keyword]


def status_of(call: ast.Call) -> int:
    """That of a call that refuses a request; for that of a bad command answer_to knows."""
    status = call.args[0]
    return status.value if isinstance(status, ast.Constant) and isinstance(status.value, int) else 0


def of_requests() -> dict[str, set[int]]:
    """Codes of what is refused or not there, and the statuses of their answers."""
    found: dict[str, set[int]] = defaultdict(set)
    for name, call, named in calls(*REFUSERS):
        if name in REFUSING:
            position, status_for = REFUSING[name]
            for code in {text for node in argument(call, position, "code") for text in texts(node, named)}:
                found[code].add(status_for(call, code))
    away = "".join(
        path.read_text()
        for path in [
            ROOT / "coordinator" / "service" / "errors.py",
            *(path for folder in OF_GATEWAYS for path in (ROOT / folder).glob("*.py")),
        ]
    )
    for code in re.findall(r'^    code = "([a-z_]+)"$', away, re.MULTILINE):
        found[code].add(503)
    for error in (
        InvalidCommand(""),
        UnreadableRow("t"),
        ValueError(),
        NothingIssued("internal_error", "", []),
        web.HTTPNotFound(),
        web.HTTPMethodNotAllowed("PUT", ["GET"]),
    ):
        answer = answer_to(error)
        found[answer.code].add(answer.status)
    # The root of others: nobody raises it as it is.
    del found["unavailable"]
    return found


REFUSING: dict[str, tuple[int, Callable[[ast.Call, str], int]]] = {
    "RequestRefused": (1, lambda call, _: status_of(call)),
    "TooManyRequests": (0, lambda *_: 429),
    "NotFound": (0, lambda *_: 404),
    "path_id": (2, lambda *_: 404),
    "WebhookRefused": (0, lambda *_: 400),
    "InvalidCommand": (1, lambda _, code: answer_to(InvalidCommand("", code=code)).status),
    "UpgradeFailed": (1, lambda _, code: answer_to(InvalidCommand("", code=code)).status),
}
"""What is called to refuse a request: where its code is, and what status the answer has."""


def rejections(service: Service) -> set[str]:
    folder = f"shared/{service.name}"
    return {
        text
        for name, call, named in calls(folder)
        if name == "Rejected"
        for text in texts(call.args[0], named)
    }  # fmt: skip


def of_lanes() -> dict[str, set[int]]:
    """Codes of settled commands, and the statuses of their answers."""
    found: dict[str, set[int]] = defaultdict(set)
    for service in registry().services:
        for code in rejections(service):
            found[code].add(answer_to(CommandRejected("", code, "")).status)
    for cells in rows(section("## Error codes", PROTOCOL)):
        for code in NAME.findall(cells[0]):
            for status in cells[1].split(";")[0].split(","):
                error = CommandRejected if status.strip() == "rejected" else CommandFailed
                found[code].add(answer_to(error("", code, "")).status)
    return found


def documented() -> dict[str, set[int]]:
    found = rows(section("### Codes of problems"))
    told = {code_in(row): {int(status) for status in row[1].split(", ")} for row in found}
    assert list(told) == sorted(told)
    return told


def elsewhere() -> set[str]:
    return {code_in(row) for row in rows(section("### Codes that no request is answered with"))}


def code_in(row: list[str]) -> str:
    """The code in a row; behind those of the reference system stands a mark."""
    return row[0].removesuffix(" †").strip("`")


def test_the_codes_of_the_reference_system_are_marked() -> None:
    framework = "".join(path.read_text() for path in (ROOT / "coordinator").rglob("*.py"))
    # What is said of a payment has this name, too.
    named = set(re.findall(r'"([a-z_]+)"', framework)) - {"unknown"}
    for title in ("### Codes of problems", "### Codes that no request is answered with"):
        found = {code_in(row): row[0].endswith(" †") for row in rows(section(title))}
        assert found == {code: code not in named for code in found}


def test_every_code_of_the_gateways_is_documented_with_its_status() -> None:
    told, requests, lanes = documented(), of_requests(), of_lanes()
    assert set(requests) - set(told) == set()
    assert set(told) - set(requests) - set(lanes) == set()
    for code, statuses in told.items():
        assert requests.get(code, set()) <= statuses <= requests.get(code, set()) | lanes.get(code, set()), code
    # One that no outcome has: it is what is said of an outcome without a code.
    assert set(STATUSES) - set(told) == {"expired"}


def test_every_code_says_of_what_it_is() -> None:
    requests, lanes = of_requests(), of_lanes()
    for code, status, of, _ in rows(section("### Codes of problems")):
        name, parts = code_in([code]), set(of.split(", "))
        assert parts <= {"request", "lane", "away"}
        assert ("lane" not in parts) or name in lanes, name
        assert ("request" in parts or "away" in parts) is (name in requests), name
        assert ("away" in parts) is (status == "503"), name


def test_every_code_of_the_services_is_documented() -> None:
    known = set(documented()) | elsewhere()
    found = {code for service in registry().services for code in rejections(service)}
    for name, call, named in calls("shared", "coordinator/service"):
        if name in ("Refused", "Declined", "refused", "declined", "Reason", "AmountNotChargeable", "Rejected"):
            found |= {text for node in argument(call, 0, "code") for text in texts(node, named)}
    for name, call, named in calls("coordinator/effects", "coordinator/transports/rabbitmq/effects"):
        if name == "Defect":
            found |= texts(call.args[0], named)
    text = "".join(path.read_text() for path in (ROOT / "shared" / "payments").glob("*.py"))
    found |= set(re.findall(r' or "([a-z_]+)"', text))
    found |= set(
        re.findall(r'^[A-Z_]*(?:LOST|UNAVAILABLE|RESOLVED|RETURNED|DOUBT): Final = "([a-z_]+)"', text, re.MULTILINE)
    )
    assert len(found) > 40
    assert found - known == set()
    # And those that a payment's status makes, of which no line has the whole.
    assert elsewhere() - found == {"payment_failed", "payment_voided"}
