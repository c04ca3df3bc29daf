"""docs/WHO_MAY.md has each route that there is: what a role may do by it is tried (tests/e2e/who_may)."""

from collections.abc import Iterable

import pytest
from aiohttp import web

from coordinator.http.app import common_routes
from coordinator.http.contract.route_operations import operations_of
from coordinator.operations.contract import common_routes as operations_common
from coordinator.operations.main import OWN_ROUTES
from coordinator.registry import registry
from tests.e2e.who_may.table import acts_of

OF_PROVIDERS = "POST /webhooks/stripe"
"""It has a table of its own, whose roles are those of an event."""


def served(routes: Iterable[web.AbstractRouteDef]) -> set[str]:
    return {f"{each.method} {each.path}" for each in operations_of(list(routes), registry().services)}


def of_services() -> set[str]:
    gateways = [registry().gateway(name) for name in registry().gateway_names]
    return served([*common_routes, *(route for gateway in gateways for route in gateway.routes)]) - {OF_PROVIDERS}


@pytest.mark.parametrize(
    ("heading", "routes"),
    [
        ("Through HTTP", of_services()),
        ("Through the operations gateway", served([*OWN_ROUTES, *operations_common])),
    ],
    ids=["gateways of services", "the operations gateway"],
)
def test_each_route_is_tried_by_each_role(heading: str, routes: set[str]) -> None:
    assert {act.route for act in acts_of(heading)} == routes
