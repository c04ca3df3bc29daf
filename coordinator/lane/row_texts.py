"""The text of a reference: of one row there is one, and of one text one row."""

import msgspec

from coordinator.service.exact_types import exact
from coordinator.service.rows import Key, Ref, Row


def row_text(ref: Ref[Row]) -> str:
    """The table, the columns and the values: `seats.id=17`."""
    # With the names of several columns, since a key of several columns is one of many.
    column = ",".join(ref.column) if isinstance(ref.column, tuple) else ref.column
    return f"{ref.model.table}.{column}={msgspec.json.encode(_exact_parts(ref.value)).decode()}"


def _exact_parts(value: Key) -> Key:
    return tuple(map(exact, value)) if isinstance(value, tuple) else exact(value)
