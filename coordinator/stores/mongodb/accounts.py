"""MongoDB's accounts of a lane, as an administrator makes them in mongosh."""

import json
from collections.abc import Sequence
from typing import Final

from coordinator.runtime.addresses import Address
from coordinator.stores.reading_rights import ReadingRights

READERS_ROLE: Final = "gateway"
"""In the lane's database: what its gateways may read."""


def lines_of(owner: Address | None, lane: Address, reader: Address | None, rights: ReadingRights) -> Sequence[str]:
    """A line for each account, each in the database that its address logs in to. mongosh asks for the passwords.

    Before the readers' one stands their role, in a line that also brings it up to date where it is there.
    """
    lines = ["// MongoDB: as an administrator in mongosh, which asks for the passwords"]
    for address, role in ((owner, "readWrite"), (lane, "readWrite"), (reader, READERS_ROLE)):
        if address is None or address.user is None:
            continue
        place = address.option("authSource") or address.database
        user, database = _quoted(address.user), _quoted(address.database)
        if address is reader:
            lines.append(_readers_role(address.database, rights.tables))
        roles = f"[{{role: {_quoted(role)}, db: {database}}}]"
        lines.append(
            f"db.getSiblingDB({_quoted(place)}).createUser({{user: {user}, pwd: passwordPrompt(), roles: {roles}}})"
        )
    if len(lines) == 1:
        lines.append("// no address has a user: this server asks nobody who he is, and keeps nobody from writing")
    return lines


def _readers_role(database: str, tables: Sequence[str]) -> str:
    within, role = f"db.getSiblingDB({_quoted(database)})", _quoted(READERS_ROLE)
    privileges = ", ".join(
        f'{{resource: {{db: {_quoted(database)}, collection: {_quoted(table)}}}, actions: ["find"]}}'
        for table in tables
    )
    command = f'[{within}.getRole({role}) ? "updateRole" : "createRole"]: {role}'
    return f"{within}.runCommand({{{command}, privileges: [{privileges}], roles: []}})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
