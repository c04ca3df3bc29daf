"""What a lane's reader may beyond what gateways need on MongoDB, by the roles of its account, and what ends it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pymongo.database import Database

from coordinator.stores.foreign_rights import ForeignRight, together
from coordinator.stores.mongodb.accounts import READERS_ROLE
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.mongodb.foreign_rights import statement_of
from coordinator.stores.mongodb.writers import accounts_of, may_find
from coordinator.stores.reader_excess import ReaderExcess, ReaderQuery


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
    """The printed role for readers takes the place of every role that reads more."""
    readable = tuple(name for name in query.withheld if may_find(account, database.name, name))
    who = f"{account['user']}@{account['db']}"
    roles = [role for role in account.get("roles", []) if (role["role"], role["db"]) != (READERS_ROLE, database.name)]
    for role in roles:
        given = {"role": READERS_ROLE, "db": database.name}
        yield ForeignRight(
            who=who,
            does=f"has the role {role['role']}@{role['db']}",
            tables=readable,
            statements=(
                statement_of(account["db"], {"grantRolesToUser": account["user"], "roles": [given]}),
                statement_of(account["db"], {"revokeRolesFromUser": account["user"], "roles": [role]}),
            ),
            why=f"it reads by the role {READERS_ROLE} instead, which `coordinator database-accounts` prints",
            is_wide=True,
        )
    if readable and not roles:
        why = f"the role {READERS_ROLE} lets it: run the line of that role that `coordinator database-accounts` prints"
        yield ForeignRight(who=who, does="reads", tables=readable, why=why)
