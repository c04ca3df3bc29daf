"""Rows: immutable records of one table (or collection), and references to them.

A row's class names its table, its key and its unique columns, and says nothing else about storage. The lane's stores
and the repositories map it to SQL columns or to document fields of the same names (in MongoDB the key is `_id`).
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeAlias, TypeVar, dataclass_transform
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.service.declared import DeclaredMeta

Key: TypeAlias = int | str | UUID
"""By what rows are found: the types of keys and unique columns."""


class Digits(Struct, frozen=True):
    """How many digits a decimal has, and how many of them after the point: `Annotated[Decimal, Digits(12, 2)]`.

    At most 34, and 30 after the point. Raises ValueError.
    """

    precision: int
    scale: int

    def __post_init__(self) -> None:
        if not 1 <= self.precision <= DIGITS_MAX or not 0 <= self.scale <= min(self.precision, _SCALE_MAX):
            limits = f"at most {DIGITS_MAX} digits, and {_SCALE_MAX} of them after the point"
            raise ValueError(f"Digits({self.precision}, {self.scale}): {limits}")


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
            key: str = "",
            unique: tuple[str, ...] = (),
            frozen: bool = True,
            kw_only: bool = True,
        ) -> None: ...

else:

    class _RowMeta(DeclaredMeta):
        keywords = ("table", "key", "unique")

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
            if "table" in options:
                # Of an SQLAlchemy `Table`, or a mapped class, which has one: nothing here loads SQLAlchemy.
                table = getattr(options["table"], "__table__", options["table"])
                if hasattr(table, "columns"):
                    options["table"] = str(getattr(table, "name", ""))
                    namespace["__table__"] = table
                else:
                    namespace["__table__"] = None
            return super().__new__(cls, name, bases, namespace, **options)

    class _DeclaredRow(Struct, metaclass=_RowMeta):
        pass


class Row(_DeclaredRow):
    """One row. Changing it means saving another with the same key.

        class Seat(VersionedRow, table="seats", key="id", unique=("code",)):
            id: int
            code: str
            holder: str | None = None

    `table` names its table or collection, `key` the column by which a row is found, `unique` the other columns of which
    no two rows have the same value. docs/API.md lists the types of fields ("The tables of a service").

    A `table` that is there already may be given as SQLAlchemy's `Table`, or as a class that is mapped to one.
    """

    __table__: ClassVar[Table | None] = None
    table: ClassVar[str]
    key: ClassVar[str]
    unique: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def at(cls, key: Key | None = None, /, **unique: Key) -> "Ref[Self]":
        """The row with this key, or the one that has this value in a unique column: `User.at(email="ada@example.org")`.

        Raises TypeError unless exactly one of them is given.
        """
        if key is not None and not unique:
            return Ref(cls, cls.key, key)
        if key is not None or len(unique) != 1:
            raise TypeError(f"{cls.__name__}.at takes a key, or one unique column by its name")
        ((column, value),) = unique.items()
        return Ref(cls, column, value)

    def replace(self, **changes: Any) -> Self:
        """This row with other values in some fields. Raises TypeError for a name that is none of its fields."""
        return msgspec.structs.replace(self, **changes)


class VersionedRow(Row):
    """A row that clients may change if it has a given version. The unit of work counts the version up."""

    version: int = 1


def text_columns(model: type[Row]) -> tuple[str, ...]:
    """The fields of a model that hold text, or text or nothing."""
    text = msgspec.inspect.StrType
    types = {field.name: field.type for field in msgspec.inspect.type_info(model).fields}  # type: ignore[attr-defined]
    return tuple(
        name
        for name, type_ in types.items()
        if any(isinstance(each, text) for each in getattr(type_, "types", (type_,)))
    )


R = TypeVar("R", bound=Row)
R_co = TypeVar("R_co", bound=Row, covariant=True)


class Ref(Struct, Generic[R_co], frozen=True):
    """Names the row of `model` whose `column` (its key, or a unique column) is `value`. `Row.at` makes it."""

    model: type[R_co]
    column: str
    value: Key
