"""The types by which kinds of databases keep columns that an application declares."""

from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, String, Text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from coordinator.stores.sql.column_types import type_at


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
