"""The unit of work of a batch in the form for handlers and rules, until their command has ended."""

from datetime import datetime, timedelta
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from coordinator.lane.due_times import deadline_ms, due_time, limit_time
from coordinator.lane.misspelt_names import no_such_name
from coordinator.lane.results import Results
from coordinator.lane.resuming import resumed
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.commands import Command, encoded, version_sent
from coordinator.service.continuation import Continuation, Deferred, Emission, continued, unanswered
from coordinator.service.errors import Rejected
from coordinator.service.ids import derived_command_id, is_uuid
from coordinator.service.outcome import OutcomeError
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.service.personal import is_personal
from coordinator.service.principal import Principal
from coordinator.service.rows import Key, R, Row, Value
from coordinator.stores.passages import child_text
from coordinator.stores.row_checks import WrongUse


class _Ended:
    """What a unit of work has in the place of its batch, which is settled."""

    def __getattr__(self, name: str) -> NoReturn:
        _refuse()


def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError(
        "this unit of work is that of a command that has ended, and nothing is read or written by it any more: use the "
        "`work` that the handler is given, and keep none"
    )


class ReadingWork:
    """Implements `coordinator.service.reading.Reading`: what the rule of a command sees of a batch."""

    __slots__ = ("_batch", "find", "get")

    def __init__(self, batch: BatchWork) -> None:
        self._batch = batch
        # These are the batch's own methods: a method that passes the call on would cost as much as the call itself.
        self.get = batch.get
        self.find = batch.find

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(no_such_name(self, name))

    def _end(self) -> None:
        self._batch = _Ended()  # type: ignore[assignment]  # whatever is asked of it
        self.get = self.find = _refuse

    @property
    def now(self) -> datetime:
        return self._batch.now

    @property
    def command_id(self) -> str:
        return self._batch.command_id

    @property
    def actor(self) -> Principal | None:
        return self._batch.actor

    def select(self, model: type[R], /, *, limit: int, after: Key | None = None, **equals: Value) -> list[R]:
        return self._batch.select(model, limit=limit, after=after, **equals)

    def exists(self, model: type[R], /, **equals: Value) -> bool:
        return self._batch.exists(model, **equals)


class HandlerWork(ReadingWork):
    """Implements `coordinator.service.unit_of_work.UnitOfWork`: the part of a batch that handlers may use."""

    __slots__ = ("_results", "next_id")

    def __init__(self, batch: BatchWork, results: Results) -> None:
        super().__init__(batch)
        self._results = results
        self.next_id = batch.next_id

    def _end(self) -> None:
        super()._end()
        self.next_id = _refuse

    def add(self, row: R) -> R:
        if self._batch.kinds[type(row)].is_the_lanes:
            raise _not_a_handlers(row)
        return self._batch.add(row)

    def save(self, row: R) -> R:
        if self._batch.kinds[type(row)].is_the_lanes:
            raise _not_a_handlers(row)
        return self._batch.save(row)

    def remove(self, row: Row) -> None:
        if self._batch.kinds[type(row)].is_the_lanes:
            raise _not_a_handlers(row)
        self._batch.remove(row)

    def emit(
        self,
        command: Command,
        *,
        continuation: type[Continuation] | None = None,
        after: timedelta | None = None,
        at: datetime | None = None,
        limit: timedelta | None = None,
    ) -> str:
        if not isinstance(command, Command):
            raise TypeError(f"emit takes a command, and was given {command!r:.100}")
        batch = self._batch
        lane = batch.targets.of(command.lane())
        self._results.check_handled(lane, type(command))
        arguments = encoded(command)
        version = version_sent(command)
        parent = f"{batch.targets.scope}{batch.command_type} {batch.command_id}"
        kind = command.type if version is None else f"{command.type} {version}"
        command_id = derived_command_id(parent, batch.emitted, f"{kind}\n".encode() + arguments, batch.secret)
        batch.emitted += 1
        batch.children.append(child_text(lane, command.type, command_id))
        if continuation is not None:
            batch.targets.check_answer(f"{command.type} with the continuation {continuation.type}", lane)
            self._results.check_handled(batch.targets.of(continuation.lane()), continuation)
        due_at = batch.now if after is None and at is None else due_time(batch.now, after, at)
        over_at = None if limit is None else limit_time(due_at, limit)
        options = batch.options_of_emitted(version)
        if over_at is not None:
            options = msgspec.structs.replace(options, deadline_ms=deadline_ms(over_at))
        emission = Emission(
            lane=lane,
            command_id=command_id,
            type=command.type,
            arguments=arguments,
            continuation=None if continuation is None else continuation.type,
            options=options,
        )
        stays = after is not None or at is not None or lane.startswith(EFFECTS_PREFIX)
        # Other commands are in the outbox for a moment only, and their lanes know themselves whose they are.
        if stays and is_personal(type(command)):
            batch.personal_emitted.append(command_id)
        if after is None and at is None:
            batch.send_out(emission)
        else:
            batch.set_timer(emission, due_at, command_id)
        if limit is not None and over_at is not None:
            if continuation is None:
                raise TypeError(f"{command.type}: a `limit` is for the answer, so it needs a `continuation`")
            awaited = Deferred(
                command_id=command_id,
                type=command.type,
                continuation=continuation.type,
                actor=batch.actor,
                traceparent=emission.options.traceparent,
                tracestate=emission.options.tracestate,
            )
            batch.set_timer(unanswered(awaited, limit), over_at, command_id)
        return command_id

    def cancel(self, command_id: str) -> bool:
        if not isinstance(command_id, str) or not is_uuid(command_id):
            raise ValueError(f"`cancel` takes the id that `emit` has returned, not {command_id!r:.100}")
        return any(timer.command_id == command_id for timer in self._batch.take_back(command_id))

    def defer(self) -> Deferred | None:
        continuation = self._batch.continuation
        self._batch.is_deferred = continuation is not None
        return continuation

    def resume(self, deferred: Deferred, outcome: Struct | Rejected | None) -> None:
        deferred = resumed(deferred, self._batch.options_of_emitted(None))
        if isinstance(outcome, Rejected):
            emission = continued(deferred, "rejected", None, OutcomeError(code=outcome.code, message=str(outcome)))
        else:
            result = self._results.encoded(deferred.type, outcome, self._batch)
            emission = continued(deferred, "applied", result, None)
        self._batch.send_out(emission)
        target = self._batch.targets.of(emission.lane)
        self._batch.children.append(child_text(target, emission.type, emission.command_id))


def end(*works: ReadingWork) -> None:
    """The commands of a batch have ended: whoever has kept one of these is told so when it is asked for anything."""
    for work in works:
        work._end()  # noqa: SLF001  # it is nothing that a handler has


_CALLED: tuple[Any, ...] = (
    *(BatchWork.get, BatchWork.find, BatchWork.next_id, HandlerWork.select, HandlerWork.exists),
    *(HandlerWork.add, HandlerWork.save, HandlerWork.remove),
    *(HandlerWork.emit, HandlerWork.cancel, HandlerWork.defer, HandlerWork.resume),
)
for _method in _CALLED:
    # Python names a method so if its arguments are wrong: the author of a handler knows it by this name.
    _method.__qualname__ = f"work.{_method.__name__}"


def _not_a_handlers(row: Row) -> WrongUse:
    return WrongUse(f"{row.table} is the lane's own table: a handler has emit, next_id and defer for it")
