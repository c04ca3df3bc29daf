"""The sagas that a process has declared, by the class of their rows: whoever looks for a flow finds its steps by it."""

from typing import Final

from msgspec import Struct

from coordinator.service.continuation import Continuation
from coordinator.service.rows import Row


class DeclaredSaga(Struct, frozen=True):
    """A saga's name, as its steps have it; what the outcomes of its steps become; and its steps, in their order."""

    name: str
    continuation: type[Continuation]
    steps: tuple[str, ...]


_known: Final[dict[type[Row], DeclaredSaga]] = {}


def note_saga(model: type[Row], saga: DeclaredSaga) -> None:
    """Remember the saga that has its flows in rows of this class."""
    _known[model] = saga


def saga_of(model: type[Row]) -> DeclaredSaga | None:
    """The saga that has its flows in rows of this class; None: none was declared."""
    return _known.get(model)
