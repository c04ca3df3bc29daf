"""The connection of an operator's commands to a lane's SQL database, and their transactions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Engine, TableClause, and_, delete, func, insert, inspect, literal, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from coordinator.runtime.addresses import Address
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable
from coordinator.service.lane_names import settings_prefix
from coordinator.service.rows import Row
from coordinator.stores.admin import LOCK_TIMEOUT_S, NOT_ACTIVE, ChangeUnknown, Holding, LeaseState, lineages_of_loss
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.lane_tables import metadata
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.move_tables import MoveNote
from coordinator.stores.moves import LaneMove, check_open_to_operators, decode_move, encode_move, paused_by
from coordinator.stores.one_lane import check_lane, unused_lease
from coordinator.stores.port import Fenced
from coordinator.stores.sql.constraints import outward_references
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.times import utc

CONNECT_TIMEOUT_S = 3
_LEASE = metadata.tables[LEASE_TABLE]
_NOTES = metadata.tables[MoveNote.table]
_ACTS = metadata.tables[OperatorAct.table]


class SqlAdminSession:
    """Connects on first use. Raises ConfigurationError for an address it cannot read."""

    def __init__(self, dialect: Dialect, address: Address, lane: str, *, silence_s: float | None = None) -> None:
        self._dialect = dialect
        self._lane = lane
        # Drivers do not all say where.
        self._place = f" at {', '.join(map(str, address.hosts))}" if address.hosts else ""
        self._engine = _open(dialect, address, silence_s)
        self._others = select(_LEASE.c.lane).where(_LEASE.c.lane != lane).limit(1)
        """Another lane that has a lease there, if one has."""

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _changing(self, now: datetime, act: OperatorAct | None = None, **values: str) -> Iterator[Connection]:
        """A transaction that has counted the revision up, and holds the lease row's lock with it; it keeps the act."""
        counted = update(_LEASE).where(_LEASE.c.lane == self._lane).values(revision=_LEASE.c.revision + 1, **values)
        fresh = unused_lease(now) | {"lane": self._lane, "revision": 1} | values
        with self._change() as connection:
            if connection.execute(counted).rowcount == 0:
                try:
                    with connection.begin_nested():
                        connection.execute(insert(_LEASE).values(fresh))
                except IntegrityError:
                    # A coordinator created the row at the same moment.
                    connection.execute(counted)
            self._check_open(connection)
            keep_act(connection, act)
            yield connection

    def _check_open(self, connection: Connection, *, removes: bool = False) -> None:
        """Raises ConfigurationError where a move of the lane would leave a change of this transaction behind. The lease
        row stays locked until the transaction ends, so that no move comes to its next step before."""
        check_open_to_operators(self._locked_move(connection), removes=removes)

    def _locked_move(self, connection: Connection) -> LaneMove | None:
        """What the lease tells of a move, until the transaction ends."""
        of_lane = _LEASE.c.lane == self._lane
        connection.execute(update(_LEASE).where(of_lane).values(revision=_LEASE.c.revision))
        return decode_move(connection.execute(select(_LEASE.c.move).where(of_lane)).scalar())

    def _prove(self, connection: Connection, holding: Holding | None) -> None:
        """Raises Fenced unless the lane is active under this lease. Its row stays locked until the transaction ends."""
        try:
            self._check_open(connection, removes=True)
        except ConfigurationError as error:
            if holding is None:
                raise
            raise Fenced(str(error)) from error
        if holding is None:
            return
        lease, row = holding(), _LEASE.c
        if lease is not None:
            is_held = and_(row.epoch == lease.epoch, row.holder == lease.holder, row.sequence >= lease.sequence)
            active = update(_LEASE).where(row.lane == self._lane, is_held, row.paused.is_(None))
            if connection.execute(active.values(batches=row.batches + 1)).rowcount == 1:
                return
        raise Fenced(NOT_ACTIVE.format(self._lane))

    def _tell_proved(self, lease: LeaseState | None) -> None:
        """A change of this lease is safe, and so is all before it: tell those who read (`Lease.proved`), since the lane
        may write nothing now."""
        if lease is None or lease.proved is None or lease.proved >= lease.sequence:
            return
        behind = update(_LEASE).where(_LEASE.c.lane == self._lane, _LEASE.c.proved < lease.sequence)
        # The change itself is done.
        with suppress(DatabaseUnavailable), self._change() as connection:
            connection.execute(behind.values(proved=lease.sequence))

    def unread_columns(self, models: Sequence[type[Row]]) -> list[str]:
        with self._transaction() as connection:
            found = inspect(connection)
            return [
                f"{model.table}.{column['name']}"
                for model in models
                for column in found.get_columns(model.table)
                # What a database computes another one does, too, if it has such a column.
                if column["name"] not in model.__struct_fields__ and column.get("computed") is None
            ]

    def unfilled_references(self, models: Sequence[type[Row]]) -> list[str]:
        with self._transaction() as connection:
            return [
                f"{reference.table}.{', '.join(reference.columns)} refers to {reference.other.name}"
                for reference in outward_references(connection, models)
                if _has_no_rows(connection, reference.other)
            ]

    def set_move(
        self,
        before: LaneMove | None,
        after: LaneMove | None,
        now: datetime,
        act: OperatorAct | None = None,
        *,
        of: LeaseState | None = None,
    ) -> bool:
        of_lane = _LEASE.c.lane == self._lane
        with self._change() as connection:
            counted = update(_LEASE).where(of_lane).values(revision=_LEASE.c.revision + 1)
            if connection.execute(counted).rowcount == 0:
                connection.execute(insert(_LEASE).values(unused_lease(now) | {"lane": self._lane, "revision": 1}))
            lease = lease_of(connection, self._lane)
            if lease is None or lease.move != before:
                connection.rollback()
                return False
            if after is not None and before is None:
                after = msgspec.structs.replace(after, batches=lease.batches)
            told = None if after is None else encode_move(after)
            values: dict[str, object] = {"move": told, "paused": paused_by(before, after, lease.paused)}
            if of is not None:
                values |= {"lineage": of.lineage, "supersedes": of.supersedes}
            connection.execute(update(_LEASE).where(of_lane).values(values))
            keep_act(connection, act)
        self._tell_proved(lease)
        return True

    def accept_loss(
        self, sequence: int, up_to: int, now: datetime, act: OperatorAct | None = None, *, lineage: str | None = None
    ) -> int:
        # A command that changes nothing must not make the lane renew its lease.
        with self._transaction() as connection:
            lease = lease_of(connection, self._lane)
        if (0 if lease is None else lease.sequence) == sequence:
            with self._changing(now) as connection:
                lease = lease_of(connection, self._lane)
                if lease is not None and lease.sequence == sequence:
                    keep_act(connection, act)
                    values = {"loss_accepted": up_to, **lineages_of_loss(lease, up_to, lineage)}
                    connection.execute(update(_LEASE).where(_LEASE.c.lane == self._lane).values(values))
        return 0 if lease is None else lease.sequence

    def forget_move_notes(self, batch_rows: int) -> Iterator[int]:
        epoch = number = 0
        while True:
            # Within one epoch, where the key's index says where to begin: what is deleted is still in it for a while.
            page = select(_NOTES.c.number).where(_NOTES.c.epoch == epoch, _NOTES.c.number > number)
            with self._change() as connection:
                numbers = connection.execute(page.order_by(_NOTES.c.number).limit(batch_rows)).scalars().all()
                if not numbers:
                    later = select(func.min(_NOTES.c.epoch)).where(_NOTES.c.epoch > epoch)
                    found = connection.execute(later).scalar()
                    if found is None:
                        return
                    epoch, number = found, 0
                    continue
                of_page = and_(_NOTES.c.epoch == epoch, _NOTES.c.number.between(numbers[0], numbers[-1]))
                gone = connection.execute(delete(_NOTES).where(of_page)).rowcount
                # Last, so that the lane waits for no deletion.
                if self._locked_move(connection) is not None:
                    connection.rollback()
                    return
            number = numbers[-1]
            yield gone

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            with connection.begin():
                # Each time: a connection of the pool may be new, and lead elsewhere than the one before.
                check_lane(connection.execute(self._others).scalars(), self._lane)
                yield connection
            self._dialect.check_committed(connection)

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """A transaction that writes. Raises ChangeUnknown where nobody knows whether it is committed."""
        is_written = False
        try:
            with self._transaction() as connection:
                yield connection
                is_written = True
        except DatabaseUnavailable as error:
            if is_written and _is_lost(error.__cause__):
                raise ChangeUnknown(f"{error}; the change may be made: look, and repeat it") from error
            raise

    def _unentered(self) -> Sequence[str]:
        """The schemas in which the role may use nothing, as far as the server says it."""
        if self._dialect.unentered is None:
            return ()
        try:
            with self._engine.connect() as connection:
                return connection.exec_driver_sql(self._dialect.unentered).scalars().all()
        except (SQLAlchemyError, OSError):
            return ()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where the drivers' errors become ours."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            origin = getattr(error, "orig", None)
            detail = " ".join(str(origin or error).split())
            if origin is not None and self._dialect.is_of_schema(origin):
                if schemas := self._unentered():
                    raise ConfigurationError(
                        f"the role of {settings_prefix(self._lane)}DATABASE_URL lacks USAGE on schema "
                        f"{', '.join(schemas)}: `coordinator database-accounts {self._lane}` prints what GRANTs it, "
                        f"and does so with --apply ({detail})"
                    ) from error
                raise ConfigurationError(
                    f"the database of {settings_prefix(self._lane)}DATABASE_URL is not migrated: "
                    f"run `coordinator migrate {self._lane}` ({detail})"
                ) from error
            raise DatabaseUnavailable(f"the database of lane {self._lane}{self._place}: {detail}") from error


def _is_lost(error: BaseException | None) -> bool:
    """Whether the connection was lost, so that a COMMIT has no answer."""
    return isinstance(error, OSError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _has_no_rows(connection: Connection, other: TableClause) -> bool:
    """Whether a table is known to be empty: whoever may write rows that refer to it need not be one who may read it."""
    try:
        with connection.begin_nested():
            return connection.execute(select(literal(1)).select_from(other).limit(1)).first() is None
    except (OperationalError, ProgrammingError) as error:
        if error.connection_invalidated:
            raise
        return False


def _open(dialect: Dialect, address: Address, silence_s: float | None) -> Engine:
    isolation = {} if dialect.admin_isolation is None else {"isolation_level": dialect.admin_isolation}
    return dialect.engine(
        address,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        lock_timeout_s=LOCK_TIMEOUT_S,
        silence_s=silence_s,
        pool_size=1,
        # Others may have ended it while it was idle: a limit of the server's, its restart, a firewall.
        pool_pre_ping=True,
        **isolation,
    )


def keep_act(connection: Connection, act: OperatorAct | None) -> None:
    """Keep an operator's act with the transaction in which it is done."""
    if act is not None:
        connection.execute(insert(_ACTS).values(msgspec.structs.asdict(act)))


def lease_of(connection: Connection, lane: str) -> LeaseState | None:
    """The lane's lease row; None: it never ran."""
    row = connection.execute(select(_LEASE).where(_LEASE.c.lane == lane)).mappings().first()
    if row is None:
        return None
    values = {name: utc(row[name]) for name in LeaseState.__struct_fields__ if name != "move"}
    return LeaseState(**values, move=decode_move(row["move"]))
