"""The table of the steps of sagas, for a service that declares its tables itself."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

STEPS_TABLE: Final = "saga_steps"
REASON_CHARACTERS_MAX: Final = 500
CODE_CHARACTERS_MAX: Final = 100


def saga_steps(metadata: "MetaData") -> "Table":
    """The table of the steps, in the metadata of a service that owns sagas."""
    # A module that declares tables has loaded SQLAlchemy.
    from sqlalchemy import BigInteger, Column, DateTime, Index, String, Table  # noqa: PLC0415
    from sqlalchemy.dialects.mysql import DATETIME  # noqa: PLC0415

    time = DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
    return Table(
        STEPS_TABLE,
        metadata,
        Column("command_id", String(64), primary_key=True),
        Column("saga", String(50), nullable=False),
        Column("saga_id", BigInteger, nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("name", String(50), nullable=False),
        Column("direction", String(10), nullable=False),
        Column("command_type", String(100), nullable=False),
        Column("status", String(20), nullable=False),
        Column("error_code", String(CODE_CHARACTERS_MAX)),
        Column("error_message", String(REASON_CHARACTERS_MAX)),
        Column("began_at", time, nullable=False),
        Column("ended_at", time),
        Index("saga_steps_of", "saga", "saga_id", "number"),
        # Also in a revision, and where the database has another collation.
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
