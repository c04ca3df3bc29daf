"""The parts of the distribution that are installed if asked for: `pip install "write-coordinator[mysql]"`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from coordinator.service.errors import ConfigurationError

_EXTRAS: Final = {
    "aiohttp": "http",
    "aiomysql": "mysql",
    "aiosqlite": "http",
    "hypothesis": "testing",
    "jwt": "http",
    "pika": "rabbitmq",
    "psycopg": "postgresql",
    "psycopg_pool": "postgresql",
    "pymongo": "mongodb",
    "bson": "mongodb",
    "pymysql": "mysql",
    "pytest": "testing",
    "redis": "redis",
}
"""By the module that is missing without it."""


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Around an import: raise ConfigurationError for a package that belongs to an extra and is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        hint = extra_of(error)
        if hint is None:
            raise
        raise ConfigurationError(hint) from None


def extra_of(error: Exception) -> str | None:
    """What installs a package that is missing, where it is one of an extra's."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    return f'{package} is not installed: install it with pip install "write-coordinator[{extra}]"'
