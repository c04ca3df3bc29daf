"""Whether two rows are the same, where Python calls them equal."""

from functools import cache
from typing import Literal

import msgspec

from coordinator.service.rows import Row
from coordinator.stores.field_types import field_type, hints_of

Order = Literal["deterministic"] | None


def is_same(row: Row, other: Row, order: Order = None) -> bool:
    """Whether two rows of one class have the same values: 1, 1.0 and True are equal to Python, and their JSON is not.

    `order`: that of the keys in JSON counts for nothing.
    """
    return row == other and all(
        msgspec.json.encode(getattr(row, name), order=order) == msgspec.json.encode(getattr(other, name), order=order)
        for name in _json_fields(type(row))
    )


@cache
def _json_fields(model: type[Row]) -> tuple[str, ...]:
    hints = hints_of(model)
    of = {name: field_type(hints[name]).values for name in model.__struct_fields__ if name in hints}
    return tuple(name for name, values in of.items() if values is not None and values.nested is not None)
