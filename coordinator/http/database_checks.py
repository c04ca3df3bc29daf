"""What readiness asks of the databases from which a gateway reads."""

from collections.abc import Iterator, Sequence
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.client.database import Needed
from coordinator.client.recency import ReadDatabase
from coordinator.http.database_part import DatabasePart, ReplicasPart
from coordinator.http.operations import Check
from coordinator.http.reader_place import show_place
from coordinator.stores.kinds import Database
from coordinator.stores.sql.hosts_in_turns import hosts_in_turns


def database_checks(source: ReadDatabase, primary: Database | None, tables: Sequence[Needed]) -> Iterator[Check]:
    """Of `source`, whatever requests it has, and of the primary where that is another server."""
    part = DatabasePart(source.database, source.lane, tables, partial(show_place, source))
    yield Check("database", part.problem, reason=partial(_reason, part), refusal=lambda: part.refusal)
    if primary is not None:
        other = DatabasePart(primary, source.lane, tables)
        # Where it is away, most reads are served. Until it was there nobody knows whether it is this lane's.
        yield Check(
            "primary",
            other.problem,
            required=False,
            reason=partial(_reason, other),
            needed_now=lambda: not other.was_well,
            refusal=lambda: other.refusal,
        )
    turns = hosts_in_turns(source.database) if isinstance(source.database, AsyncEngine) else None
    if turns is not None:
        replicas = ReplicasPart(turns)
        # Where one is away the others serve.
        yield Check("replicas", replicas.problem, required=False, reason=partial(_reason, replicas))


def _reason(part: DatabasePart | ReplicasPart) -> str:
    return part.reason
