"""The gateways that exist. A fourth one is a file beside these and a line here."""

from typing import Final

from gateways import items, payments, users
from gateways.app import Gateway

GATEWAYS: Final[dict[str, Gateway]] = {
    gateway.name: gateway
    for gateway in (
        users.GATEWAY,
        items.GATEWAY,
        payments.GATEWAY,
    )
}
