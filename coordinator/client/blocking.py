"""Issuing commands from programs without an event loop: Flask and Django, scripts, workers of task queues.

An asynchronous `Writes` runs in an event loop on a thread of its own. A thread that issues a command hands it to that
loop and waits. Commands that several threads issue at the same time travel as one message, as from coroutines.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from coordinator.client.writes import DEFAULT_OPTIONS, WriteOptions, Writes, Written, message_of, value_of
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.event_loop import new_event_loop
from coordinator.runtime.telling import tell
from coordinator.service.commands import Command
from coordinator.service.errors import BrokerUnavailable, ConfigurationError, CoordinatorError, OutcomeUnknown
from coordinator.service.lane_names import lane_of
from coordinator.service.options import Origin
from coordinator.service.outcome import Outcome

CONNECT_TIMEOUT_S: Final = 15.0
EXIT_TIMEOUT_S: Final = 5.0
"""How long the end of the process waits for one that was left open."""

T = TypeVar("T")

Answer = SimpleQueue[Outcome | BaseException]
"""What a thread waits for. Unlike a Future's, its waiting holds no lock that the loop's thread could need."""


class ConnectingWrites(Writes, Protocol):
    """A `Writes` that is started and closed, as `RabbitWrites` and `InProcessWrites` are."""

    async def start(self) -> None:
        """Begin to connect."""

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once commands can be issued. Raises BrokerUnavailable after that time."""

    async def close(self) -> None:
        """Disconnect."""


class BlockingWrites:
    """Issues commands for threads that wait. Any number of threads may use one at the same time.

    `make` makes the asynchronous writes: `lambda: RabbitWrites(…)`. It is called by `open`, in an event loop on a
    thread of this object's own, so nothing is connected before, and no two processes share a reply queue.

        with BlockingWrites(lambda: RabbitWrites(load(BrokerSettings), …)) as writes:
            booked = writes.execute(BookSeat(id=1, holder="ada"), Seat)

    `open` waits `connect_timeout_s` for a connection. With 0 it does not wait: a server that is to start without a
    broker gets BrokerUnavailable for each command until there is one.

    A thread and its connections do not survive a fork. A process that forks, as gunicorn does, opens one in each child
    (`post_fork`): one that was opened before the fork raises ConfigurationError in the child, and goes on in the
    parent. It is opened once, and not again after `close`. One that is not closed is closed as the process ends.

    A handler of a signal may issue commands and close it, whatever it interrupts: no thread that waits holds a lock.
    """

    def __init__(self, make: Callable[[], ConnectingWrites], *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._make = make
        self._connect_timeout_s = connect_timeout_s
        self._opening = threading.Lock()
        """Taken by the first `open`, and never given back."""
        self._pid: int | None = None
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._writes: ConnectingWrites | None = None
        self._stop = asyncio.Event()
        self._closing_error: BaseException | None = None
        self._waiting: dict[Answer, asyncio.Task[Outcome] | None] = {}
        """What threads wait for, and the tasks that bring it, once they have begun."""

    def open(self) -> None:
        """Connect. Raises ConfigurationError, and BrokerUnavailable if there is no connection within the time."""
        self._refuse_wrong_place("open")
        self._refuse_second()
        self._pid = os.getpid()
        self._loop = loop = new_event_loop()
        opened: SimpleQueue[BaseException | None] = SimpleQueue()
        # A daemon, so that a program that forgets to close it can end.
        thread = threading.Thread(target=self._run, args=(loop, opened), name="blocking writes", daemon=True)
        try:
            thread.start()
            self._thread = thread
            if self._is_closed:  # by somebody who did not see the loop yet
                self._begin_to_close()
            error = opened.get()
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()
            raise error
        atexit.register(self._close_at_exit)

    def close(self) -> None:
        """Disconnect. Threads that still wait get OutcomeUnknown; accepted commands are settled all the same.

        In a fork of the process that opened it, it does nothing. Raises what closing the asynchronous writes raises.
        """
        if self._is_of_a_parent:
            return
        atexit.unregister(self._close_at_exit)
        self._begin_to_close()
        if self._thread is not None:
            self._thread.join()
        error, self._closing_error = self._closing_error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def execute(
        self,
        command: Command,
        result: type[T],
        options: WriteOptions = DEFAULT_OPTIONS,
        *,
        origin: Origin = "public",
    ) -> Written[T]:
        """Issue a command and return its result as `result`; the options and errors are those of `execute`.

        Raises InvalidCommand, CommandRejected, CommandFailed, CommandPending, Unavailable; BrokerUnavailable once it is
        closed. Raises ConfigurationError where it cannot be used: before `open`, in a fork of the process that opened
        it, and in a thread that runs an event loop, which it would stop.

        What interrupts the waiting thread, such as KeyboardInterrupt or a handler of a signal, is raised as it is, with
        a note that names the command. The command may be applied, as after OutcomeUnknown: issued again with the same
        `command_id` or `idempotency_key` it is applied once at most.
        """
        self._refuse_wrong_place("execute")
        message = message_of(command, options, origin)
        outcome = self._outcome_of(lane_of(command.lane(), options.tenant), message, options.wait_s)
        return value_of(outcome, message.command_id or "", result)

    def _outcome_of(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        answer: Answer = SimpleQueue()
        try:
            self._hand_over(answer, lane, message, wait_s)
            outcome = answer.get()
        except CoordinatorError:
            raise
        except BaseException as interruption:
            interruption.add_note(
                f"command {message.command_id} may be applied; issued again with this id it is applied once at most"
            )
            self._abandon(answer)
            raise
        if not isinstance(outcome, BaseException):
            return outcome
        try:
            raise outcome
        finally:
            # An error's traceback has this frame, and would keep the error alive.
            del outcome

    def _hand_over(self, answer: Answer, lane: str, message: CommandMessage, wait_s: float | None) -> None:
        if self._is_closed:
            raise _not_handed_over()
        if self._loop is None or self._writes is None:
            raise ConfigurationError("these BlockingWrites are not open: use them in `with`, or call `open` first")
        # What is entered before the loop closes, `_run` answers as it ends; afterwards the loop takes nothing.
        self._waiting[answer] = None
        if not tell(self._loop, self._begin, answer, self._writes, lane, message, wait_s):
            self._waiting.pop(answer, None)
            raise _not_handed_over()

    def _abandon(self, answer: Answer) -> None:
        """Nobody waits for it any more. What was not handed over yet is not."""
        tell(self._loop, self._cancel, answer)

    def _refuse_second(self) -> None:
        if self._is_closed or not self._opening.acquire(blocking=False):
            raise ConfigurationError(
                f"this BlockingWrites was {'closed' if self._is_closed else 'opened'} already: make another one"
            )

    def _refuse_wrong_place(self, method: str) -> None:
        if self._is_of_a_parent:
            raise ConfigurationError(
                f"these BlockingWrites were opened in process {self._pid}, and have no connection in its fork"
                f" {os.getpid()}: open them in each process after it is forked (gunicorn: post_fork)"
            )
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise ConfigurationError(
            f"BlockingWrites.{method} would stop the event loop of this thread: in a coroutine, await"
            " coordinator.client.execute with the asynchronous writes; where only the application's start is one, as"
            f" with FastAPI's routes in threads, await asyncio.to_thread(writes.{method})"
        )

    @property
    def _is_of_a_parent(self) -> bool:
        """Whether a fork has it from its parent, with locks and connections that nobody here serves."""
        return self._pid is not None and self._pid != os.getpid()

    def _begin_to_close(self) -> None:
        self._is_closed = True
        tell(self._loop, self._stop.set)

    def _close_at_exit(self) -> None:
        """Only as far as it goes: Python starts no threads any more. What was accepted is safe without it."""
        if not self._is_of_a_parent and self._thread is not None:
            self._begin_to_close()
            self._thread.join(EXIT_TIMEOUT_S)

    # In the event loop's thread

    def _run(self, loop: asyncio.AbstractEventLoop, opened: "SimpleQueue[BaseException | None]") -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(opened))
        except BaseException as error:  # noqa: BLE001  # whoever opens or closes it gets the error
            self._closing_error = error
        finally:
            for answer in list(self._waiting):
                answer.put(_unknown())
            # Only the first that is put is read.
            opened.put(BrokerUnavailable("these BlockingWrites were closed before they were connected"))

    async def _serve(self, opened: "SimpleQueue[BaseException | None]") -> None:
        stopping = asyncio.ensure_future(self._stop.wait())
        connecting = asyncio.ensure_future(self._connect())
        try:
            await asyncio.wait({stopping, connecting}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                return
            if (error := connecting.exception()) is not None:
                opened.put(error)
                return
            opened.put(None)
            await stopping
        finally:
            self._is_closed = True
            # What was handed over before begins now.
            await asyncio.sleep(0)
            await end_tasks(connecting, stopping, *self._waiting.values())
            if self._writes is not None:
                await self._writes.close()

    async def _connect(self) -> None:
        writes = self._make()
        await writes.start()
        self._writes = writes
        if self._connect_timeout_s > 0:
            await writes.wait_connected(self._connect_timeout_s)

    def _begin(
        self,
        answer: Answer,
        writes: ConnectingWrites,
        lane: str,
        message: CommandMessage,
        wait_s: float | None,
    ) -> None:
        task = asyncio.ensure_future(writes.issue(lane, message, wait_s))
        self._waiting[answer] = task
        task.add_done_callback(lambda _: self._end(answer, task))

    def _end(self, answer: Answer, task: "asyncio.Task[Outcome]") -> None:
        self._waiting.pop(answer, None)
        if task.cancelled():
            answer.put(_unknown())
        else:
            answer.put(task.exception() or task.result())

    def _cancel(self, answer: Answer) -> None:
        task = self._waiting.get(answer)
        if task is not None:
            task.cancel()
        else:  # it was interrupted before it was handed over, or has ended
            self._waiting.pop(answer, None)


def _not_handed_over() -> BrokerUnavailable:
    return BrokerUnavailable("these BlockingWrites are closed: the command was not handed over")


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown("these BlockingWrites were closed before the outcome came: the command may be applied")
