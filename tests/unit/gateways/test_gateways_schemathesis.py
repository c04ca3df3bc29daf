"""schemathesis sends each gateway whatever its OpenAPI document allows, and what it forbids, and follows its links.

No answer is a 5xx, or is not in the document; nothing is refused that the document allows, or done that it forbids.
"""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings, strategies
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from tests.support.contract_system import contract_system

pytestmark = [pytest.mark.properties, pytest.mark.timeout(300)]

NAMES: Final = (*registry().gateway_names, "seats")
HEADERS: Final = {"Authorization": "Bearer ada"}
MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
IS_THOROUGH: Final = os.environ.get("EXAMPLES") == "all"
EXAMPLES: Final = 25 if IS_THOROUGH else 3
HISTORIES: Final = 40 if IS_THOROUGH else 4
CHECKS: Final = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
INVALID: Final = re.compile(r"invalid_|malformed_|missing_body|unsupported_|unknown_command_|reserved_|not_found$")
"""Codes of requests that are refused for their form."""
PROVES_ITSELF: Final = "/webhooks/"
"""Of what is sent there the document says less than is asked: it must be signed."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The schemas of all gateways, by name, as they serve them; with their base addresses."""
    patch = pytest.MonkeyPatch()
    patch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_of_this_test")
    patch.setenv("STRIPE_METADATA_KEY", "a key for this test alone, of some length")
    limits = GatewaySettings(principal_rate_max=0, wait_s=20)
    with contract_system(tmp_path_factory.mktemp("contract"), limits) as addresses:
        yield {name: _schema(address) for name, address in addresses.items()}
    patch.undo()


def _schema(address: str) -> Any:
    answer = requests.get(f"{address}/openapi.json", headers=HEADERS, timeout=20)
    schema = schemathesis.openapi.from_dict(answer.json())
    schema.config.update(base_url=address)
    # A parameter that there is not may be made up with no value, and then it is not even sent.
    schema.config.generation.update(with_security_parameters=False, allow_extra_parameters=False)
    return schema


def sent(case: Any) -> Any:
    """The answer to a case, which is checked."""
    headers = case.headers
    mode = case.meta.generation.mode if case.meta is not None else GenerationMode.POSITIVE
    if mode is GenerationMode.POSITIVE and "Idempotency-Key" in headers:
        # Only words say that the two exclude each other.
        headers.pop("Command-Id", None)
    answer = case.call_and_validate(headers=HEADERS, checks=list(CHECKS), timeout=30)
    check(case, mode, answer)
    return answer


def check(case: Any, mode: GenerationMode, answer: Any) -> None:
    said = f"{case.as_curl_command()}\n{answer.status_code} {answer.text[:500]}"
    assert answer.status_code < 500, said
    if mode is GenerationMode.POSITIVE:
        is_problem = answer.headers.get("Content-Type", [""])[0] == "application/problem+json"
        code = answer.json()["code"] if is_problem else ""
        is_refused = INVALID.match(code) is not None and not case.path.startswith(PROVES_ITSELF)
        assert not is_refused, f"refused, though the document allows it: {said}"
    else:
        assert answer.status_code >= 400, f"done, though the document forbids it: {said}"


def trying(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", NAMES)
def test_each_route_keeps_to_the_document(system: dict[str, Any], name: str, mode: GenerationMode) -> None:
    tried = 0
    for result in system[name].get_all_operations():
        operation = result.ok()
        if not IS_THOROUGH and name != NAMES[0] and "every gateway" in operation.definition.raw["tags"]:
            # They are the same code everywhere.
            continue
        try:
            strategy = operation.as_strategy(generation_mode=mode)

            @trying(EXAMPLES)
            @hypothesis.given(case=strategy)
            def send(case: Any) -> None:
                sent(case)

            send()
        except hypothesis.errors.Unsatisfiable:
            # Nothing that a route without parameters takes can be wrong.
            assert mode is GenerationMode.NEGATIVE
            continue
        tried += 1
    assert tried > 1


@pytest.mark.parametrize("name", NAMES)
def test_what_links_lead_to_keeps_to_the_document(system: dict[str, Any], name: str) -> None:
    """A write, and then what its answer leads to, in any order: its outcome, the row, changes of that, its end.

    schemathesis' own histories guess further links, and Hypothesis cannot repeat them: their servers remember.
    """
    known = {
        operation.definition.raw["operationId"]: operation
        for operation in (result.ok() for result in system[name].get_all_operations())
    }
    followed: Counter[str] = Counter()
    for operation in known.values():
        follow(operation, known, followed)
    assert any(led.endswith(" 200") for led in followed), followed


def follow(operation: Any, known: dict[str, Any], followed: Counter[str]) -> None:
    """Send a request, and what its answer's links lead to, again and again."""
    answers = operation.definition.raw["responses"]
    names = sorted({link for each in answers.values() for link in each.get("links", {})})
    if not names:
        return
    mode, turns = GenerationMode.POSITIVE, itertools.count(1)

    @trying(HISTORIES)
    @hypothesis.given(data=strategies.data(), order=strategies.permutations(names))
    def send(data: Any, order: list[str]) -> None:
        first = data.draw(operation.as_strategy(generation_mode=mode))
        example = _example_of(operation)
        if example is not None and next(turns) % 2:
            # What is made up may be refused each time, as for a currency that there is not; the example, the second.
            first.body = example
        # All are drawn before it is known what is answered, so that the same draws are the same requests.
        cases = [(link, data.draw(known[link].as_strategy(generation_mode=mode))) for link in order]
        answer = sent(first)
        links = answers.get(str(answer.status_code), {}).get("links", {})
        for link, case in cases:
            if link in links:
                parameters = links[link]["parameters"]
                values = {place: _meant(expression, first, answer) for place, expression in parameters.items()}
                case.path_parameters = {**case.path_parameters, **values}
                followed[f"{link} {sent(case).status_code}"] += 1

    send()


def _example_of(operation: Any) -> Any:
    body = operation.definition.raw.get("requestBody", {"content": {}})
    return next((each["example"] for each in body["content"].values() if "example" in each), None)


def _meant(expression: str, case: Any, answer: Any) -> Any:
    """What an expression of a link means, of those that our documents have."""
    place, _, name = expression.rpartition(".")
    if place == "$request.path":
        return case.path_parameters[name]
    if place == "$response.header":
        (value,) = answer.headers[name.lower()]
        return value
    start, _, pointer = expression.partition("#/")
    assert start == "$response.body", expression
    return answer.json()[pointer]
