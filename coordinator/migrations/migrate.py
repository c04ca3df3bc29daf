"""Bringing a service's database to the schema that this release needs, and giving its gateways a role that only reads.

Two Alembic histories live in an SQL database, each with a version table of its own: the lane's, which is the same
everywhere, and the service's. Running it again, or from several places at once, does no harm.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from pymongo import MongoClient
from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError
from sqlalchemy import URL, Connection, MetaData, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from coordinator.runtime.addresses import scheme_of
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from coordinator.stores.lane_tables import LANE_MODELS, LEASE_TABLE
from coordinator.stores.mongodb.documents import Document

_ENVIRONMENT = Path(__file__).parent
_LOCK_NUMBER = 0x77726974
_LOCK_TIMEOUT_S = 60
_CONNECT_TIMEOUT_S = 5
_NAMESPACE_EXISTS = 48

DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "sqlite": "sqlite",
}

log = structlog.get_logger("migrate")


def migrate(service: Service, settings: DatabaseSettings) -> None:
    """Migrate one service's database. Raises ConfigurationError when it cannot be reached or refuses."""
    url = settings.migration_url or settings.database_url
    try:
        if scheme_of(url) == "mongodb":
            _migrate_documents(service, url)
        else:
            _migrate_sql(service, url, settings.reader_url)
    except (SQLAlchemyError, PyMongoError) as error:
        detail = str(getattr(error, "orig", None) or error).strip()
        raise ConfigurationError(f"{service.name}: the database cannot be migrated: {detail}") from error
    log.info("migrated", service=service.name)


def _migrate_sql(service: Service, url: str, reader_url: str | None) -> None:
    address = make_url(url).set(drivername=DRIVERS[scheme_of(url)])
    arguments = {} if scheme_of(url) == "sqlite" else {"connect_timeout": _CONNECT_TIMEOUT_S}
    engine = create_engine(address, connect_args=arguments)
    try:
        with engine.connect() as connection, _alone(connection):
            upgrade(connection, _ENVIRONMENT / "versions", "lane_schema_version", lane_tables.metadata)
            if service.migrations is not None and service.metadata is not None:
                upgrade(connection, service.migrations, f"{service.name}_schema_version", service.metadata)
            if reader_url is not None:
                _allow_reading(connection, make_url(reader_url), address)
            connection.commit()
    finally:
        engine.dispose()


def upgrade(connection: Connection, versions: Path, version_table: str, metadata: MetaData) -> None:
    """Run one history up to its head."""
    command.upgrade(alembic_config(connection, versions, version_table, metadata), "head")


def alembic_config(connection: Connection, versions: Path, version_table: str, metadata: MetaData) -> Config:
    """Alembic's configuration of one history, for `alembic.command`."""
    config = Config()
    config.set_main_option("script_location", str(_ENVIRONMENT))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=version_table, metadata=metadata)
    return config


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One migration of a database at a time; others wait."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _LOCK_NUMBER})
        connection.commit()
        yield
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": _LOCK_NUMBER})
        connection.commit()
    elif dialect in ("mysql", "mariadb"):
        name = {"name": f"migrate {connection.engine.url.database}", "timeout": _LOCK_TIMEOUT_S}
        if connection.execute(text("SELECT GET_LOCK(:name, :timeout)"), name).scalar() != 1:
            raise ConfigurationError(f"another migration of this database has run for {_LOCK_TIMEOUT_S} s")
        yield
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name["name"]})
    else:
        yield


def _allow_reading(connection: Connection, reader: URL, owner: URL) -> None:
    """Let the reader's role read every table and write none; create it if it does not exist."""
    name, password = reader.username, reader.password
    if not name or name == owner.username:
        raise ConfigurationError("the reader's address needs a user of its own, that cannot write")
    quote = connection.dialect.identifier_preparer.quote_identifier
    if connection.dialect.name == "postgresql":
        exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}).scalar()
        if exists is None:
            literal = connection.execute(text("SELECT quote_literal(:password)"), {"password": password or ""}).scalar()
            connection.exec_driver_sql(f"CREATE ROLE {quote(name)} LOGIN PASSWORD {literal}")
        for statement in (
            f"GRANT CONNECT ON DATABASE {quote(str(owner.database))} TO {quote(name)}",
            f"GRANT USAGE ON SCHEMA public TO {quote(name)}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {quote(name)}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {quote(name)}",
        ):
            connection.exec_driver_sql(statement)
    elif connection.dialect.name in ("mysql", "mariadb"):
        connection.execute(
            text("CREATE USER IF NOT EXISTS :name@'%' IDENTIFIED BY :password"),
            {"name": name, "password": password or ""},
        )
        connection.execute(text(f"GRANT SELECT ON {quote(str(owner.database))}.* TO :name@'%'"), {"name": name})


def _migrate_documents(service: Service, url: str) -> None:
    """Collections and unique indexes; MongoDB has no other schema."""
    client: MongoClient[Document] = MongoClient(url, serverSelectionTimeoutMS=_CONNECT_TIMEOUT_S * 1000)
    try:
        database = client.get_default_database()
        existing = set(database.list_collection_names())
        for name in (LEASE_TABLE, *(model.table for model in (*LANE_MODELS, *service.models))):
            if name not in existing:
                _create(database, name)
        database[lane_tables.LogEntry.table].create_index("sequence", unique=True, name="command_log_sequence")
        database[lane_tables.OutboxEntry.table].create_index([("lane", 1), ("_id", 1)], name="outbox_lane")
        database[lane_tables.DeadLetter.table].create_index("command_id", name="dead_letters_command")
        for model in (*LANE_MODELS, *service.models):
            for column in model.unique:
                database[model.table].create_index(column, unique=True, name=f"{model.table}_{column}_unique")
    finally:
        client.close()


def _create(database: Any, name: str) -> None:
    try:
        database.create_collection(name)
    except CollectionInvalid:
        return
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
