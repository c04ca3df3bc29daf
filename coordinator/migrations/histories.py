"""The histories of an SQL database, by way of Alembic.

There are two, each with a version table of its own: the lane's, which is the same everywhere, and the service's.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import (
    Connection,
    MetaData,
    delete,
    insert,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from coordinator.migrations.declared import columns_of_indexes, lacking_indexes, make_declared, unfit_texts
from coordinator.migrations.revisions import AUTHORS, failure_of, revisions_in
from coordinator.runtime.addresses import Address, address_of
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import settings_prefix
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from coordinator.stores.announcements import Announcement, Announcements, Withdrawal
from coordinator.stores.fingerprint_keys import FingerprintKey, first_fingerprint_key
from coordinator.stores.idempotency import first_secrets
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.moves import check_not_moved, decode_move
from coordinator.stores.one_lane import check_lane, lease_lost, parts_lost, unused_lease
from coordinator.stores.reading_rights import reading_rights
from coordinator.stores.revisions import Revision
from coordinator.stores.sql.declared_tables import indexes_without_key, tables_of
from coordinator.stores.sql.defaulted_columns import defaulted_columns
from coordinator.stores.sql.dialect import Dialect
from coordinator.stores.sql.migration_waits import despite_locks, despite_others
from coordinator.stores.sql.schema import Schema
from coordinator.stores.sql.table_differences import differences

ENVIRONMENT = Path(__file__).parent
_LEASE = lane_tables.metadata.tables[LEASE_TABLE]
_LOG = lane_tables.metadata.tables[lane_tables.LogEntry.table]
_SECRETS = lane_tables.metadata.tables[lane_tables.IdempotencySecret.table]
_FINGERPRINT_KEYS = lane_tables.metadata.tables[FingerprintKey.table]
_VERSIONS = lane_tables.metadata.tables[lane_tables.AnnouncedVersion.table]

log = structlog.get_logger("migrate")


def migrate_sql(
    dialect: Dialect,
    service: Service,
    owner: Address,
    lane: Address,
    reader: Address | None,
    withdrawals: Sequence[Withdrawal],
) -> None:
    """Run both up to their heads, and give the lane's role and the reader's their rights.

    Raises SQLAlchemyError and ConfigurationError.
    """
    with _address_of_owner(service, owner, lane):
        dialect.make(owner)
    engine = dialect.engine(owner)
    dialect.bound_locks(engine)
    try:
        with engine.connect() as connection, dialect.alone(connection, owner.database):
            with engine.connect() as other:
                # On its own: each history begins and ends its transactions, and on SQLite both are in one.
                _check_lane(other, service.lane, is_migration=owner != lane)
                _check_known(other, service)
            # Before the tables, so that a lane that is started meanwhile can log in, and waits (`Store.check`).
            _allow_lane(dialect, connection, lane, owner, service)
            upgrade(dialect, connection, ENVIRONMENT / "versions", "lane_schema_version", lane_tables.metadata)
            tables = tables_of(service)
            if service.migrations is not None:
                upgrade(dialect, connection, service.migrations, f"{service.name}_schema_version", tables)
            else:
                despite_locks(dialect, connection, partial(make_declared, dialect, connection, service, owner.database))
            _check_lane_tables(service, connection)
            _take_for(connection, service.lane)
            announcements = _announce(connection, service, withdrawals)
            _make_secret(connection)
            _make_fingerprint_key(connection)
            connection.commit()
            announcements.say()
            # Once more: a revision may have made tables as another role.
            refusal = _allow_lane(dialect, connection, lane, owner, service)
            if refusal is not None:
                log.warning("rights_not_given", service=service.lane, role=lane.user, error=refusal)
            if reader is not None:
                if reader.user in (None, lane.user, owner.user):
                    raise ConfigurationError(
                        f"{settings_prefix(service.lane)}READER_URL: it needs a user of its own, that cannot write"
                    )
                rights = reading_rights(service)
                reads = partial(dialect.allow_reading, connection, reader, owner.database, rights)
                despite_others(dialect, connection, reads)
            for line in dialect.narrow_columns(connection, service.models):
                log.warning("column_too_narrow", service=service.lane, why=line)
            _check_tables(dialect, service, connection)
            for line in defaulted_columns(connection, service.models):
                log.warning("column_may_be_null", service=service.lane, why=line)
            if not dialect.ends_indexes_with_key:
                _warn_of_indexes_without_key(service, connection)
    finally:
        engine.dispose()


def _address_of_owner(service: Service, owner: Address, lane: Address) -> AbstractContextManager[None]:
    return address_of(f"{settings_prefix(service.lane)}{'DATABASE' if owner == lane else 'MIGRATION'}_URL")


def _take_for(connection: Connection, lane: str) -> None:
    """Have the lease row say whose the database is, before the lane has ever run. Raises ConfigurationError."""
    if connection.execute(select(_LEASE.c.lane).where(_LEASE.c.lane == lane)).scalar() is None:
        for model in lane_tables.LEFT_BY_LANE:
            table = lane_tables.metadata.tables[model.table]
            if connection.execute(select(literal(1)).select_from(table).limit(1)).first() is not None:
                raise lease_lost(lane)
        connection.execute(insert(_LEASE).values(unused_lease(datetime.now(UTC)) | {"lane": lane}))


def _announce(connection: Connection, service: Service, withdrawals: Sequence[Withdrawal]) -> Announcements:
    """Say which commands this release knows, and take back what an operator withdraws."""
    found = connection.execute(select(_VERSIONS.c.type, _VERSIONS.c.version, _VERSIONS.c.origin))
    announced = {kind: Announcement(version, origin) for kind, version, origin in found}
    announcements = Announcements(announced, service, withdrawals)
    for change in announcements.changes:
        this = _VERSIONS.c.type == change.type
        if change.after is None:
            connection.execute(delete(_VERSIONS).where(this))
            continue
        values = msgspec.structs.asdict(change.after)
        if change.before is None:
            connection.execute(insert(_VERSIONS).values(type=change.type, **values))
        else:
            connection.execute(update(_VERSIONS).where(this).values(values))
    return announcements


def _make_secret(connection: Connection) -> None:
    """The first secret of gateways' idempotency keys."""
    if connection.execute(select(_SECRETS.c.id).limit(1)).first() is None:
        is_new = connection.execute(select(_LOG.c.command_id).limit(1)).first() is None
        connection.execute(insert(_SECRETS), [msgspec.structs.asdict(each) for each in first_secrets(is_new=is_new)])


def _make_fingerprint_key(connection: Connection) -> None:
    """The first key of fingerprints, for a lane that no process has had: one of an earlier release compares without."""
    is_new = not connection.execute(select(_LEASE.c.epoch)).scalar()
    if is_new and connection.execute(select(_FINGERPRINT_KEYS.c.id).limit(1)).first() is None:
        connection.execute(insert(_FINGERPRINT_KEYS).values(msgspec.structs.asdict(first_fingerprint_key())))


def _check_lane(connection: Connection, lane: str, *, is_migration: bool) -> None:
    if inspect(connection).has_table(LEASE_TABLE):
        lanes = connection.execute(select(_LEASE.c.lane)).scalars()
        check_lane(lanes, lane, is_migration=is_migration)
        if any(column["name"] == _LEASE.c.move.name for column in inspect(connection).get_columns(_LEASE.name)):
            text = connection.execute(select(_LEASE.c.move)).scalar()
            move = decode_move(text)
            # What it would announce, or change, would not go with the lane.
            if move is not None and move.step != "receiving":
                check_not_moved(move)
                raise ConfigurationError(f"{lane}: {move.words}; nothing was migrated: finish the move, or cancel it")


def revisions_of(dialect: Dialect, service: Service, owner: Address, lane: Address) -> list[Revision]:
    """Which revision of each of its histories the database has, and which this release wants. Changes nothing.

    Raises SQLAlchemyError and ConfigurationError.
    """
    with _address_of_owner(service, owner, lane):
        engine = dialect.engine(owner)
    try:
        with engine.connect() as connection:
            if inspect(connection).has_table(LEASE_TABLE):
                check_lane(connection.execute(select(_LEASE.c.lane)).scalars(), service.lane, is_migration=True)
            return [revision for revision, _ in _revisions(connection, service)]
    finally:
        engine.dispose()


def _revisions(connection: Connection, service: Service) -> Iterator[tuple[Revision, set[str]]]:
    """With the names of those that this release has."""
    histories = [(ENVIRONMENT / "versions", "lane_schema_version")]
    if service.migrations is not None:
        histories.append((service.migrations, f"{service.name}_schema_version"))
    for versions, version_table in histories:
        configured = {"version_table": version_table}
        found = MigrationContext.configure(connection, opts=configured).get_current_heads()
        script, known = revisions_in(versions, alembic_config(connection, versions, version_table, MetaData()))
        yield Revision(version_table, ", ".join(found), ", ".join(script.get_heads())), known


def _check_known(connection: Connection, service: Service) -> None:
    """Raise ConfigurationError, before anything is changed, where a newer release has migrated the database."""
    for revision, known in _revisions(connection, service):
        if revision.here and (unknown := sorted(set(revision.here.split(", ")) - known)):
            raise ConfigurationError(
                f"{service.lane}: the database is of a newer release: {revision.history} is {', '.join(unknown)}, and "
                f"this one knows up to {revision.wanted}. Nothing was changed; run `coordinator migrate` of that "
                "release"
            )


def _allow_lane(
    dialect: Dialect, connection: Connection, lane: Address, owner: Address, service: Service
) -> str | None:
    """Why the migrating role may not grant rights, if it may not: it leaves that to another one, and the lane checks
    its rights when it starts."""
    if lane.user in (None, owner.user):
        return None
    try:
        rights = reading_rights(service).all
        despite_others(dialect, connection, partial(dialect.allow, connection, lane, lane.database, rights))
    except DBAPIError as error:
        return " ".join(str(error.orig).split())
    return None


def _check_lane_tables(service: Service, connection: Connection) -> None:
    """A lane that lacks one says to migrate. The history does not make it again where its revision has run."""
    inspector = inspect(connection)
    lost = []
    for table in lane_tables.metadata.sorted_tables:
        if not inspector.has_table(table.name):
            lost.append(f"table {table.name}")
            continue
        here = {column["name"] for column in inspector.get_columns(table.name)}
        lost += [f"column {table.name}.{column.name}" for column in table.columns if column.name not in here]
    if lost:
        raise parts_lost(service.lane, lost)


def _check_tables(dialect: Dialect, service: Service, connection: Connection) -> None:
    """A lane would find no table of a model that no revision makes one for, and this is where to say how."""
    inspector = inspect(connection)
    missing = [model.table for model in service.models if not inspector.has_table(model.table)]
    if missing:
        raise ConfigurationError(
            f"{service.lane}: no migration makes the table {', '.join(missing)}: write an Alembic revision that does, "
            f"in {service.migrations}"
        )
    lacking = []
    for model, statement in lacking_indexes(inspector, service.models, connection):
        if model.__index_is_needed__:
            lacking.append(statement)
        else:
            log.warning("index_missing", service=service.lane, table=model.table, what_to_do=statement)
    faults = []
    if lacking:
        faults.append(
            f"{service.lane}: its rows are selected by indexes that its tables do not have. Make them by an Alembic "
            f"revision, or by hand, also while the lane runs: {' '.join(lacking)}"
        )
    found = differences(connection, Schema(tables_of(service)), service.models)
    if found:
        faults.append("\n  ".join((f"{service.lane}: its tables are not as its rows need them; change them:", *found)))
    faults += unfit_texts(dialect, connection, service, service.models)
    if faults:
        raise ConfigurationError("\n".join(faults))


def _warn_of_indexes_without_key(service: Service, connection: Connection) -> None:
    """Log each index that does not find rows in order of their keys: a list by a frequent value is costly then."""
    inspector = inspect(connection)
    quote = connection.dialect.identifier_preparer.initial_quote
    for model in service.models:
        if model.index and model.__index_is_needed__:
            for statement in indexes_without_key(model, columns_of_indexes(inspector, model.table), quote):
                log.warning("index_without_key", service=service.lane, table=model.table, what_to_do=statement)


def upgrade(dialect: Dialect, connection: Connection, versions: Path, version_table: str, metadata: MetaData) -> None:
    """Run one history up to its head. Raises ConfigurationError if it lacks the revision that the database has."""
    config = alembic_config(connection, versions, version_table, metadata)

    def step() -> None:
        with dialect.resumable(connection, version_table) as version_written:
            config.attributes["version_written"] = version_written
            try:
                command.upgrade(config, "head")
            except (CommandError, *AUTHORS) as error:
                text = str(error) if isinstance(error, CommandError) else failure_of(error, versions)
                raise ConfigurationError(
                    f"the history of {version_table} cannot be brought to its end: {text}"
                ) from None

    despite_locks(dialect, connection, step)


def alembic_config(connection: Connection, versions: Path, version_table: str, metadata: MetaData) -> Config:
    """Alembic's configuration of one history, for `alembic.command`."""
    config = Config()
    for name, folder in (("script_location", ENVIRONMENT), ("version_locations", versions)):
        # A % begins an interpolation there.
        config.set_main_option(name, str(folder).replace("%", "%%"))
    # The only one that no folder of ours can have: the operating system's is a colon.
    config.set_main_option("path_separator", "newline")
    config.attributes.update(
        connection=connection, version_table=version_table, metadata=metadata, version_written=lambda: None
    )
    return config
