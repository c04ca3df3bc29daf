"""What schemathesis sends to gateways, and what of their answers is in their OpenAPI documents."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
CHECKS: Final = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
INVALID: Final = re.compile(r"invalid_|malformed_|missing_body|unsupported_|unknown_command_|reserved_|not_found$")
"""Codes of requests that are refused for their form."""
NO_PARAMETER: Final = "no_parameter_of_ours"
PROVES_ITSELF: Final = "/webhooks/"
"""Of what is sent there the document says less than is asked: it must be signed."""
STREAMS: Final = "text/event-stream"


class Served:
    """A gateway that serves its document, as whoever has these headers sees it.

    `given` are parts of requests that are not made up, by their place: `path_parameters`, `headers`. `is_session`: what
    is open to all is asked without the headers, since a session can be ended there.
    """

    def __init__(
        self,
        address: str,
        headers: Mapping[str, str],
        given: Mapping[str, Mapping[str, str]] | None = None,
        *,
        is_session: bool = False,
    ) -> None:
        self._headers = dict(headers)
        self._is_session = is_session
        answer = requests.get(f"{address}/openapi.json", headers=self._headers, timeout=20)
        self.schema = schemathesis.openapi.from_dict(answer.json())
        self.schema.config.update(base_url=address)
        # A parameter that there is not may be made up with no value, and then it is not even sent.
        self.schema.config.generation.update(with_security_parameters=False, allow_extra_parameters=False)
        self._given = given or {}

    def headers_for(self, operation: Any) -> dict[str, str]:
        """Those with which a request for it is sent."""
        return {} if self._is_session and is_open(operation) else self._headers

    def operations(self) -> Iterator[Any]:
        """Those of its routes whose answers end."""
        for result in self.schema.get_all_operations():
            operation: Any = result.ok()  # type: ignore[union-attr]  # ours are valid
            answers = operation.definition.raw["responses"].values()
            if not any(STREAMS in each.get("content", ()) for each in answers):
                yield operation

    def cases(self, operation: Any, mode: GenerationMode = GenerationMode.POSITIVE) -> Any:
        """Requests for one of them, as a strategy."""
        raw = operation.definition.raw
        named = {each["name"] for each in map(self._resolved, raw.get("parameters", ()))}
        given = {
            place: own
            for place, values in self._given.items()
            if (own := {name: value for name, value in values.items() if name in named})
        }
        return operation.as_strategy(generation_mode=mode, **given)

    def _resolved(self, value: Any) -> Any:
        if "$ref" not in value:
            return value
        return self.schema.raw_schema["components"]["parameters"][value["$ref"].rpartition("/")[2]]


def sent(served: Served, case: Any) -> Any:
    """The answer to a request: no 5xx, and all of it is in the document, which allows the request if it is answered."""
    headers = case.headers
    mode = case.meta.generation.mode if case.meta is not None else GenerationMode.POSITIVE
    if mode is GenerationMode.POSITIVE and "Idempotency-Key" in headers:
        # Only words say that the two exclude each other.
        headers.pop("Command-Id", None)
    answer = case.call_and_validate(headers=served.headers_for(case.operation), checks=list(CHECKS), timeout=30)
    assert answer.status_code < 500, said(case, answer)
    if mode is GenerationMode.POSITIVE:
        is_problem = answer.headers.get("Content-Type", [""])[0] == "application/problem+json"
        code = answer.json()["code"] if is_problem else ""
        is_refused = INVALID.match(code) is not None and not case.path.startswith(PROVES_ITSELF)
        assert not is_refused, f"refused, though the document allows it: {said(case, answer)}"
    elif not loses_what_is_wrong(case):
        assert answer.status_code >= 400, f"done, though the document forbids it: {said(case, answer)}"
    return answer


def loses_what_is_wrong(case: Any) -> bool:
    """Whether a query has a value that is sent as an allowed one: an empty list is left out, and a text of digits is a
    number."""
    return any(
        each in ([], {}) or (isinstance(each, str) and each.isascii() and each.isdigit())
        for each in (case.query or {}).values()
    )


def sent_by_nobody(case: Any, headers: Mapping[str, str]) -> None:
    """Send a request with a credential that does not count: it is told so, or the route is open to all."""
    answer = case.call_and_validate(headers=dict(headers), checks=list(CHECKS), timeout=30)
    assert answer.status_code < 500, said(case, answer)
    if not is_open(case.operation):
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), said(case, answer)


def sent_with_a_parameter_that_there_is_not(served: Served, case: Any) -> None:
    """Send a request with a query parameter that the document does not have: it is refused, or the route has none."""
    case.query = {**(case.query or {}), NO_PARAMETER: "1"}
    answer = case.call_and_validate(headers=served.headers_for(case.operation), checks=list(CHECKS), timeout=30)
    assert answer.status_code < 500, said(case, answer)
    if "invalid_query" in codes_of(case.operation, 400):
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query"), said(case, answer)


class Histories:
    """What requests lead to, by the links of a document.

    `followed` counts where links led, as `operation status`; `longest` is the most requests that one answer led to, one
    after the other.
    """

    def __init__(self, served: Served, steps: int) -> None:
        self._served = served
        self._steps = steps
        self._known = {each.definition.raw["operationId"]: each for each in served.operations()}
        self.followed: Counter[str] = Counter()
        self.longest = 0

    def follow(self, examples: int) -> None:
        """From each route whose answers lead somewhere: that, and then what all answers so far lead to, in any order.

        schemathesis' own histories guess further links, and Hypothesis cannot repeat them: their servers remember.
        """
        for operation in self._known.values():
            if names := self._reachable(operation):
                self._follow(operation, names, examples)

    def _follow(self, operation: Any, names: list[str], examples: int) -> None:
        served, example, turns = self._served, _example_of(operation), itertools.count(1)

        @trying(examples)
        @given(data=strategies.data())
        def send(data: Any) -> None:
            first = data.draw(served.cases(operation))
            if example is not None and next(turns) % 2:
                # What is made up may be refused each time, as for a currency that there is not; the example, the
                # second.
                first.body = example
            # All are drawn before it is known what is answered, so that the same draws are the same requests.
            order = data.draw(
                strategies.lists(strategies.sampled_from(names), min_size=self._steps, max_size=self._steps)
            )
            cases = [(name, data.draw(served.cases(self._known[name]))) for name in order]
            answered = [(first, sent(served, first))]
            for name, case in cases:
                if (given_by := _given_by(answered, name)) is not None:
                    case.path_parameters = {**case.path_parameters, **given_by}
                    answered.append((case, sent(served, case)))
                    self.followed[f"{name} {answered[-1][1].status_code}"] += 1
            self.longest = max(self.longest, len(answered) - 1)

        send()

    def _reachable(self, operation: Any) -> list[str]:
        """The names of the routes to which a request may lead in the end."""
        found: dict[str, None] = {}
        waiting = [operation]
        while waiting:
            for name in sorted(_links_of(waiting.pop())):
                if name not in found:
                    found[name] = None
                    waiting.append(self._known[name])
        return list(found)


def _links_of(operation: Any, status: int | None = None) -> dict[str, Any]:
    answers = operation.definition.raw["responses"]
    asked = answers.values() if status is None else [answers.get(str(status), {})]
    return {name: link for each in asked for name, link in each.get("links", {}).items()}


def _given_by(answered: Sequence[tuple[Any, Any]], name: str) -> dict[str, Any] | None:
    """The parts of the path that the latest answer with a link of this name gives; None: no answer does."""
    for case, answer in reversed(answered):
        link = _links_of(case.operation, answer.status_code).get(name)
        if link is not None:
            with suppress(LookupError):
                return {place: _meant(expression, case, answer) for place, expression in link["parameters"].items()}
    return None


def _example_of(operation: Any) -> Any:
    body = operation.definition.raw.get("requestBody", {"content": {}})
    return next((each["example"] for each in body["content"].values() if "example" in each), None)


def _meant(expression: str, case: Any, answer: Any) -> Any:
    """What an expression of a link means, of those that our documents have. Raises LookupError: nothing."""
    place, _, name = expression.rpartition(".")
    if place == "$request.path":
        return case.path_parameters[name]
    if place == "$response.header":
        (value,) = answer.headers[name.lower()]
        return value
    start, _, pointer = expression.partition("#/")
    assert start == "$response.body", expression
    found = answer.json()
    for part in pointer.split("/"):
        found = found[int(part)] if isinstance(found, list) else found[part]
    if found is None:
        raise LookupError(pointer)
    return found


def codes_of(operation: Any, status: int) -> set[str]:
    """The codes of the problems that the document has of a status."""
    found = operation.definition.raw["responses"].get(str(status))
    if found is None:
        return set()
    if "$ref" in found:
        found = operation.schema.raw_schema["components"]["responses"][found["$ref"].rpartition("/")[2]]
    schema = found["content"]["application/problem+json"]["schema"]
    return set(schema["allOf"][1]["properties"]["code"].get("enum", ()))


def is_open(operation: Any) -> bool:
    """Whether a route is open to all."""
    return bool(operation.definition.raw.get("security") == [])


def said(case: Any, answer: Any) -> str:
    """A request and its answer, for whoever looks why a test fails."""
    return f"{case.as_curl_command()}\n{answer.status_code} {answer.text[:500]}"


def trying(examples: int) -> settings:
    """The settings of a property whose requests change what they meet: none is repeated, and all are the same."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
