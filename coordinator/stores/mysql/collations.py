"""The character sets of texts, and the collations of those by which rows are found, on MySQL and MariaDB."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import String

from coordinator.service.rows import Row, indexed_columns, key_columns
from coordinator.stores.field_types import choices_of, hints_of
from coordinator.stores.port import UnfitTables
from coordinator.stores.sql.declared_tables import columns_of

_OF_COLUMNS: Final = (
    "SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position SEPARATOR ', '), MIN({what}) "
    "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s AND column_name IN %s AND "
)
# A table of codes may take no more than ASCII on purpose.
_OTHER_SETS: Final = _OF_COLUMNS.format(what="character_set_name") + (
    "character_set_name NOT IN ('utf8mb4', 'utf16', 'utf16le', 'utf32', 'ascii')"
)
_OTHER_COLLATIONS: Final = _OF_COLUMNS.format(what="collation_name") + r"collation_name NOT LIKE '%%\_bin'"

FirstRow = Callable[[str, Sequence[Any]], Sequence[Any] | None]


def check_texts(first_row: FirstRow, models: Sequence[type[Row]], setting: str) -> None:
    """Raise UnfitTables, with all of them, for columns that do not take each text that a row may have, and for
    texts by which rows are found, and that are not compared byte by byte.

    `first_row` runs a statement of the driver's, and returns the first row of its answer.
    """
    found = [line for model in models for line in _of_model(first_row, model)]
    if found:
        raise UnfitTables(
            f"the tables in the database of {setting} do not keep texts as rows need them "
            "(a foreign key on such a column is in the way: drop it before, and add it again afterwards):\n  "
            + "\n  ".join(found)
        )


def _of_model(first_row: FirstRow, model: type[Row]) -> Iterator[str]:
    # All of its texts become that. In another set some of them might lose characters.
    convert = f"ALTER TABLE {model.table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    columns, charset = _asked(first_row, _OTHER_SETS, model, _free_texts(model))
    if columns is not None:
        yield (
            f"{model.table}: {columns} in the character set {charset}, which does not have every character: {convert}"
        )
        return
    # A table of before has neither such an index nor, for its columns, what one needs.
    indexed = indexed_columns(model) if model.__index_is_needed__ else ()
    by = (*key_columns(model), *model.unique, *indexed)
    columns, collation = _asked(first_row, _OTHER_COLLATIONS, model, by)
    if columns is not None:
        yield (
            f"{model.table}: {columns} with the collation {collation}, which takes different texts for one; but rows "
            f"are found by them: {convert}"
        )


def _asked(first_row: FirstRow, statement: str, model: type[Row], columns: Sequence[str]) -> Sequence[Any]:
    found = first_row(statement, [model.table, columns]) if columns else None
    return found or (None, None)


def _free_texts(model: type[Row]) -> Sequence[str]:
    """The columns of texts that are not among a few of ASCII."""
    hints = hints_of(model)

    def is_free(name: str) -> bool:
        choices = choices_of(hints.get(name))
        return choices is None or not all(str(each).isascii() for each in choices)

    return [name for name, column in columns_of(model).items() if isinstance(column.type, String) and is_free(name)]
