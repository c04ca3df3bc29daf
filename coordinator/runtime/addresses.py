"""What the address of a database says, without any driver."""

from typing import Final

FOLDERS: Final = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mongodb": "mongodb",
    "sqlite": "sqlite",
}
"""By the scheme of an address: the folder of `coordinator/stores` in which its kind of database is."""

WITHOUT_SERVER: Final = frozenset({"sqlite"})
"""Of these schemes, those of a file: no process of another machine reads it."""


def scheme_of(url: str) -> str:
    """The kind of database that an address names: `postgresql`, `mysql`, `mongodb`, …"""
    return url.partition("://")[0].partition("+")[0]
