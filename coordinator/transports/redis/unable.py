"""Why a Redis that is connected does not do what it is asked: it has no memory left, takes no writes, or refuses a
right. It is asked until it does again, since nobody may ask for it otherwise meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import redis

from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.reconnecting import BrokerRefuses
from coordinator.transports.redis.connection import RedisConnection, lacks_right
from coordinator.transports.redis.driver_arguments import redis_address
from coordinator.transports.redis.keys import counter_key
from coordinator.transports.redis.scripts import ADD

_AGAIN_S: Final = 1.0
"""How often it is asked."""
_TAKES_NO_WRITES: Final = ("MISCONF", "NOREPLICAS", "BUSY ")
"""How it says so of all: it could not write a file, it has too few replicas, or a script keeps it busy."""


class Unable:
    """Used within one event loop. `where` is Redis's host and port, and `what` what it does not do."""

    def __init__(self, settings: BrokerSettings, what: str) -> None:
        address = redis_address(settings)
        where, user = str(address), address.arguments["username"] or "default"
        self._where = where
        self._user = user
        self._what = what
        self._connection: RedisConnection | None = None
        self._words = ""
        self._reason = ""

    def __bool__(self) -> bool:
        return self._connection is not None

    @property
    def words(self) -> str:
        """Why, in words for anybody."""
        return self._words

    @property
    def reason(self) -> str:
        """Why, naming Redis's host and port."""
        return self._reason

    def end(self) -> None:
        """It takes messages again, or is not connected any more."""
        self._connection = None

    def note(self, connection: RedisConnection, target: str, stream: str, error: BaseException) -> None:
        """Redis has refused a message to this stream."""
        if self._connection is not None:
            return
        if is_without_memory(error):
            self._words = "the broker has no memory left"
            self._reason = f"Redis at {self._where} {self._what}: it has no memory left (maxmemory)"
            self._ask_to_add(connection, stream)
        elif _takes_no_writes(error):
            self._words = "the broker takes no writes"
            self._reason = f"Redis at {self._where} {self._what}: {error}"
            self._ask_to_add(connection, stream)
        else:
            self.note_right(connection, _of_adding(stream, counter_key(target)), error)

    def _ask_to_add(self, connection: RedisConnection, stream: str) -> None:
        # It refuses one of this id anyway, but for such a reason first.
        asked: Sequence[Sequence[str]] = [("XADD", stream, "NOMKSTREAM", "0-0", "head", "")]
        self._connection = connection
        self._ask_later(connection, asked)

    def note_right(self, connection: RedisConnection, calls: Sequence[Sequence[str]], error: BaseException) -> None:
        """Redis has refused one of these calls. Where that is for want of a right, it is asked again."""
        if self._connection is not None or not lacks_right(error):
            return
        self._words = BrokerRefuses("").words
        self._reason = f"Redis at {self._where} {self._what}: it refuses a right to user {self._user}: {error}"
        self._connection = connection
        self._ask_later(connection, [("ACL", "DRYRUN", self._user, *words) for words in calls])

    def _ask_later(self, connection: RedisConnection, asked: Sequence[Sequence[str]]) -> None:
        asyncio.get_running_loop().call_later(_AGAIN_S, self._ask, connection, asked)

    def _ask(self, connection: RedisConnection, asked: Sequence[Sequence[str]]) -> None:
        if connection is self._connection:
            answers = asyncio.gather(*(connection.call(*words) for words in asked), return_exceptions=True)
            answers.add_done_callback(lambda done: self._on_answers(connection, asked, done))

    def _on_answers(
        self, connection: RedisConnection, asked: Sequence[Sequence[str]], done: "asyncio.Future[list[Any]]"
    ) -> None:
        if done.cancelled() or connection is not self._connection:
            return
        if any(map(_is_refusal, done.result())):
            self._ask_later(connection, asked)
        else:
            self.end()


def is_without_memory(error: BaseException) -> bool:
    return isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith("OOM")


def _takes_no_writes(error: BaseException) -> bool:
    return str(error).startswith(_TAKES_NO_WRITES)


def _of_adding(stream: str, counter: str) -> Sequence[Sequence[str]]:
    """What `ADD` does."""
    return (
        ("EVALSHA", ADD.sha, "2", stream, counter),
        ("HMGET", counter, "run"),
        ("HSET", counter, "last", "1"),
        ("XADD", stream, "*", "head", ""),
    )


def _is_refusal(answer: Any) -> bool:
    """Whether it is still so. Where a user may not ask for his rights, the next message shows it."""
    if isinstance(answer, BaseException):
        return is_without_memory(answer) or _takes_no_writes(answer)
    return bytes(answer) != b"OK"
