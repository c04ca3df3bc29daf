"""The gateways that exist. A fourth one is a file beside these and a line here."""

from typing import Final

from coordinator.http.app import Gateway
from gateways import items, payments, users

GATEWAYS: Final[dict[str, Gateway]] = {
    gateway.name: gateway
    for gateway in (
        users.GATEWAY,
        items.GATEWAY,
        payments.GATEWAY,
    )
}
