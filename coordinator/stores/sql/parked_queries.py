"""What is parked in a lane, on every kind of SQL database."""

from sqlalchemy import Connection, func, select

from coordinator.stores.admin import ParkedCounts, ParkedKeySummary, ParkedSummary
from coordinator.stores.lane_tables import ParkedCommand, metadata
from coordinator.stores.times import utc

_PARKED = metadata.tables[ParkedCommand.table]
_HAS_FAILED = _PARKED.c.error_code.is_not(None)


def parked_counts(connection: Connection) -> ParkedCounts:
    """How many keys and commands there are."""
    counted = select(func.count(), func.count(_PARKED.c.error_code)).select_from(_PARKED)
    rows, failed = connection.execute(counted).one()
    return ParkedCounts(keys=int(failed), commands=int(rows) - int(failed))


def parked_of(connection: Connection, key: str | None, command_id: str | None) -> list[ParkedSummary]:
    """As `LaneAdmin.parked`."""
    wanted = select(*(_PARKED.c[name] for name in ParkedSummary.__struct_fields__)).order_by(_PARKED.c.position)
    if command_id is not None:
        its = select(_PARKED.c.ordering_key).where(_PARKED.c.command_id == command_id)
        wanted = wanted.where(_PARKED.c.ordering_key == its.scalar_subquery())
    if key is not None:
        wanted = wanted.where(_PARKED.c.ordering_key == key)
    rows = connection.execute(wanted).mappings().all()
    return [ParkedSummary(**{name: utc(value) for name, value in row.items()}) for row in rows]


def parked_keys_of(connection: Connection, limit: int) -> list[ParkedKeySummary]:
    """As `LaneAdmin.parked_keys`."""
    names = ("ordering_key", "command_id", "error_code", "parked_at", "actor")
    failed = select(*(_PARKED.c[name] for name in names)).where(_HAS_FAILED).order_by(_PARKED.c.position)
    rows = connection.execute(failed.limit(limit)).all()
    keys = [row.ordering_key for row in rows]
    counted = select(_PARKED.c.ordering_key, func.count()).where(~_HAS_FAILED, _PARKED.c.ordering_key.in_(keys))
    waiting = {key: int(count) for key, count in connection.execute(counted.group_by(_PARKED.c.ordering_key))}
    return [
        ParkedKeySummary(
            ordering_key=row.ordering_key,
            failed_id=row.command_id,
            error_code=row.error_code,
            parked_at=utc(row.parked_at),
            actor=row.actor,
            waiting=waiting.get(row.ordering_key, 0),
        )
        for row in rows
    ]
