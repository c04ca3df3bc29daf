"""What SQLAlchemy makes of the values of a mapped column, which a lane takes as the driver gives them.

Gateways read through the mapped column. A lane does not, so it would go on with rows that no gateway can read, or that
one reads as something else.
"""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import JSON, Dialect, Enum, Interval, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine

from coordinator.stores.field_types import field_type
from coordinator.stores.row_makers import is_readable
from coordinator.stores.sql.column_types import variant_at

_SAMPLES: Final[Mapping[type, object]] = {
    bool: True,
    float: 1.0,
    Decimal: Decimal(0),
    date: date(2000, 1, 1),
    datetime: datetime(2000, 1, 1),  # noqa: DTZ001  # as SQLAlchemy gives it
    time: time(12),
    timedelta: timedelta(1),
    UUID: UUID(int=0),
    dict: {"a": 1},
}


def read_otherwise(hint: Any, mapped: TypeEngine[Any], dialect: Dialect) -> type | None:
    """The type of Python's of which a mapped column's values are, where no field of this annotation reads them as they
    are kept; None: it does, or it is the application's own code that makes them."""
    kind, field = variant_at(mapped, dialect), field_type(hint)
    if isinstance(kind, Enum) or (isinstance(kind, TypeDecorator) and not isinstance(kind, Interval)):
        return None
    if isinstance(kind, JSON):
        of: type = dict
        if field.values is not None and field.values.nested is not None:
            return None
    elif isinstance(kind, Uuid):
        # As texts they are written otherwise than they are kept.
        of = UUID
    else:
        try:
            of = kind.python_type
        except NotImplementedError:
            return None
    return of if of in _SAMPLES and not is_readable(hint, _SAMPLES[of]) else None
