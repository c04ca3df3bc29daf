"""Columns that an application maps as an `Enum` of SQLAlchemy's, as a lane reads and writes them.

SQLAlchemy keeps the names of an enum's members, or its values where the column has `values_callable`, and makes members
of them again. A lane knows the texts alone, and so does a gateway, which reads what the lane has written.
"""

from enum import Enum as PythonEnum
from typing import Any

from sqlalchemy import Enum, String
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from coordinator.stores.sql.column_types import COMPARED_CHARACTERS_MAX, texts


class EnumTexts(TypeDecorator[str]):
    """Texts, which come back as they are kept. Members of the enum may still be compared with them."""

    impl = String
    cache_ok = True

    def __init__(self, kept: tuple[str, ...], members: tuple[tuple[PythonEnum, str], ...]) -> None:
        super().__init__(COMPARED_CHARACTERS_MAX)
        self.kept = kept
        self.members = members

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:  # noqa: ARG002
        """As texts of a class's own are kept."""
        return texts(COMPARED_CHARACTERS_MAX)

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        """The text of a member."""
        return next((text for member, text in self.members if member is value), value)


def without_members(mapped: Enum, enum: Any) -> TypeEngine[Any]:
    """The type for a column of a copied table; `enum`: the class of what a row has there, if it is one.

    No type of the database's own is made for it: a lane keeps texts.
    """
    if getattr(mapped, "_variant_mapping", None):
        # It says itself what each kind of database keeps.
        return mapped
    mapped.native_enum = False
    if enum is not None and mapped.enum_class is enum:
        return mapped
    text_of = mapped.bind_processor(DefaultDialect())  # type: ignore[no-untyped-call]
    members = () if mapped.enum_class is None or text_of is None else tuple(mapped.enum_class)
    return EnumTexts(tuple(mapped.enums), tuple((each, text_of(each)) for each in members))


def kept_texts(type_: TypeEngine[Any]) -> frozenset[str] | None:
    """The texts that an application has in a column of this type; None: it has any."""
    if isinstance(type_, EnumTexts):
        return frozenset(type_.kept)
    return frozenset(type_.enums) if isinstance(type_, Enum) else None
