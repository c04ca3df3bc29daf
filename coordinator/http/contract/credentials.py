"""How whoever asks a gateway proves who he is, as its document has it."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from coordinator.http.contract.route_problems import ROUTE_PROBLEMS
from coordinator.service.json_schemas import Json


class Credentials(Struct, frozen=True, kw_only=True):
    """One way. `scheme` is OpenAPI's security scheme of this `name`.

    `problems` are the codes by status of a credential that does not count. `has_shares`: whoever is known has a share
    of what the gateway does, of which its answers tell him what is left.
    """

    name: str
    scheme: Json
    problems: Mapping[int, tuple[str, ...]]
    has_shares: bool = False


BEARER: Final = Credentials(
    name="bearer",
    scheme={"type": "http", "scheme": "bearer", "description": "An API key, or a JSON Web Token."},
    problems=ROUTE_PROBLEMS["known"],
    has_shares=True,
)
"""That of a service's gateway."""
