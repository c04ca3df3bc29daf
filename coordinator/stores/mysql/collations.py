"""The collations of texts by which rows are found, on MySQL and MariaDB."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row, indexed_columns, key_columns

_OTHERS: Final = (
    "SELECT column_name, collation_name, character_set_name FROM information_schema.columns "
    r"WHERE table_schema = DATABASE() AND table_name = %s AND column_name IN %s AND collation_name NOT LIKE '%%\_bin' "
    "LIMIT 1"
)


def check_texts(
    first_row: Callable[[str, Sequence[Any]], Sequence[Any] | None], models: Sequence[type[Row]], setting: str
) -> None:
    """Raise ConfigurationError for a text by which rows are found, and that is not compared byte by byte.

    `first_row` runs a statement of the driver's, and returns the first row of its answer.
    """
    for model in models:
        found = first_row(_OTHERS, [model.table, (*key_columns(model), *model.unique, *indexed_columns(model))])
        if found is not None:
            column, collation, charset = found
            raise ConfigurationError(
                f"column {column} of table {model.table} in the database of {setting} has the collation "
                f"{collation}, which takes different texts for one; but rows are found by it: "
                f"ALTER TABLE {model.table} CONVERT TO CHARACTER SET {charset} COLLATE {charset}_bin"
            )
