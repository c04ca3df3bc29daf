"""What else can write a lane's collections on MongoDB: accounts by their privileges, where the server shows them."""

from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import OperationFailure

from coordinator.stores.mongodb.documents import Document
from coordinator.stores.writers import Writer, Writers, WritersQuery, gathered

_ACTIONS: Final = ("insert", "update", "remove")
_UNKNOWN_COMMAND: Final = 59


def writers(database: Database[Document], query: WritersQuery) -> Writers:
    """The lane's user is shown with the note that it is."""
    wanted = {"usersInfo": {"forAllDBs": True}, "showPrivileges": False}
    try:
        accounts = database.client.admin.command(wanted)["users"]
    except OperationFailure as error:
        why = "the server does not know them" if error.code == _UNKNOWN_COMMAND else "it lacks viewUser"
        return Writers((), (f"Accounts are not shown to this one: {why}.",))
    if not accounts:
        return Writers((), ("The server has no accounts: whoever reaches it may write.",))
    found: list[Writer] = []
    for user in accounts:
        details = database.client.admin.command(
            {"usersInfo": {"user": user["user"], "db": user["db"]}, "showPrivileges": True}
        )["users"]
        for privilege in details[0].get("inheritedPrivileges", []) if details else []:
            actions = [action for action in _ACTIONS if _allows(privilege, action)]
            reached = [table for table in query.tables if _reaches(privilege.get("resource", {}), database.name, table)]
            note = "the lane's own user: " if user["user"] == query.role else ""
            found += [
                Writer(
                    kind="role",
                    name=f"{user['user']}@{user['db']}",
                    does=f"{note}{', '.join(actions)}",
                    tables=(table,),
                )
                for table in reached
                if actions
            ]
    return Writers(gathered(found))


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
