"""schemathesis sends each gateway whatever its OpenAPI document allows, and what it forbids, and follows its links.

No answer is a 5xx, or is not in the document; nothing is refused that the document allows, or done that it forbids.
"""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from tests.support.conforming import (
    MODES,
    Histories,
    Served,
    sent,
    sent_by_nobody,
    sent_with_a_parameter_that_there_is_not,
    trying,
)
from tests.support.contract_system import NOBODY, contract_system
from tests.support.examples import ALL
from tests.support.operations_system import LANE, operated_lane

pytestmark = [pytest.mark.properties, pytest.mark.timeout(300)]

OPERATIONS: Final = "operations"
NAMES: Final = ("seats", OPERATIONS, *(registry().gateway_names if ALL else ()))
"""What the reference system's gateways add takes minutes: `make properties` asks them."""
HEADERS: Final = {"Authorization": "Bearer ada"}
EXAMPLES: Final = 25 if ALL else 3
HISTORIES: Final = 40 if ALL else 4
STEPS: Final = 12 if ALL else 6
OF_NOBODY: Final[tuple[dict[str, str], ...]] = (
    {},
    {"Authorization": f"Bearer {NOBODY}"},
    {"Authorization": "Bearer"},
    {"Authorization": "Basic YWRhOmFkYQ=="},
    {"Cookie": "operations_session=nobody's"},
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """All gateways, by name, with what they serve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_of_this_test")
        patch.setenv("STRIPE_METADATA_KEY", "a key for this test alone, of some length")
        limits = GatewaySettings(principal_rate_max=0, wait_s=20)
        with contract_system(tmp_path_factory.mktemp("contract"), limits) as addresses:
            found = {name: Served(address, HEADERS) for name, address in addresses.items()}
            with operated_lane(tmp_path_factory.mktemp("operated"), patch) as operated:
                own = {"path_parameters": {"lane": LANE}, "headers": operated.mark}
                yield found | {OPERATIONS: Served(operated.address, operated.session, own, is_session=True)}


def asked_alone(served: Served, name: str) -> Iterator[Any]:
    """The routes of a gateway; those that each has, which are the same code everywhere, of the first one only."""
    for operation in served.operations():
        if ALL or name == NAMES[0] or "every gateway" not in operation.definition.raw["tags"]:
            yield operation


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", NAMES)
def test_each_route_keeps_to_the_document(system: dict[str, Served], name: str, mode: GenerationMode) -> None:
    served, tried = system[name], 0
    for operation in asked_alone(served, name):
        try:

            @trying(EXAMPLES)
            @given(case=served.cases(operation, mode))
            def send(case: Any) -> None:
                sent(served, case)

            send()
        except Unsatisfiable:
            # Nothing that a route without parameters takes can be wrong.
            assert mode is GenerationMode.NEGATIVE
            continue
        tried += 1
    assert tried > 1


@pytest.mark.parametrize("name", NAMES)
def test_who_is_not_known_and_what_no_route_has_are_refused_as_documented(system: dict[str, Served], name: str) -> None:
    served = system[name]
    for operation in asked_alone(served, name):

        @trying(1)
        @given(case=served.cases(operation))
        def send(case: Any) -> None:
            for headers in OF_NOBODY:
                sent_by_nobody(case, headers)
            sent_with_a_parameter_that_there_is_not(served, case)

        send()


@pytest.mark.parametrize("name", NAMES)
def test_what_links_lead_to_keeps_to_the_document(system: dict[str, Served], name: str) -> None:
    """A write, and then what answers lead to, in any order: its outcome, the row, changes of that, its end."""
    histories = Histories(system[name], STEPS)
    histories.follow(HISTORIES)
    assert any(led.endswith(" 200") for led in histories.followed), histories.followed
    assert histories.longest > 2
