"""The reference system, but for its items: changing one fails, and has the other commands of the item wait."""

from typing import Any

import msgspec

from coordinator import App, Handler, UnitOfWork
from gateways.app import APP as REFERENCE
from shared.items import SERVICE
from shared.items.commands import QuoteItem, UpdateItem
from shared.items.model import Item


def _broken(_work: UnitOfWork, command: UpdateItem) -> Item:
    raise ArithmeticError(f"a defect of this release: item {command.id}")


def _parking(handler: Handler[Any]) -> Handler[Any]:
    handle = _broken if handler.command is UpdateItem else handler.handle
    return msgspec.structs.replace(
        handler, handle=handle, target=lambda command: Item.at(command.id), on_failure="park-key"
    )


ITEMS = SERVICE.replace(
    handlers=[_parking(each) if each.command in (QuoteItem, UpdateItem) else each for each in SERVICE.handlers]
)
APP = App(
    services=dict(REFERENCE.services) | {"items": "tests.support.parking_app:ITEMS"},
    gateways=REFERENCE.gateways,
    dev=REFERENCE.dev,
    settings=REFERENCE.settings,
)
