"""What else can write a lane's collections on MongoDB: accounts by their privileges, where the server shows them."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import OperationFailure

from coordinator.stores.mongodb.documents import Document
from coordinator.stores.writers import Writer, Writers, WritersQuery, gathered

ACTIONS: Final = (
    *("insert", "update", "remove"),
    # What takes documents away with their collection, or an index by which the server removes them in time.
    *("dropCollection", "dropDatabase", "renameCollectionSameDB", "convertToCapped", "collMod", "createIndex"),
)
_GIVING: Final = ("grantRole", "changePassword")
"""By the first an account has any role of a database, by the second it logs in as another one."""
_OF_RIGHTS: Final = ("system.users", "system.roles")
UNKNOWN_COMMAND: Final = 59
_LOOKING: Final = frozenset(
    {
        "changeStream",
        "collStats",
        "connPoolStats",
        "dbHash",
        "dbStats",
        "find",
        "indexStats",
        "killCursors",
        "listCollections",
        "listDatabases",
        "listIndexes",
        "listSessions",
        "planCacheRead",
        "serverStatus",
    }
)
"""Actions that neither change anything nor stop anybody else."""


def writers(database: Database[Document], query: WritersQuery) -> Writers:
    """The lane's user is shown with the note that it is."""
    try:
        accounts = accounts_of(database)
    except OperationFailure as error:
        why = "the server does not know them" if error.code == UNKNOWN_COMMAND else "it lacks viewUser"
        return Writers((), (f"Accounts are not shown to this one: {why}.",))
    if not accounts:
        return Writers((), ("The server has no accounts: whoever reaches it may write.",))
    found: list[Writer] = []
    for account in accounts:
        note = "the lane's own user: " if account["user"] == query.role else ""
        for table in query.tables:
            for actions in actions_on(account, database.name, table):
                name = f"{account['user']}@{account['db']}"
                found.append(Writer(kind="role", name=name, does=f"{note}{', '.join(actions)}", tables=(table,)))
    return Writers(gathered(found))


def accounts_of(database: Database[Document]) -> list[dict[str, Any]]:
    """All accounts of the server, with the privileges of each. Raises OperationFailure where they are not shown."""
    admin = database.client.admin
    accounts: list[dict[str, Any]] = []
    for name in admin.command({"usersInfo": {"forAllDBs": True}, "showPrivileges": False})["users"]:
        shown = admin.command({"usersInfo": {"user": name["user"], "db": name["db"]}, "showPrivileges": True})
        accounts += shown["users"][:1]
    return accounts


def role_of(database: Database[Document], name: str, of: str) -> Mapping[str, Any]:
    """A role with its privileges and those that it inherits; empty where there is none. Raises OperationFailure."""
    command = {"rolesInfo": {"role": name, "db": of}, "showPrivileges": True, "showBuiltinRoles": True}
    shown: list[dict[str, Any]] = database.client[of].command(command)["roles"]
    return shown[0] if shown else {}


def actions_on(holder: Mapping[str, Any], database: str, collection: str) -> list[list[str]]:
    """What an account or a role may do to a collection, by each of its privileges that let it write."""
    reaching = (
        [action for action in ACTIONS if _allows(privilege, action)]
        for privilege in holder.get("inheritedPrivileges", [])
        if _reaches(privilege.get("resource", {}), database, collection)
    )
    return [actions for actions in reaching if actions]


def gives_rights(holder: Mapping[str, Any], databases: Collection[str]) -> bool:
    """Whether an account or a role may give itself the rights of others of these databases."""
    return any(_gives(privilege, databases) for privilege in holder.get("inheritedPrivileges", []))


def _gives(privilege: dict[str, Any], databases: Collection[str]) -> bool:
    resource = privilege.get("resource", {})
    if resource.get("collection") in _OF_RIGHTS and resource.get("db") in ("", "admin"):
        return any(_allows(privilege, action) for action in ACTIONS)
    is_there = any(_reaches(resource, database, "") for database in databases)
    return is_there and any(_allows(privilege, action) for action in _GIVING)


def may_find(holder: Mapping[str, Any], database: str, collection: str) -> bool:
    """Whether an account or a role may read a collection."""
    return any(
        _allows(privilege, "find") and _reaches(privilege.get("resource", {}), database, collection)
        for privilege in holder.get("inheritedPrivileges", [])
    )


def holding_up(holder: Mapping[str, Any], database: str) -> list[str]:
    """What an account or a role may do to the server or to a database beyond looking at it, in order."""
    return sorted(
        {
            action
            for privilege in holder.get("inheritedPrivileges", [])
            if _reaches_within(privilege.get("resource", {}), database)
            for action in privilege.get("actions", [])
            if action not in _LOOKING
        }
    )


def _reaches_within(resource: Mapping[str, Any], database: str) -> bool:
    """The server, or anything in a database."""
    return bool(resource.get("anyResource") or resource.get("cluster")) or resource.get("db") in ("", database)


def _allows(privilege: dict[str, Any], action: str) -> bool:
    actions = privilege.get("actions", [])
    return action in actions or "anyAction" in actions


def _reaches(resource: dict[str, Any], database: str, collection: str) -> bool:
    """An empty name stands for all of them."""
    if resource.get("anyResource"):
        return True
    if "db" not in resource:
        return False
    return resource["db"] in ("", database) and resource.get("collection", "") in ("", collection)
