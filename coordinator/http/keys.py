"""Typed keys, under which an application and a request keep their values, so that mypy knows the types."""

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from coordinator.client.recency import ReadDatabase
from coordinator.client.writes import SentArguments
from coordinator.http.authentication import AUTHENTICATION
from coordinator.http.headers import NO_PREFERENCES
from coordinator.http.own_machine import ASKED_AS
from coordinator.http.principal_limits import PrincipalShare
from coordinator.runtime.settings import GatewaySettings
from coordinator.runtime.telemetry import Stages
from coordinator.service.commands import Command
from coordinator.service.principal import Principal
from coordinator.service.targets import ANYWHERE, Targets
from coordinator.service.trace_context import TraceContext
from coordinator.service.upgrades import Upgrade

SERVICE_NAME: Final = web.AppKey("SERVICE_NAME", str)
LANES: Final[web.AppKey[tuple[str, ...]]] = web.AppKey("LANES")
"""Of the services that the application serves; one has the name of the application itself."""
READ_DATABASES: Final[web.AppKey[tuple[ReadDatabase, ...]]] = web.AppKey("READ_DATABASES")
"""From which its requests read, in the order of LANES."""
TARGETS: Final = web.AppKey("TARGETS", Targets)
"""Which lane of a service is meant by its requests."""
SETTINGS: Final = web.AppKey("SETTINGS", GatewaySettings)
UPGRADES: Final[web.AppKey[Mapping[str, Sequence[Upgrade]]]] = web.AppKey("UPGRADES")
"""By command type, in order."""


class RequestContext:
    """Facts about one request, learnt while it is served, for the log line and the response's headers."""

    __slots__ = (
        "arrived_s",
        "asked_as",
        "authentication",
        "caller",
        "error",
        "is_repeatable",
        "parsed",
        "places",
        "preferences",
        "principal",
        "sent",
        "service",
        "settings",
        "share",
        "stages",
        "statuses",
        "targets",
        "trace",
    )

    def __init__(self, trace: TraceContext, stages: Stages, app: web.Application, caller: TraceContext | None) -> None:
        # Here at hand: each look at `request.app` goes through the route and its chain of applications.
        self.service = app[SERVICE_NAME]
        self.settings = app[SETTINGS]
        self.targets = app.get(TARGETS, ANYWHERE)
        self.authentication = app.get(AUTHENTICATION)
        self.asked_as = app.get(ASKED_AS)
        self.arrived_s = stages.began_s
        self.trace = trace
        # What caused the request, if it said so.
        self.caller = caller
        self.stages = stages
        self.preferences = NO_PREFERENCES
        # The command that was read from the body and the path. It is valid.
        self.parsed: Command | None = None
        # Its arguments, if the request says which version they have.
        self.sent: SentArguments | None = None
        self.error: Exception | None = None
        # Who asks; None where everybody may, or on a route that is open to all.
        self.principal: Principal | None = None
        # What whoever asks has left of his share; None where that is not known, or where there are no limits.
        self.share: PrincipalShare | None = None
        # Whether the same request, sent again, is the same command.
        self.is_repeatable = False
        # For a request of several commands: how many have each status.
        self.statuses: dict[str, int] | None = None
        # Where the request's commands stand in the orders of their lanes: the last one of each.
        self.places: dict[str, int] | None = None

    def settled_at(self, lane: str, sequence: int) -> None:
        """The request's one command is settled, at this place in its lane's order."""
        self.stages.sequence = sequence
        self.places = {lane: sequence}


CONTEXT: Final = web.RequestKey("CONTEXT", RequestContext)


def principal_of(request: web.Request) -> Principal | None:
    """Who asks; None where the gateway does not ask that, and on a route that is open to all."""
    return request[CONTEXT].principal
