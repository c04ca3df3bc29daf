"""The types by which kinds of databases keep columns that an application declares."""

from typing import Any

import pytest
from sqlalchemy import BigInteger, Dialect, Float, Integer, String, Text, UnicodeText
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from coordinator.stores.sql.column_types import of_floats, type_at, widened


class _Asking(TypeDecorator[str]):
    """Asks for the server's version, which a statement's writer does not know."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        version: Any = getattr(dialect, "server_version_info", None)
        return dialect.type_descriptor(Text() if version >= (9,) else String(20))


class _Number(TypeDecorator[int]):
    impl = Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return BigInteger() if dialect.name == "mysql" else Integer()


def test_a_decorator_is_what_it_stands_for() -> None:
    postgres: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    assert isinstance(type_at(_Number(), mysql.dialect()), BigInteger)
    assert not isinstance(type_at(_Number(), postgres), BigInteger)
    assert isinstance(type_at(_Asking(), postgres), Text)


def test_a_float_is_read_as_one_whatever_a_kind_of_database_has_for_it() -> None:
    """SQLAlchemy's DOUBLE of MySQL's, which a reflected table has, makes Decimals of ten digits after the point."""
    mapped = Float().with_variant(mysql.DOUBLE(), "mysql").with_variant(mysql.REAL(), "mariadb")
    for kind in (mapped, mysql.DOUBLE(), Float(asdecimal=True)):
        for name in ("mysql", "mariadb", "sqlite"):
            found = of_floats(kind)
            assert getattr(found, "_variant_mapping", {}).get(name, found).python_type is float
    assert type_at(mapped, mysql.dialect()).python_type is not float
    assert isinstance(type_at(of_floats(mapped), mysql.dialect()), mysql.DOUBLE)
    number = _Number()
    assert of_floats(number) is number


@pytest.mark.parametrize("of", [Text, UnicodeText])
def test_a_text_that_is_made_wider_is_compared_as_it_is_mapped(of: type[Text]) -> None:
    wider = widened(of(collation="utf8mb4_general_ci"))
    assert wider is not None
    kind = type_at(wider, mysql.dialect())
    assert isinstance(kind, mysql.LONGTEXT)
    assert kind.collation == "utf8mb4_general_ci"
