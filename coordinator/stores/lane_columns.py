"""The types of the columns of the lane's own tables, as each kind of database spells them.

The tables are declared before any address names a kind of database, so how each spells a type stands here.
"""

from typing import Final

from sqlalchemy import DateTime, LargeBinary, MetaData, String, Text
from sqlalchemy.dialects.mysql import DATETIME, LONGTEXT, MEDIUMBLOB

metadata: Final = MetaData()
"""The lane's own tables."""


def ascii_text(length: int) -> String:
    """Ids, codes and types are compared byte by byte on every database; MySQL's default collation would not."""
    return (
        String(length)
        .with_variant(String(length, collation="ascii_bin"), "mysql", "mariadb")
        .with_variant(String(length, collation="C"), "postgresql")
    )


TIME: Final = DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb")
JSON: Final = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
BYTES: Final = LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb")
