"""What lets others write a lane's collections on MongoDB: the roles of accounts, where the server shows them."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from pymongo.database import Database
from pymongo.errors import OperationFailure

from coordinator.stores.foreign_rights import ForeignRight, ForeignRights, together
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.mongodb.writers import UNKNOWN_COMMAND, accounts_of, actions_on, gives_rights, role_of
from coordinator.stores.writers import WritersQuery

_READING: Final = {"readWrite": "read", "readWriteAnyDatabase": "readAnyDatabase"}
"""What each built-in role leaves when it may write no more."""
_ADMINISTRATORS: Final = frozenset({"root", "__system", "restore", "atlasAdmin"})
"""Roles of the database `admin` that may do all, or replace the system's own collections. Of another one they are a
user's.
"""


class _Judged(Struct, frozen=True):
    """What a role may: the collections that it writes, or all, as it may give itself any right."""

    tables: tuple[str, ...]
    is_administrators: bool = False


def foreign_rights(database: Database[Document], query: WritersQuery, looking: str | None) -> ForeignRights:
    """Accounts of the lane's name, and of the one that looks, are kept, whichever database they are of."""
    try:
        accounts = accounts_of(database)
    except OperationFailure as error:
        why = "the server does not know them" if error.code == UNKNOWN_COMMAND else "it lacks viewUser"
        return ForeignRights((), f"accounts are not shown to this one: {why}")
    if not accounts:
        return ForeignRights((), "the server has no accounts: whoever reaches it may write")
    names = sorted(database.list_collection_names())
    if LEASE_TABLE not in names:
        why = "where no lane's collections are: `coordinator migrate` makes them"
        return ForeignRights((), f"it looks in {database.name}, {why}")
    other = next((name for name in names if name not in query.tables), None)
    judged: dict[tuple[str, str], _Judged] = {}
    # Where accounts and roles are by which somebody may write as the lane.
    places = {database.name, "admin", *(each["db"] for each in accounts if each["user"] in (looking, query.role))}
    found: list[ForeignRight] = []
    for account in accounts:
        if account["user"] in (looking, query.role):
            continue
        by_roles: set[str] = set()
        for role in account.get("roles", []):
            key = role["role"], role["db"]
            if key not in judged:
                judged[key] = _judged(database, key, query.tables, places)
            right = _of_role(account, key, judged[key], other)
            if right.tables:
                by_roles.update(right.tables)
                found.append(right)
        direct = [each for each in query.tables if each not in by_roles and actions_on(account, database.name, each)]
        if direct:
            # A role that is not shown, or of a kind that this release does not know.
            who, why = f"{account['user']}@{account['db']}", "none of its roles shows why: look at them by hand"
            found.append(ForeignRight(who=who, does="writes", tables=tuple(direct), why=why))
    return ForeignRights(together(found))


def _judged(
    database: Database[Document], role: tuple[str, str], tables: tuple[str, ...], places: Collection[str]
) -> _Judged:
    name, of = role
    shown = role_of(database, name, of)
    if (of == "admin" and name in _ADMINISTRATORS) or gives_rights(shown, places):
        return _Judged(tables, is_administrators=True)
    return _Judged(tuple(table for table in tables if actions_on(shown, database.name, table)))


def _of_role(account: Mapping[str, Any], role: tuple[str, str], judged: _Judged, other: str | None) -> ForeignRight:
    name, of = role
    tables = judged.tables
    who, does = f"{account['user']}@{account['db']}", f"has the role {name}@{of}"
    if judged.is_administrators:
        why = "nothing that is revoked keeps it out"
        return ForeignRight(who=who, does=does, tables=tables, why=why, is_administrators=True)
    if name not in _READING:
        why = f"{name} is no role that can be replaced by one that reads: take it away, or its privileges, by hand"
        return ForeignRight(who=who, does=does, tables=tables, why=why)
    reading: dict[str, Any] = {"role": _READING[name], "db": of}
    change = account["user"]
    statements = (
        statement_of(account["db"], {"grantRolesToUser": change, "roles": [reading]}),
        statement_of(account["db"], {"revokeRolesFromUser": change, "roles": [{"role": name, "db": of}]}),
    )
    also = None
    if name != "readWrite":
        also = f"it reads instead ({_READING[name]}), on every database of the server"
    elif other is not None:
        also = f"it reads instead ({_READING[name]}), the database's other collections, too, such as {other}"
    return ForeignRight(who=who, does=does, tables=tables, statements=statements, why=also, is_wide=also is not None)


def statement_of(database: str, command: dict[str, Any]) -> str:
    """A command as mongosh takes it."""
    return f"db.getSiblingDB({_json(database)}).runCommand({_json(command)})"


def command_of(statement: str) -> tuple[str, dict[str, Any]]:
    """The database and the command of what `statement_of` has written."""
    named, _, rest = statement.removeprefix("db.getSiblingDB(").partition(").runCommand(")
    return msgspec.json.decode(named, type=str), msgspec.json.decode(rest.removesuffix(")"), type=dict[str, Any])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
