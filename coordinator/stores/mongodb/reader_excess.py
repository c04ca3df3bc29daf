"""What a lane's reader may beyond what gateways need on MongoDB, by the roles of its account, and what ends it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pymongo.database import Database

from coordinator.stores.foreign_rights import ForeignRight, together
from coordinator.stores.mongodb.accounts import READERS_ROLE
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.mongodb.foreign_rights import statement_of
from coordinator.stores.mongodb.writers import accounts_of, holding_up, may_find, role_of
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery

_SHOWN: Final = 5
"""Of the actions of a role."""


def reader_excess(database: Database[Document], query: ReaderQuery) -> ReaderExcess:
    """Raises OperationFailure where accounts are not shown. A server without accounts keeps nobody from anything."""
    found = [
        right
        for account in accounts_of(database)
        if account["user"] == query.role
        for right in _of_account(database, account, query)
    ]
    return together(found)


def _of_account(database: Database[Document], account: Mapping[str, Any], query: ReaderQuery) -> Iterator[ForeignRight]:
    """Each of its roles by what that role may; one that is of other databases alone is none of ours."""
    readable = [name for name in query.withheld if may_find(account, database.name, name)]
    who = f"{account['user']}@{account['db']}"
    for role in account.get("roles", []):
        if (role["role"], role["db"]) == (READERS_ROLE, database.name):
            continue
        shown = role_of(database, role["role"], role["db"])
        reads = tuple(name for name in query.withheld if may_find(shown, database.name, name))
        readable = [name for name in readable if name not in reads]
        does = holding_up(shown, database.name)
        if reads or does:
            more = f" and {len(does) - _SHOWN} more" if len(does) > _SHOWN else ""
            may = f", by which it may {', '.join(does[:_SHOWN])}{more}" if does else ""
            yield ForeignRight(
                who=who,
                does=f"has the role {role['role']}@{role['db']}{may}",
                tables=reads,
                statements=tuple(_instead(database.name, account, role)),
                why=f"it reads by the role {READERS_ROLE} instead, which `coordinator database-accounts` prints",
                is_wide=True,
            )
    if readable:
        why = (
            f"none of its other roles lets it: run the line of the role {READERS_ROLE} that `coordinator "
            "database-accounts` prints"
        )
        yield ForeignRight(who=who, does="reads", tables=tuple(readable), why=why)


def _instead(database: str, account: Mapping[str, Any], role: Mapping[str, Any]) -> Iterator[str]:
    """What has an account read by the printed role, and no more by this one."""
    given = {"role": READERS_ROLE, "db": database}
    yield statement_of(account["db"], {"grantRolesToUser": account["user"], "roles": [given]})
    yield statement_of(account["db"], {"revokeRolesFromUser": account["user"], "roles": [role]})
