"""MongoDB's accounts of a lane, as an administrator makes them in mongosh."""

import json
from collections.abc import Sequence

from coordinator.runtime.addresses import Address


def lines_of(owner: Address | None, lane: Address, reader: Address | None) -> Sequence[str]:
    """A line for each account, each in the database that its address logs in to. mongosh asks for the passwords."""
    lines = ["// MongoDB: as an administrator in mongosh, which asks for the passwords"]
    for address, role in ((owner, "readWrite"), (lane, "readWrite"), (reader, "read")):
        if address is None or address.user is None:
            continue
        place = address.option("authSource") or address.database
        user, database = _quoted(address.user), _quoted(address.database)
        roles = f"[{{role: {_quoted(role)}, db: {database}}}]"
        lines.append(
            f"db.getSiblingDB({_quoted(place)}).createUser({{user: {user}, pwd: passwordPrompt(), roles: {roles}}})"
        )
    if len(lines) == 1:
        lines.append("// no address has a user: this server asks nobody who he is, and keeps nobody from writing")
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
