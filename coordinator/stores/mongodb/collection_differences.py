"""The differences between the rows of a service and the collections of its database, found before a lane uses them.

A collection has no columns. It has indexes, and it may have a validator, which refuses documents. Where nobody can be
sure, nothing is said.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from pymongo.database import Database

from coordinator.service.rows import Row, indexes_of, key_columns
from coordinator.stores.field_types import FieldType, field_type, hints_of
from coordinator.stores.mongodb.documents import Document
from coordinator.stores.row_makers import value_types_of
from coordinator.stores.value_types import UnknownType
from coordinator.stores.write_order import Uniqueness

Index = Mapping[str, Any]
"""As `index_information` has it."""
_INTEGERS: Final = frozenset({"int", "long"})
"""Both: the driver writes an integer by its size."""
_TYPES: Final[Mapping[Any, frozenset[str]]] = {
    int: _INTEGERS,
    str: frozenset({"string"}),
    bytes: frozenset({"binData"}),
    datetime: frozenset({"date"}),
    bool: frozenset({"bool"}),
    float: frozenset({"double"}),
    Decimal: frozenset({"decimal"}),
    UUID: frozenset({"binData"}),
}
"""In which types of the server values are kept, by their own."""
_NUMBERS: Final = frozenset({"int", "long", "double", "decimal"})
_OF_SOME: Final = frozenset({"partialFilterExpression", "sparse", "collation"})
"""Of an index that has not all documents, or compares texts otherwise."""
_OTHERS_ALLOWED: Final = frozenset({"_id"})


def differences(database: Database[Document], models: Sequence[type[Row]]) -> list[str]:
    """Each difference as a line; collections that are not there are left out."""
    names = [model.table for model in models]
    options = {
        each["name"]: each.get("options", {}) for each in database.list_collections(filter={"name": {"$in": names}})
    }
    return [
        line
        for model in models
        if model.table in options
        for line in (
            *index_differences(model, database[model.table].index_information()),
            *validator_differences(model, options[model.table]),
        )
    ]


def made_indexes(model: type[Row]) -> list[tuple[str, ...]]:
    """The columns of a model's indexes, behind which `_id` comes: its own, and the first ones of a key of several."""
    key = key_columns(model)
    return [*indexes_of(model), *(key[:count] for count in range(1, len(key)))]


def uniques_of(model: type[Row], indexes: Mapping[str, Index]) -> Iterator[Uniqueness]:
    """What is unique in its collection, as far as rows have its fields, with values that can be looked up."""
    values = value_types_of(model)
    seen = {name for name in _columns(model) if name not in values or values[name].copy is None}
    for each in indexes.values():
        if each.get("unique") and seen.issuperset(_fields(each)):
            yield Uniqueness(model, _fields(each))


def index_differences(model: type[Row], indexes: Mapping[str, Index]) -> Iterator[str]:
    """What its indexes lack, or refuse of what the class allows."""
    of_all = [_fields(each) for each in indexes.values() if not each.keys() & _OF_SOME]
    for columns in made_indexes(model) if model.__index_is_needed__ else ():
        if not any(fields[: len(columns)] == columns for fields in of_all):
            yield (
                f"{model.table} lacks an index on {', '.join((*columns, '_id'))}, by which rows are selected: run "
                "`coordinator migrate`"
            )
    for column in model.unique:
        found = {name: each for name, each in indexes.items() if _fields(each) == (column,)}
        unique = {name: each for name, each in found.items() if each.get("unique")}
        if not unique:
            others = f", which the index {', '.join(found)} is not: drop it" if found else ""
            yield f"{model.table}.{column} needs a unique index{others}: run `coordinator migrate`"
        if (field := _type_of(model, column)) is not None and field.is_optional:
            yield from (
                f"{model.table}.{column} has the unique index {name}, which takes one row without a value, and "
                f"{model.__name__}.{column} may be None in many: drop it, and run `coordinator migrate`"
                for name, each in unique.items()
                if "partialFilterExpression" not in each
            )


def validator_differences(model: type[Row], options: Mapping[str, Any]) -> Iterator[str]:
    """Which documents of such rows the validator of a collection refuses, where its schema says so of each of them."""
    schema = options.get("validator", {}).get("$jsonSchema", {})
    if options.get("validationLevel") == "off" or options.get("validationAction") == "warn":
        return
    columns = _columns(model)
    properties = schema.get("properties", {})
    place = f"the validator of {model.table}"
    for name in schema.get("required", ()):
        if name not in (*columns, *_OTHERS_ALLOWED):
            yield f"{place} requires {name}, and {model.__name__} has no such field"
    if schema.get("additionalProperties") is False:
        lacking = [name for name in ("_id", *columns) if name not in properties]
        if lacking:
            yield f"{place} allows no {', '.join(lacking)}, and {model.__name__} has it"
    for column in columns:
        allowed, field = _allowed(properties.get(column, {})), _type_of(model, column)
        if allowed is None or field is None:
            continue
        wanted = _kept_as(field)
        if wanted is not None and not wanted <= allowed:
            text = " or ".join(sorted(wanted))
            yield f"{place} allows {column} as {', '.join(sorted(allowed))} only, and it is kept as {text}"
        elif field.is_optional and "null" not in allowed:
            yield f"{place} allows no null as {column}, and {model.__name__}.{column} may be None"


def _columns(model: type[Row]) -> tuple[str, ...]:
    """The fields of a document beside `_id`; a key of one column is that."""
    key = key_columns(model)
    return tuple(name for name in model.__struct_fields__ if len(key) > 1 or name not in key)


def _fields(index: Index) -> tuple[str, ...]:
    return tuple(field for field, _ in index["key"])


def _type_of(model: type[Row], column: str) -> FieldType | None:
    try:
        return field_type(hints_of(model)[column])
    except (UnknownType, KeyError):
        return None


def _allowed(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """The types that a part of a schema allows; None: it does not say."""
    said = schema.get("bsonType")
    if said is None:
        return None
    allowed = frozenset([said] if isinstance(said, str) else said)
    return allowed | _NUMBERS if "number" in allowed else allowed


def _kept_as(field: FieldType) -> frozenset[str] | None:
    """The types of a field's values in a document; None: they are of several."""
    if field.values is not None and field.values.nested is not None:
        return None
    kind = field.kind
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _TYPES.get(type(next(iter(kind)).value))
    return _TYPES.get(kind)
