"""Columns by which rows are found, and of which NULL is read as the default of the class.

Such a row is of before the field was there. It is shown with the default, and the database does not find it by that.
"""

import warnings
from collections.abc import Iterator, Sequence

from msgspec.structs import fields
from sqlalchemy import Connection, Inspector, inspect
from sqlalchemy.exc import SAWarning

from coordinator.service.rows import Row, indexed_columns
from coordinator.stores.sql.declared_tables import columns_of


def defaulted_columns(connection: Connection, models: Sequence[type[Row]]) -> list[str]:
    """Each of them as a line, with what to do; the tables are there."""
    inspector = inspect(connection)
    with warnings.catch_warnings():
        # About types that SQLAlchemy does not know, in columns that may be nobody's here.
        warnings.simplefilter("ignore", SAWarning)
        # Of a view nobody can say that a column is never NULL.
        views = set(inspector.get_view_names())
        return [line for model in models if model.table not in views for line in _of_model(inspector, model)]


def _of_model(inspector: Inspector, model: type[Row]) -> Iterator[str]:
    has_default = {field.name for field in fields(model) if not field.required}
    found_by = {*indexed_columns(model), *model.unique} & has_default
    never_none = {name for name, column in columns_of(model).items() if name in found_by and not column.nullable}
    for column in inspector.get_columns(model.table) if never_none else ():
        name = column["name"]
        if name in never_none and column["nullable"]:
            yield (
                f"{model.table}.{name} may be NULL: a row that has none there is read with the default of "
                f"{model.__name__}.{name}, and is not found by it: fill it, and make it NOT NULL"
            )
