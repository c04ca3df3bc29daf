"""The last step of a saga, which is a function of the owner's own, and no command of another lane."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from coordinator.service.rows import Row, key_of
from coordinator.service.unit_of_work import UnitOfWork

S = TypeVar("S", bound=Row)
Finish: TypeAlias = Callable[[UnitOfWork, S], S | None]
"""Returns the saga's row with what it notes there, or None: the row is as it was."""


def finished(saga: str, finish: Finish[S], work: UnitOfWork, row: S) -> S:
    """The row as `finish` leaves it.

    Raises TypeError if it has saved the saga's row itself, which the saga saves behind it, or returns another one.
    """
    model, key = type(row), key_of(row)
    before = work.get(model, key)
    returned = finish(work, row)
    changed = row if returned is None else returned
    if work.get(model, key) != before or not isinstance(changed, model) or key_of(changed) != key:
        raise TypeError(
            f"`finish` of saga {saga} has saved the saga's own row, or returns another one: let it return the row "
            "with what it notes there, `return row.replace(…)`, or None; the saga saves it"
        )
    return changed
