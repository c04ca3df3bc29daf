"""What a column keeps, in a form in which a declared one is comparable with one that a database has."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import (
    BINARY,
    CHAR,
    JSON,
    REAL,
    VARBINARY,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Enum,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Time,
    Uuid,
)
from sqlalchemy.dialects.mysql import LONGBLOB, MEDIUMBLOB, TINYBLOB
from sqlalchemy.types import BigInteger, NullType, TypeEngine

from coordinator.stores.sql.column_types import type_at

SINGLE: Final = 24
DOUBLE: Final = 53
"""The bits of a float's digits."""
_BITS: Final = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24}
_BYTES: Final = {
    "TINYTEXT": 255,
    "TEXT": 2**16 - 1,
    "MEDIUMTEXT": 2**24 - 1,
    "LONGTEXT": None,
    "TINYBLOB": 255,
    "BLOB": 2**16 - 1,
    "MEDIUMBLOB": 2**24 - 1,
    "LONGBLOB": None,
}
"""How much MySQL's types without a length take; None: as much as any statement."""
_FRACTION_MAX: Final = 6


class Shape(Struct, frozen=True):
    """What a column keeps. `size`: bits, digits, characters or bytes; None: any number, or nobody says."""

    family: str
    size: int | None = None
    scale: int | None = None
    """The digits after the point, of a decimal or a second; of a float where it is rounded to them."""
    counts_bytes: bool = False
    """Whether `size` is that of a type without a length, and of a text the size of its UTF-8."""


def shape_of(type_: TypeEngine[Any], dialect: Dialect) -> Shape | None:
    """None for a type that SQLAlchemy does not know."""
    kind = type_at(type_, dialect)
    if isinstance(kind, NullType):
        return None
    for of, shape in _SHAPES:
        if isinstance(kind, of):
            return shape(kind, dialect)
    return Shape(f"values of the type {type(kind).__name__}")


def _bits(kind: Integer) -> int:
    named = _BITS.get(type(kind).__name__)
    if named is not None:
        return named
    return 64 if isinstance(kind, BigInteger) else 16 if isinstance(kind, SmallInteger) else 32


def _is_single(kind: Float[Any], dialect: Dialect) -> bool:
    if dialect.name == "postgresql":
        return isinstance(kind, REAL)
    has_few_digits = kind.precision is None or kind.precision <= SINGLE
    return dialect.name in ("mysql", "mariadb") and type(kind).__name__ in ("FLOAT", "Float") and has_few_digits


def _fraction(kind: Any, dialect: Dialect) -> int | None:
    """The digits of a second after the point."""
    if dialect.name in ("mysql", "mariadb"):
        return getattr(kind, "fsp", None) or 0
    precision = getattr(kind, "precision", None)
    return _FRACTION_MAX if precision is None else precision


def _text(kind: String, dialect: Dialect) -> Shape:
    if dialect.name == "postgresql":
        if isinstance(kind, Enum):
            return Shape("values of an enum of the database's")
        if isinstance(kind, CHAR):
            return Shape("texts filled up with spaces", kind.length)
        return Shape("texts", kind.length)
    if isinstance(kind, Enum):
        return Shape("texts")
    named = None if kind.length else _named_size(kind, dialect, "TEXT")
    return Shape("texts", kind.length or named, counts_bytes=named is not None)


def _named_size(kind: TypeEngine[Any], dialect: Dialect, default: str) -> int | None:
    if dialect.name not in ("mysql", "mariadb"):
        return None
    return _BYTES.get(type(kind).__name__.upper(), _BYTES[default])


def _uuid(kind: Uuid[Any], dialect: Dialect) -> Shape:
    is_native = kind.native_uuid and dialect.supports_native_uuid
    return Shape("UUIDs") if is_native else Shape("texts", 32)


def _time(kind: DateTime, dialect: Dialect) -> Shape:
    without_zone = dialect.name == "postgresql" and not kind.timezone
    return Shape("times without a zone" if without_zone else "times", scale=_fraction(kind, dialect))


def _bytes(kind: Any, dialect: Dialect) -> Shape:
    named = None if kind.length else _named_size(kind, dialect, "BLOB")
    return Shape("bytes", kind.length or named, counts_bytes=named is not None)


def _float(kind: Float[Any], dialect: Dialect) -> Shape:
    # MySQL's DOUBLE(9, 2).
    scale = getattr(kind, "scale", None) if dialect.name in ("mysql", "mariadb") else None
    return Shape("floats", SINGLE if _is_single(kind, dialect) else DOUBLE, scale)


_SHAPES: Final[Sequence[tuple[type[TypeEngine[Any]], Callable[[Any, Dialect], Shape]]]] = (
    (Boolean, lambda _, __: Shape("truth values")),
    (Integer, lambda kind, _: Shape("integers", _bits(kind))),
    (Float, _float),
    (Numeric, lambda kind, _: Shape("decimals", kind.precision, kind.scale)),
    (DateTime, _time),
    (Date, lambda _, __: Shape("days")),
    (Time, lambda kind, dialect: Shape("times of day", scale=_fraction(kind, dialect))),
    (Uuid, _uuid),
    (JSON, lambda _, __: Shape("JSON")),
    (String, _text),
    (LargeBinary, _bytes),
    (BINARY, _bytes),
    (VARBINARY, _bytes),
    (TINYBLOB, _bytes),
    (MEDIUMBLOB, _bytes),
    (LONGBLOB, _bytes),
)
"""By the first class that fits: some of SQLAlchemy's are derived from others."""
