"""What the role of a lane's gateways may beyond what gateways need, and the statements that end it."""

from typing import TypeAlias

from msgspec import Struct

from coordinator.stores.foreign_rights import ForeignRight

ReaderExcess: TypeAlias = tuple[ForeignRight, ...]
"""Those with tables let it read what is the lane's alone. The others let it fill or hold up the server, or do what
takes no right on a table. What lets it write the lane's tables is among the rights of others than the lane, as well."""


class ReaderQuery(Struct, frozen=True):
    """Which role is meant, and which of the lane's tables it must not read."""

    role: str
    database: str
    withheld: tuple[str, ...]
