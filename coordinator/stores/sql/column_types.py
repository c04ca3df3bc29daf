"""The types of columns, as each kind of database spells them. Tables are declared before any address names a kind."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Final

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Double,
    Enum,
    Float,
    LargeBinary,
    Numeric,
    String,
    Text,
    Time,
    UnicodeText,
    Uuid,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT, TIME
from sqlalchemy.types import TypeDecorator, TypeEngine


class _DriversTime(TIME):
    """MySQL's TIME, as its driver returns it: SQLAlchemy would make 01:00 of 25:00."""

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        """None: there is nothing to do."""


COMPARED_CHARACTERS_MAX: Final = 255
"""The width of a text by which rows are found, if its type says none."""
_WIDTH_MAX: Final = 16_383
"""The characters of four bytes that a row of MySQL has room for."""
_LONGTEXT: Final = LONGTEXT(collation="utf8mb4_bin")

BYTES: Final[TypeEngine[bytes]] = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
TIMES: Final[TypeEngine[Any]] = DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
TIMES_OF_DAY: Final[TypeEngine[Any]] = Time().with_variant(_DriversTime(fsp=6), "mysql", "mariadb")
UUIDS: Final[TypeEngine[Any]] = Uuid().with_variant(Uuid(native_uuid=False), "mysql", "mariadb", "sqlite")
JSON_TEXTS: Final[TypeEngine[Any]] = JSON().with_variant(_LONGTEXT, "mysql", "mariadb").with_variant(Text(), "sqlite")
"""JSON as it was written."""


UNSAID_BYTES: Final = 2**16 - 1
"""What MySQL keeps of texts and bytes whose type says no width."""
UTF8_BYTES_MAX: Final = 4
"""Of one character."""
_WIDER: Final[Mapping[type[TypeEngine[Any]], TypeEngine[Any]]] = {
    Float: Double(),
    Text: LONGTEXT(),
    UnicodeText: LONGTEXT(),
    LargeBinary: LONGBLOB(),
}
"""What MySQL makes too narrow where a type says nothing of its width, and the type that takes all values."""


def widened(type_: TypeEngine[Any]) -> TypeEngine[Any] | None:
    """A type that keeps every float, text or any bytes on each kind of database; None: this one does, says how many it
    keeps, or is of others."""
    wider, variants = _WIDER.get(type(type_)), getattr(type_, "_variant_mapping", {})
    lacking = [name for name in ("mysql", "mariadb") if name not in variants]
    says_how_much = any(getattr(type_, name, None) is not None for name in ("length", "precision"))
    if wider is None or says_how_much or not lacking:
        return None
    collation = getattr(type_, "collation", None)
    return type_.with_variant(wider if collation is None else LONGTEXT(collation=collation), *lacking)


def byte_by_byte(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """The same type with the collation by which PostgreSQL compares texts as Python does; the type itself where it is
    none of texts, or says how they are compared."""
    variants = getattr(type_, "_variant_mapping", {})
    if not isinstance(type_, String) or isinstance(type_, Enum) or type_.collation or "postgresql" in variants:
        return type_
    compared = copy(type_)
    compared.collation = "C"
    return type_.with_variant(compared, "postgresql")


def of_floats(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """The same type, of which SQLAlchemy makes floats where it would make Decimals of ten digits after the point. These
    are the default of its DOUBLE of MySQL's, which a reflected table has."""
    variants: Mapping[str, TypeEngine[Any]] = getattr(type_, "_variant_mapping", {})
    if not isinstance(type_, Float) and not variants:
        return type_
    made = copy(type_)
    if isinstance(made, Float):
        made.asdecimal = False
    made._variant_mapping = made._variant_mapping.union(  # noqa: SLF001  # `with_variant` replaces none
        {name: of_floats(each) for name, each in variants.items()}
    )
    return made


def variant_at(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """What one kind of database has of a type that says another one for some."""
    variants: Mapping[str, TypeEngine[Any]] = getattr(type_, "_variant_mapping", {})
    return variants.get(dialect.name, type_)


def type_at(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """The type by which one kind of database keeps a column: that of a variant, and what a decorator stands for.

    Not `dialect_impl`, which makes one of PostgreSQL's CHAR and VARCHAR, REAL and DOUBLE PRECISION.
    """
    kind = variant_at(type_, dialect)
    if isinstance(kind, TypeDecorator):
        try:
            stands_for = kind.load_dialect_impl(dialect)
        except Exception:  # noqa: BLE001  # the application's own code, which may ask for the server's version
            stands_for = kind.impl_instance
        return type_at(stands_for, dialect)
    return kind


def texts(width: int | None) -> TypeEngine[str]:
    """Texts of so many characters, or of any number. Every database compares them byte by byte, as Python does."""
    if width is None or width > _WIDTH_MAX:
        return Text().with_variant(_LONGTEXT, "mysql", "mariadb")
    return (
        String(width)
        .with_variant(String(width, collation="utf8mb4_bin"), "mysql", "mariadb")
        .with_variant(String(width, collation="C"), "postgresql")
    )


def decimals(precision: int, scale: int) -> TypeEngine[Any]:
    """Decimals with so many digits. SQLite's numbers with a point are floats, so it has the text of these."""
    sign_zero_and_point = 3
    return Numeric(precision, scale).with_variant(String(precision + sign_zero_and_point), "sqlite")
