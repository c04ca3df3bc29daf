"""What the rule of a command sees of a batch: its rows, and nothing that changes them."""

from datetime import datetime

from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.principal import Principal
from coordinator.service.rows import Key, R, Value


class ReadingWork:
    """Implements `coordinator.service.reading.Reading`."""

    __slots__ = ("_batch", "find", "get")

    def __init__(self, batch: BatchWork) -> None:
        self._batch = batch
        self.get = batch.get
        self.find = batch.find

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
