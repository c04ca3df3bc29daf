"""The way in for operators to the lanes of a process that has no broker: a Unix socket beside a lane's SQLite file.

Whoever may open it may write that file, too: so commands of the system itself are taken here, as from the system
exchange of a broker. Each message, in both directions, is its length (4 bytes, big-endian) and JSON.
"""

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias, get_args

import msgspec
import structlog
from msgspec import Struct

from coordinator.client.writes import Writes
from coordinator.lane.delivery import SuspensionCause
from coordinator.lane.high_water import LastCommand
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.own_descriptors import own_socket
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandPending,
    ConfigurationError,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from coordinator.service.outcome import Outcome
from coordinator.transports.inprocess.at_hand import AtHand, CallsAtHand

_LENGTH_BYTES: Final = 4
_PATH_BYTES: Final = 107 if sys.platform == "linux" else 103
_MESSAGE_BYTES_MAX: Final = 64 << 20
_BACKLOG: Final = 64
ANSWERED_WITHIN_S: Final = 2.0
"""How long a process is asked how a lane does. It says at once what it knows."""
TAKEN_WITHIN_S: Final = 10.0
"""How long a process may take to have an order safe, beyond the time that its issuer waits for the outcome."""
_CLOSED_WITHIN_S: Final = 1.0
_TURNS: Final = 4
"""Of its loop, in which asyncio hands over what it has accepted, and closes it."""

log = structlog.get_logger("inprocess")


class _Issue(Struct, frozen=True, tag="issue"):
    """Issue a command, and wait so long for its outcome."""

    number: int
    lane: str
    message: CommandMessage
    wait_s: float | None


class _Count(Struct, frozen=True, tag="count"):
    """Count the commands that wait for a lane."""

    number: int
    lane: str


class _Settled(Struct, frozen=True, tag="settled"):
    number: int
    outcome: Outcome


class _Counted(Struct, frozen=True, tag="counted"):
    number: int
    commands: int
    suspended: str | None = None
    unwritable: str | None = None
    mark: int | None = None
    holder: str | None = None
    calls: CallsAtHand | None = None
    cause: str | None = None
    lineage: str | None = None
    last: LastCommand | None = None


class _Unanswered(Struct, frozen=True, tag="refused"):
    """The code of an error below, and its words."""

    number: int
    code: str
    text: str
    field: str | None = None


_Question: TypeAlias = _Issue | _Count
_Answer: TypeAlias = _Settled | _Counted | _Unanswered

_PENDING: Final = "pending"
_INVALID: Final = "invalid"
_UNAVAILABLE: Final[dict[str, type[Unavailable]]] = {
    kind.code: kind for kind in (BrokerUnavailable, OutcomeUnknown, Overloaded)
}
_questions: Final = msgspec.json.Decoder(_Question)
_answers: Final = msgspec.json.Decoder(_Answer)


class Lanes(Writes, Protocol):
    """The lanes of the process that listens."""

    def at_hand(self, lane: str) -> AtHand:
        """What it knows of a lane. Raises BrokerUnavailable where it does not run it."""


def socket_beside(database: Path) -> Path:
    """The path of the socket."""
    return Path(f"{database}-operators")


def check_path(path: Path) -> None:
    """Raises ConfigurationError if no socket can have this path."""
    size_bytes = len(os.fsencode(_shortest(path)))
    if size_bytes > _PATH_BYTES:
        raise ConfigurationError(
            f"{path} cannot be the socket for operators: its path is too long, {size_bytes} bytes where the "
            f"system takes {_PATH_BYTES}; choose another folder (--dir)"
        )


def is_listening(path: Path) -> bool:
    """Whether a process listens there, also one that hangs: one that was killed has left the socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_shortest(path))
        except BlockingIOError:
            # So many others ask.
            return True
        except OSError:
            return False
    return True


@asynccontextmanager
async def operators_socket(path: Path, lanes: Lanes) -> AsyncIterator[None]:
    """Listen there, for this user alone. The caller must be the only process that has the database.

    Raises ConfigurationError.
    """
    door = _Door(lanes)
    with own_socket(_bound(path)) as bound:
        server = await asyncio.start_unix_server(door.open, sock=bound, backlog=_BACKLOG)
        # A connection that asyncio has accepted, and not handed over by the end, would be left open.
        with closing(server):
            try:
                yield
            finally:
                asyncio.get_running_loop().remove_reader(bound)
                _remove(path)
                await door.close()


def _bound(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    try:
        _remove(path)
        bound.bind(_shortest(path))
        # Nobody can connect before it listens.
        path.chmod(0o600)
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"{path} cannot be the socket for operators: {error}; if its path is too long for one, choose another "
            "folder (--dir)"
        ) from error
    return bound


def _remove(path: Path) -> None:
    """A process that was killed has left it."""
    path.unlink(missing_ok=True)


class _Door:
    """Answers what comes in by the socket."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._serving: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one operator."""
        if self._is_closed:
            writer.transport.abort()
            return
        serving = asyncio.create_task(self._serve(reader, writer), name="an operator's commands")
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        # A task that is cancelled before it has begun closes nothing.
        serving.add_done_callback(lambda _: writer.transport.abort())

    async def close(self) -> None:
        """Leave those who wait for an outcome: their commands are where they are."""
        self._is_closed = True
        await end_tasks(*self._serving)
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Each in a task of its own, begun in the order in which they came: so they reach the lane in that order.
            async with asyncio.TaskGroup() as tasks:
                while (content := await _read(reader)) is not None:
                    tasks.create_task(self._answer(_questions.decode(content), writer))
        except* (OSError, msgspec.MsgspecError, asyncio.IncompleteReadError) as error:
            log.info("operator_gone", reason=str(error.exceptions[0]))
        finally:
            await _close(writer)

    async def _answer(self, asked: _Question, writer: asyncio.StreamWriter) -> None:
        await _write(writer, msgspec.json.encode(await self._answer_to(asked)))

    async def _answer_to(self, asked: _Question) -> _Answer:
        try:
            if isinstance(asked, _Count):
                return _Counted(asked.number, *self._lanes.at_hand(asked.lane))
            return _Settled(asked.number, await self._lanes.issue(asked.lane, asked.message, asked.wait_s))
        except CommandPending:
            return _Unanswered(asked.number, _PENDING, "")
        except InvalidCommand as error:
            return _Unanswered(asked.number, _INVALID, str(error), error.field)
        except Unavailable as error:
            return _Unanswered(asked.number, error.code, str(error))


class _Gone(Exception):
    """The other side has closed, and has not answered."""


class SocketWrites:
    """Implements `Writes` over the socket of another process. Used as an asynchronous context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._stack = AsyncExitStack()
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        try:
            reader, self._writer = await asyncio.open_unix_connection(_shortest(self._path))
        except OSError as error:
            raise BrokerUnavailable(
                f"no process takes orders for this lane: nothing listens at {self._path} ({error.strerror or error}); "
                "start it (`coordinator dev`), and try again. An application with the lane in its process takes none"
            ) from error
        self._stack.callback(self._writer.close)
        reading = asyncio.create_task(self._read(reader), name="answers of the operators' socket")
        self._stack.callback(reading.cancel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        try:
            async with asyncio.timeout(None if wait_s is None else wait_s + TAKEN_WITHIN_S):
                answer = await self._ask(lambda number: _Issue(number, lane, message, wait_s))
        except TimeoutError:
            raise self._unknown("listens", "does not answer", message) from None
        except _Gone:
            raise self._unknown("listened", "is gone", message) from None
        if isinstance(answer, _Settled):
            return answer.outcome
        raise _error_of(answer, message.command_id or "")

    async def at_hand(self, lane: str) -> AtHand:
        """What the process knows of a lane. Raises BrokerUnavailable."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                answer = await self._ask(lambda number: _Count(number, lane))
        except TimeoutError:
            raise BrokerUnavailable(
                f"the process that runs lane {lane} does not answer at {self._path} (for {ANSWERED_WITHIN_S:g} s)"
            ) from None
        except _Gone:
            raise BrokerUnavailable(f"the process that ran lane {lane}, at {self._path}, is gone") from None
        if isinstance(answer, _Counted):
            known = answer.commands, answer.suspended, answer.unwritable, answer.mark, answer.holder, answer.calls
            cause = next((each for each in get_args(SuspensionCause) if each == answer.cause), None)
            return AtHand(*known, cause, answer.lineage, answer.last)
        raise _error_of(answer, "")

    async def _ask(self, question: Callable[[int], _Question]) -> _Answer:
        number = next(self._numbers)
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if self._writer is None:
                raise BrokerUnavailable("the operators' socket is not open")
            try:
                await _write(self._writer, msgspec.json.encode(question(number)))
            except OSError as error:
                raise _Gone from error
            return await answer
        finally:
            del self._waiting[number]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while (content := await _read(reader)) is not None:
                answer = _answers.decode(content)
                if (waiting := self._waiting.get(answer.number)) is not None and not waiting.done():
                    waiting.set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Gone())

    def _unknown(self, what: str, why: str, message: CommandMessage) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the process that {what} at {self._path} {why}: command {message.command_id} may be applied. The same "
            "again is safe with the same id: an order has it by itself, `coordinator send` takes it as --id"
        )


def _error_of(answer: _Answer, command_id: str) -> Exception:
    if not isinstance(answer, _Unanswered):
        return BrokerUnavailable(f"the process answered with {type(answer).__name__}: it is of another release")
    if answer.code == _PENDING:
        return CommandPending(command_id)
    if answer.code == _INVALID:
        return InvalidCommand(answer.text, field=answer.field)
    return _UNAVAILABLE.get(answer.code, BrokerUnavailable)(answer.text)


def _shortest(path: Path) -> str:
    """A socket's path has room for some hundred bytes only."""
    return min(str(path), os.path.relpath(path), key=len)


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """One message; None: the other side has closed. Raises OSError, asyncio.IncompleteReadError."""
    try:
        head = await reader.readexactly(_LENGTH_BYTES)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise
    length = int.from_bytes(head, "big")
    if length > _MESSAGE_BYTES_MAX:
        raise OSError(f"a message of {length} bytes is too long")
    return await reader.readexactly(length)


async def _close(writer: asyncio.StreamWriter) -> None:
    """What was written is sent, if the other side reads it."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSED_WITHIN_S):
            await writer.wait_closed()
    writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
    await writer.drain()
