"""Orders over HTTP: no routes but those that every gateway has."""

from aiohttp import web

from coordinator.http import Dependencies, Gateway
from tests.support.shop.service import SERVICE


def attach(app: web.Application, dependencies: Dependencies) -> None:
    """There is nothing to attach."""


GATEWAY = Gateway(name="orders", routes=(), attach=attach, commands=SERVICE.commands, reads=SERVICE.models)
