"""Which rights on MongoDB our processes need: their commands are recorded, and compared with what a role permits.

The stand-in for MongoDB has no users, so no test runs as one of them. What a command needs, and what the built-in roles
have, is in MongoDB's manual: https://www.mongodb.com/docs/manual/reference/privilege-actions/ and
https://www.mongodb.com/docs/manual/reference/built-in-roles/.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pymongo import monitoring

Actions = frozenset[str]

FIND: Final[Actions] = frozenset({"find"})
"""Those of the role `gateway`, in the collections that gateways read."""
READ: Final[Actions] = frozenset(
    {"changeStream", "collStats", "dbHash", "dbStats", "find", "killCursors", "listCollections", "listIndexes"}
)
READ_WRITE: Final[Actions] = READ | {
    *("convertToCapped", "createCollection", "createIndex", "dropCollection", "dropIndex", "insert", "remove"),
    *("renameCollectionSameDB", "update"),
}
_FREE: Final = frozenset(
    {"hello", "ismaster", "ping", "endSessions", "commitTransaction", "abortTransaction", "getMore", "killCursors"}
)
"""What every user may do: with its own sessions and cursors, too."""
_READING_STAGES: Final = frozenset({"$match", "$group", "$sort", "$limit", "$project", "$count"})
_UNKNOWN: Final = "a right that this test does not know"


def _actions(*names: str) -> Callable[[Mapping[str, Any]], Actions]:
    return lambda _: frozenset(names)


def _of_update(command: Mapping[str, Any]) -> Actions:
    return frozenset({"update"} | {"insert" for each in command.get("updates", ()) if each.get("upsert")})


def _of_find_and_modify(command: Mapping[str, Any]) -> Actions:
    changes = {"remove"} if command.get("remove") else {"update"}
    return frozenset({"find"} | changes | ({"insert"} if command.get("upsert") else set()))


def _of_aggregate(command: Mapping[str, Any]) -> Actions:
    stages = {name for stage in command["pipeline"] for name in stage}
    return frozenset({"find"} | {_UNKNOWN for _ in stages - _READING_STAGES})


def _of_kill_sessions(command: Mapping[str, Any]) -> Actions:
    """A session that is named by its id alone is the user's own."""
    is_own = all(set(session) == {"id"} for session in command["killSessions"]) and command["killSessions"]
    return frozenset() if is_own else frozenset({"killAnySession"})


_NEEDS: Final[dict[str, Callable[[Mapping[str, Any]], Actions]]] = {
    "find": _actions("find"),
    "count": _actions("find"),
    "distinct": _actions("find"),
    "aggregate": _of_aggregate,
    "insert": _actions("insert"),
    "update": _of_update,
    "delete": _actions("remove"),
    "findAndModify": _of_find_and_modify,
    "create": _actions("createCollection"),
    "createIndexes": _actions("createIndex"),
    "dropIndexes": _actions("dropIndex"),
    "listCollections": _actions("listCollections"),
    "listIndexes": _actions("listIndexes"),
    "collStats": _actions("collStats"),
    "killSessions": _of_kill_sessions,
}


def needs(name: str, command: Mapping[str, Any]) -> Actions:
    """The actions that a user must be permitted for this command."""
    if name in _FREE:
        return frozenset()
    need = _NEEDS.get(name)
    return frozenset({f"{_UNKNOWN}: {name}"}) if need is None else need(command)


class _Recorder(monitoring.CommandListener):
    def __init__(self) -> None:
        self.needed: dict[tuple[str, str], set[str]] = {}
        """Actions, by the database and the command."""
        self.collections: set[str] = set()
        """Those that commands name."""

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        actions = needs(event.command_name, event.command)
        self.needed.setdefault((event.database_name, event.command_name), set()).update(actions)
        named = event.command.get(event.command_name)
        if isinstance(named, str):
            self.collections.add(named)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


_RECORDER = _Recorder()
# For every client that is made from now on: the driver knows no other end of it than the process's.
monitoring.register(_RECORDER)


@contextmanager
def collections_named() -> Iterator[set[str]]:
    """The collections that commands to MongoDB name meanwhile."""
    _RECORDER.collections = set()
    yield _RECORDER.collections


@contextmanager
def permitted(role: Actions) -> Iterator[dict[tuple[str, str], set[str]]]:
    """Whatever is sent to MongoDB meanwhile is permitted to a user with this role in the service's database, or it
    fails.
    """
    needed = _RECORDER.needed = {}
    yield needed
    denied = {sent: actions - role for sent, actions in needed.items() if actions - role}
    assert not denied, "the documented role of MongoDB does not permit this"
    others = {database for (database, _), actions in needed.items() if actions} & {"admin", "config", "local"}
    assert not others, f"the role is given for the service's database only, and not for {others}"
