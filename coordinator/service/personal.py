"""Personal data: which fields have it, and whose it is.

    class Guest(VersionedRow, table="guests", key="id", unique=("email",)):
        id: int
        email: Personal[str]

The mark changes nothing of a field: a type checker, JSON and the column see the plain type. The lane remembers which
commands have left personal data of whom (`coordinator/lane/subjects.py`), so that `coordinator forget` finds it.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypeAlias, TypeVar, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from coordinator.service.rows import Ref, Row

C = TypeVar("C")
T = TypeVar("T")


class _PersonalMark:
    """Marks a field of a row or of a command as personal."""

    def __repr__(self) -> str:
        return "Personal"


_MARK: Final = _PersonalMark()

Personal: TypeAlias = Annotated[T, _MARK]
"""A value that says something of a person: `name: Personal[Name]`."""

_known: Final[WeakKeyDictionary[type[Any], bool]] = WeakKeyDictionary()
"""What was found of each class: a handler asks for each command that it emits."""

Whose: TypeAlias = Callable[[C], Ref[Row] | Iterable[Ref[Row]]]
"""A handler's `of`: the rows of those whose data a command has."""


def personal_fields(declared: type[Any]) -> tuple[str, ...]:
    """The names of the fields of a row, or of a command, that are marked. Raises what unreadable annotations raise."""
    return tuple(name for name, hint in get_type_hints(declared, include_extras=True).items() if _is_marked(hint))


def is_personal(declared: type[Any]) -> bool:
    """Whether a class has such a field; False for one whose annotations cannot be read, which is a defect."""
    found = _known.get(declared)
    if found is None:
        found = _known[declared] = _is_personal(declared)
    return found


def _is_personal(declared: type[Any]) -> bool:
    try:
        return bool(personal_fields(declared))
    except (NameError, TypeError, SyntaxError):
        return False


def _is_marked(hint: Any) -> bool:
    if get_origin(hint) is Annotated and _MARK in hint.__metadata__:
        return True
    return any(_is_marked(part) for part in get_args(hint))
