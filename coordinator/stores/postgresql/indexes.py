"""What PostgreSQL says of the indexes and the collations by which rows are selected."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from coordinator.service.rows import Row, indexed_columns, is_selected, key_columns
from coordinator.stores.port import UnfitTables

FirstRow = Callable[[str, Sequence[Any]], tuple[Any, ...] | None]
"""Runs a statement, and returns the first row of its answer."""

_INDEXES: Final = """
    SELECT array_agg(one.columns) FROM (
        SELECT string_agg(coalesce(a.attname::text, ''), ',' ORDER BY k.place) AS columns
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
        LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = to_regclass(quote_ident(%s)) AND i.indisvalid AND i.indpred IS NULL
        AND m.amname = 'btree' AND k.place <= i.indnkeyatts
        GROUP BY i.indexrelid
    ) AS one
"""
_TEXTS: Final = """
    SELECT array_agg(a.attname::text), array_agg(t.typname::text), array_agg(c.collisdeterministic),
        array_agg(quote_ident(n.nspname) || '.' || quote_ident(c.collname)),
        array_agg(format_type(a.atttypid, a.atttypmod))
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_collation AS c ON c.oid = a.attcollation
    JOIN pg_namespace AS n ON n.oid = c.collnamespace
    WHERE a.attrelid = to_regclass(quote_ident(%s)) AND a.attname::text = ANY(%s)
"""
_ORDER: Final = ("", "10", "9", "B", "Z", "_", "a b", "a!", "aa", "ab", "z", "\xe1")
"""In the order of their bytes, and so of their characters; no language puts them so."""


def columns_of_indexes(first_row: FirstRow, table: str) -> list[list[str]]:
    """The columns of each index that has all rows of a table."""
    (found,) = first_row(_INDEXES, [table]) or (None,)
    return [columns.split(",") for columns in found or ()]


def check_texts(first_row: FirstRow, models: Sequence[type[Row]], setting: str) -> None:
    """Raises UnfitTables, with all of them, for texts by which rows are selected, or put in order, and that PostgreSQL
    compares otherwise than Python."""
    found = [line for model in models if is_selected(model) for line in _of_model(first_row, model)]
    if found:
        raise UnfitTables(
            f"the tables in the database of {setting} do not compare texts as rows need it, which are selected by "
            "them:\n  " + "\n  ".join(found)
        )


def _of_model(first_row: FirstRow, model: type[Row]) -> Iterator[str]:
    compared = [*key_columns(model), *model.unique, *indexed_columns(model)]
    found = first_row(_TEXTS, [model.table, compared])
    for column, kind, is_deterministic, collation, type_ in zip(*(part or () for part in found or ()), strict=True):
        if kind in ("text", "varchar") and is_deterministic:
            if column not in key_columns(model) or _has_order_of_bytes(first_row, collation):
                continue
            fault = f"the collation {collation}, which does not put texts in the order of their characters"
        else:
            fault = f"the type {kind} and the collation {collation}, which take different texts for one"
        target = type_ if kind in ("text", "varchar") else "text"
        yield (
            f"{model.table}.{column} has {fault}: "
            f'ALTER TABLE {model.table} ALTER COLUMN {column} TYPE {target} COLLATE "C"'
        )


def _has_order_of_bytes(first_row: FirstRow, collation: str) -> bool:
    # The name is the server's own, quoted.
    statement = f"SELECT array_agg(each ORDER BY each COLLATE {collation}) FROM unnest(%s::text[]) AS each"  # noqa: S608
    (found,) = first_row(statement, [list(_ORDER)]) or (None,)
    return found is not None and tuple(found) == _ORDER
