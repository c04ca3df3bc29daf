"""Rows: immutable records of one table (or collection), and references to them.

A row's class names its table, its key and its unique columns, and says nothing else about storage. The lane's stores
and the repositories map it to SQL columns or to document fields of the same names (in MongoDB the key is `_id`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeAlias, TypeVar, dataclass_transform
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.service.declared import DeclaredMeta, undescribed
from coordinator.service.principal import Principal

KeyPart: TypeAlias = int | str | UUID
"""The types of the columns of keys, and of unique columns."""
Key: TypeAlias = KeyPart | tuple[KeyPart, ...]
"""By what rows are found: a key of several columns is a tuple, in their order."""
Value: TypeAlias = KeyPart | bool | Decimal | date | Enum | None
"""By what rows are selected: the types of columns of an index. A datetime is a date."""

SELECTED_MAX: Final = 1000
"""The most rows of one selection."""


class Digits(Struct, frozen=True):
    """How many digits a decimal has, and how many of them after the point: `Annotated[Decimal, Digits(12, 2)]`.

    At most 34, and 30 after the point. Raises ValueError.
    """

    precision: int
    scale: int

    def __post_init__(self) -> None:
        if not 1 <= self.precision <= DIGITS_MAX or not 0 <= self.scale <= min(self.precision, _SCALE_MAX):
            limits = f"at most {DIGITS_MAX} digits in all, and {_SCALE_MAX} of them after the point"
            turned = f"; Digits({self.scale}, {self.precision}) has {self.precision} of {self.scale} after it"
            hint = turned if 0 <= self.precision < self.scale <= DIGITS_MAX else ""
            raise ValueError(f"Digits({self.precision}, {self.scale}): {limits}{hint}")


DIGITS_MAX: Final = 34
"""The most digits that MongoDB keeps."""
_SCALE_MAX: Final = 30
"""The most digits after the point that MySQL keeps."""
DIGITS: Final = Digits(34, 10)
"""The digits of a decimal that says nothing of them."""


if TYPE_CHECKING:
    from sqlalchemy import Table
else:
    # The command line alone does not load SQLAlchemy.
    Table = Any

if TYPE_CHECKING:
    # What a type checker needs to know of the metaclass below.
    @dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
    class _DeclaredRow(Struct, frozen=True, kw_only=True):
        def __init_subclass__(
            cls,
            *,
            table: str | Table | type[Any] = "",
            key: str | tuple[str, ...] = "",
            unique: tuple[str, ...] = (),
            index: tuple[str | tuple[str, ...], ...] = (),
            audited: bool = False,
            review: tuple[str, str | int | Enum] | None = None,
            frozen: bool = True,
            kw_only: bool = True,
        ) -> None: ...

else:

    class _RowMeta(DeclaredMeta):
        keywords = ("table", "key", "unique", "index", "audited", "review")
        attributes: ClassVar[Mapping[str, str]] = {"audited": "__audited__", "review": "__review__"}

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
            if "table" in options:
                # Of an SQLAlchemy `Table`, or a mapped class, which has one: nothing here loads SQLAlchemy.
                table = getattr(options["table"], "__table__", options["table"])
                if hasattr(table, "columns"):
                    options["table"] = str(getattr(table, "name", ""))
                    namespace["__table__"] = table
                else:
                    namespace["__table__"] = None
            made = super().__new__(cls, name, bases, namespace, **options)
            if "key" in options:
                with suppress(TypeError):
                    # A key that is none is found with the other defects.
                    made.__key_of__ = attrgetter(*_names(options["key"]))
            return made

    class _DeclaredRow(Struct, metaclass=_RowMeta):
        pass


class Row(_DeclaredRow):
    """One row. Changing it means saving another with the same key.

        class Seat(VersionedRow, table="seats", key="id", unique=("code",)):
            id: int
            code: str
            holder: str | None = None

    `table` names its table or collection, `key` the column by which a row is found, or several as a tuple, `unique` the
    other columns of which no two rows have the same value. `index` names the columns by whose values rows are selected
    (`where`): each entry is a column, or several as a tuple. docs/API.md lists the types of fields ("The tables of a
    service").

    With `audited=True` the lane keeps of every command which rows of the class it has changed, for `coordinator audit`.
    `review=("status", "needs_review")` names a column and the value at which a person has to look at the row: the lane
    counts each that comes to it, and logs its key, and its `reason_code` where the class has that field.

    A `table` that is there already may be given as SQLAlchemy's `Table`, or as a class that is mapped to one.
    """

    __table__: ClassVar[Table | None] = None
    __key_of__: ClassVar[Any]
    __audited__: ClassVar[bool] = False
    __review__: ClassVar[tuple[str, str | int | Enum] | None] = None
    __index_is_needed__: ClassVar[bool] = True
    """False: its indexes are made with its table, and a table of before does without them."""
    __leads_to__: ClassVar["Leads | None"] = None
    """What a handler that names a row of this class will look at once it has the row: a batch reads it in one go."""
    table: ClassVar[str]
    key: ClassVar[str | tuple[str, ...]]
    unique: ClassVar[tuple[str, ...]] = ()
    index: ClassVar[tuple[str | tuple[str, ...], ...]] = ()

    @classmethod
    def at(cls, *key: KeyPart, **unique: KeyPart) -> "Ref[Self]":
        """The row with this key, or the one that has this value in a unique column: `User.at(email="ada@example.org")`.

        A key of several columns is given in their order, `Line.at(7, 2)`, or by their names. Raises WrongReference, a
        TypeError, unless exactly one of them is given, whole.
        """
        columns = cls.key
        if key and not unique:
            if isinstance(columns, str):
                if len(key) == 1 and key[0] is not None:
                    return Ref(cls, columns, key[0])
            elif len(key) == len(columns):
                return Ref(cls, columns, key)
        if not key and len(unique) == 1:
            ((column, value),) = unique.items()
            if column == columns or column in cls.unique:
                return Ref(cls, column, value)
        elif not key and unique.keys() == {*columns}:
            return Ref(cls, columns, tuple(unique[column] for column in columns))
        raise WrongReference(_not_at(cls, unique))

    @classmethod
    def where(cls, *, limit: int, after: Key | None = None, **equals: Value) -> "RowSelection[Self]":
        """The first `limit` rows with these values, in order of their keys: `Line.where(order_id=7, limit=100)`.

        With `after`, those with a higher key. The columns are those of an index, or the first ones of an index; the key
        and each unique column are indexes, too, and rows without a condition are in order of the key.

        Raises TypeError where no index has the columns, or for a limit that is not from 1 to `SELECTED_MAX`.
        """
        columns = tuple(sorted(equals))
        where = tuple((column, equals[column]) for column in columns)
        if not _may_be_none(cls, columns) and None in equals.values():
            raise WrongSelection(
                f"{cls.__name__}: rows without a {columns[0]} are selected by an index only: add it to its `index`"
            )
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"{cls.__name__}: limit={limit!r:.100} is no number of rows")
        if not 1 <= limit <= SELECTED_MAX:
            raise WrongSelection(f"{cls.__name__}: limit={limit}: a selection has from 1 to {SELECTED_MAX} rows")
        return RowSelection(cls, where, limit, after)

    def personal_of(self) -> "Ref[Row]":
        """Whose personal data this row has, if its class has `Personal` fields: by default the row is the person.

        A class of rows that belong to somebody returns that row: `return User.at(self.user_id)`. It sees nothing but
        the row.
        """
        model = type(self)
        return Ref(model, model.key, key_of(self))

    @classmethod
    def personal_to(cls, who: Principal) -> "Mapping[str, Value] | None":  # noqa: ARG003  # classes that say it use it
        """Which rows are the principal's own, by values of columns of an index: `return {"holder": who.subject}`.

        `coordinator forget LANE --actor SUBJECT` takes out what all commands have left of these, whoever asked for
        them. None, the default: the class does not say. A class with a `personal_of` of its own is not asked.
        """
        return None

    def replace(self, **changes: Any) -> Self:
        """This row with other values in some fields. Raises TypeError for a name that is none of its fields."""
        return msgspec.structs.replace(self, **changes)


class VersionedRow(Row):
    """A row that clients may change if it has a given version. The unit of work counts the version up."""

    version: int = 1


V = TypeVar("V", bound=VersionedRow)


def next_version(row: V, now: VersionedRow) -> V:
    """A changed row with the version that it gets.

    Raises ValueError for an older copy than that of now: it would take back what was saved since.
    """
    if row.version != now.version:
        named = f"{row.table} {key_of(row)!r} has version {now.version} by now, and this row is a copy of {row.version}"
        raise ValueError(f"{named}: go on with what `save`, or `get`, has returned last")
    return msgspec.structs.replace(row, version=now.version + 1)


def _not_at(model: type[Row], given: Collection[str]) -> str:
    columns, name = model.key, model.__name__
    wrong = next((column for column in given if column not in (*key_columns(model), *model.unique)), None)
    if wrong is not None:
        known = ", ".join(map(repr, (columns, *model.unique)))
        return f"{name} is found by {known}, and {wrong!r:.100} is none of them: name it in `unique` of {name}"
    named = "a key" if isinstance(columns, str) else f"a whole key ({', '.join(columns)})"
    return f"{name}.at takes {named}, or one unique column by its name"


def text_columns(model: type[Row]) -> tuple[str, ...]:
    """The fields of a model that hold text, or text or nothing."""
    text = msgspec.inspect.StrType
    types = {field.name: field.type for field in msgspec.inspect.type_info(model).fields}  # type: ignore[attr-defined]
    return tuple(
        name
        for name, type_ in types.items()
        if any(isinstance(undescribed(each), text) for each in getattr(undescribed(type_), "types", (type_,)))
    )


R = TypeVar("R", bound=Row)
R_co = TypeVar("R_co", bound=Row, covariant=True)


class Ref(Struct, Generic[R_co], frozen=True):
    """Names the row of `model` whose `column` (its key, or a unique column) is `value`. `Row.at` makes it.

    A key of several columns is a tuple of their names, and its value a tuple, too.
    """

    model: type[R_co]
    column: str | tuple[str, ...]
    value: Key


def shown_key(key: Key) -> str:
    """A key for people: `17`, and of several columns `kim/17`."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


class WrongReference(TypeError):
    """Raised for a reference by what is neither the key nor a unique column, whatever its values are."""


class WrongSelection(TypeError):
    """Raised for a selection that no index serves, or that has no sound limit, whatever its values are."""


class RowSelection(Struct, Generic[R_co], frozen=True):
    """Names the first `limit` rows of `model` that have these values, by column, in order of their keys.

    With `after` only those with a higher key. `Row.where` makes it. Among the references of a handler's `reads` it
    stands as one without a column.
    """

    model: type[R_co]
    where: tuple[tuple[str, Value], ...]
    limit: int
    after: Key | None = None

    @property
    def column(self) -> str:
        """No column."""
        return ""

    @property
    def value(self) -> "RowSelection[R_co]":
        """Itself."""
        return self


Leads = Callable[[Any, Sequence[type[Row]]], Iterable[Ref[Row] | RowSelection[Row]]]
"""The rows to which a row leads, among those of some classes."""


def key_of(row: Row) -> Key:
    """The value of a row's key."""
    key: Key = row.__key_of__(row)
    return key


def ref_of(row: R) -> "Ref[R]":
    """Names the row under a row's key."""
    return Ref(type(row), row.key, key_of(row))


def needs_review(row: Row) -> bool:
    """Whether a person has to look at a row, as its class says."""
    declared = row.__review__
    return declared is not None and bool(getattr(row, declared[0]) == declared[1])


def key_columns(model: type[Row]) -> tuple[str, ...]:
    """The columns of a model's key."""
    return _names(model.key)


def _names(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def is_selected(model: type[Row]) -> bool:
    """Whether rows of a model are selected by an index: its own, or a key of several columns.

    Then the database has to have it, and put texts in Python's order.
    """
    return (bool(model.index) and model.__index_is_needed__) or not isinstance(model.key, str)


def indexes_of(model: type[Row]) -> tuple[tuple[str, ...], ...]:
    """The columns of each index that a model declares, beside its key and its unique columns."""
    return tuple((each,) if isinstance(each, str) else tuple(each) for each in model.index)


def ordered_index(model: type[Row], columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of one of them, and behind these the columns of the key that it does not have: of the rows with the
    same values in its own columns it then has the order of the key."""
    return (*columns, *(column for column in key_columns(model) if column not in columns))


def indexed_columns(model: type[Row]) -> frozenset[str]:
    """The columns of all of them, and those of a key of several columns, which is an index, too."""
    found = frozenset(column for columns in indexes_of(model) for column in columns)
    return found if isinstance(model.key, str) else found | frozenset(model.key)


@cache
def _may_be_none(model: type[Row], columns: tuple[str, ...]) -> bool:
    """Whether the index that serves a selection by these columns has rows without a value, too.

    Raises WrongSelection if there is no such index.
    """
    declared, key = indexes_of(model), key_columns(model)
    if not columns and not is_selected(model) and model.key in text_columns(model):
        # Only with an index its keys are known to have one order in Python and in the database.
        raise WrongSelection(
            f"{model.__name__}: its key is a text, so its rows have an order only if it has an `index`"
        )
    if any(set(index[: len(columns)]) == set(columns) for index in declared):
        return True
    if columns in ((), *((unique,) for unique in model.unique)):
        return not columns
    if set(key[: len(columns)]) == set(columns):
        return False
    unknown = [column for column in columns if column not in model.__struct_fields__]
    if unknown:
        raise WrongSelection(f"{model.__name__} has no field {', '.join(unknown)}")
    known = [*declared, key, *((unique,) for unique in model.unique)]
    raise WrongSelection(
        f"{model.__name__} has no index that begins with {', '.join(columns)}: name them in `index` of its class; "
        f"its indexes are {', '.join('(' + ', '.join(index) + ')' for index in known)}"
    )
