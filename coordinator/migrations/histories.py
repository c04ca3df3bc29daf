"""The histories of an SQL database, by way of Alembic.

There are two, each with a version table of its own: the lane's, which is the same everywhere, and the service's.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine, inspect, make_url

from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from coordinator.stores.sql.dialect import Dialect

ENVIRONMENT = Path(__file__).parent
CONNECT_TIMEOUT_S = 5


def migrate_sql(dialect: Dialect, service: Service, url: str, reader_url: str | None) -> None:
    """Run both up to their heads, and let the reader's role read. Raises SQLAlchemyError and ConfigurationError."""
    address = dialect.address(url)
    engine = create_engine(address, connect_args=dialect.connect_limits(CONNECT_TIMEOUT_S))
    try:
        with engine.connect() as connection, dialect.alone(connection):
            upgrade(connection, ENVIRONMENT / "versions", "lane_schema_version", lane_tables.metadata)
            if service.migrations is not None and service.metadata is not None:
                upgrade(connection, service.migrations, f"{service.name}_schema_version", service.metadata)
            if reader_url is not None:
                reader = make_url(reader_url)
                if not reader.username or reader.username == address.username:
                    raise ConfigurationError("the reader's address needs a user of its own, that cannot write")
                dialect.allow_reading(connection, reader, address)
            connection.commit()
            _check_tables(service, connection)
    finally:
        engine.dispose()


def _check_tables(service: Service, connection: Connection) -> None:
    """A lane would find no table of a model that nobody has made one for, and this is where to say how."""
    inspector = inspect(connection)
    missing = [model.table for model in service.models if not inspector.has_table(model.table)]
    if missing:
        where = service.migrations or f"a folder that Service(name={service.name!r}) names as its `migrations`"
        raise ConfigurationError(
            f"{service.name}: no migration makes the table {', '.join(missing)}: write an Alembic revision that does, "
            f'in {where} (docs/API.md, "The tables of a service")'
        )


def upgrade(connection: Connection, versions: Path, version_table: str, metadata: MetaData) -> None:
    """Run one history up to its head."""
    command.upgrade(alembic_config(connection, versions, version_table, metadata), "head")


def alembic_config(connection: Connection, versions: Path, version_table: str, metadata: MetaData) -> Config:
    """Alembic's configuration of one history, for `alembic.command`."""
    config = Config()
    config.set_main_option("script_location", str(ENVIRONMENT))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=version_table, metadata=metadata)
    return config
