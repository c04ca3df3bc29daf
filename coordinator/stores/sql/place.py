"""Whether the tables of a lane are where somebody looks for what else may write them."""

from collections.abc import Sequence

from sqlalchemy import Connection, inspect, select
from sqlalchemy.engine import Inspector
from sqlalchemy.exc import DBAPIError

from coordinator.stores import lane_tables
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.one_lane import other_lane
from coordinator.stores.writers import WritersQuery

_LEASE = lane_tables.metadata.tables[LEASE_TABLE]


def misplaced(connection: Connection, query: WritersQuery) -> str | None:
    """Why nothing that is found here would be about the lane's tables; None: all that there are, are here.

    Raises the driver's errors.
    """
    inspector: Inspector = inspect(connection)
    here = inspector.default_schema_name
    elsewhere = [
        table for table in query.tables if not inspector.has_table(table, schema=here) and inspector.has_table(table)
    ]
    if elsewhere:
        return (
            f"it looks in the schema {here}, which comes first for it, and the table {elsewhere[0]} is in another one"
        )
    if not inspector.has_table(_LEASE.name, schema=here):
        return f"it looks in {here or query.database}, where no lane's tables are: `coordinator migrate` makes them"
    other = other_lane(_lanes(connection), query.lane)
    return None if other is None else f"it looks in the database of lane {other}: a lane needs its own"


def _lanes(connection: Connection) -> Sequence[str]:
    """None where the role that looks may not read them."""
    try:
        with connection.begin_nested():
            return connection.execute(select(_LEASE.c.lane)).scalars().all()
    except DBAPIError:
        return ()
