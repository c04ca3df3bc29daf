"""A kind of database is in one place, and a process loads no other than its addresses name."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from coordinator.client.database import open_database
from coordinator.reading import Database, Documents
from coordinator.runtime.addresses import FOLDERS, WITHOUT_SERVER, parse_address
from coordinator.runtime.settings import DatabaseSettings, ReaderSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import kind_of
from tests.support.ledger import LEDGER

ROOT = Path(__file__).parents[2]
FRAMEWORK = ROOT / "coordinator"
NAMES_KINDS = {
    "runtime/addresses.py": "the list of them",
    "runtime/extras.py": "a kind's extra has its name",
    "client/repository.py": "PostgreSQL alone finds rows without a value in the order of an index",
    "runtime/schemes.py": "it says what the names are that others have for schemes",
    "client/recency.py": "SQLite alone has one snapshot for all, without being told",
    "stores/lane_columns.py": "the tables are declared before any address names a kind",
    "stores/sql/column_types.py": "so are those of rows",
    "stores/sql/column_shapes.py": "SQLAlchemy's dialects, whose types are read back",
    "stores/sql/table_differences.py": "the same, and what they take for one another",
    "service/saga_table.py": "so is a service's table of its sagas",
}
"""Files outside the folders of kinds that name one, and why. A developer's servers and old revisions do too."""

DRIVERS = {"aiomysql", "aiosqlite", "psycopg", "pymongo", "pymysql"}
ASYNCHRONOUS = {"mysql": {"aiomysql"}, "sqlite": {"aiosqlite"}}
NEEDS = {
    "postgresql": {"psycopg"},
    "mysql": {"pymysql"},
    "mongodb": {"pymongo"},
    "sqlite": set[str](),
}
OPENS = {
    "a lane": "from coordinator.worker import process; kind.open_store(address, LEDGER).close()",
    "an operator": "from coordinator.operate import command, dead; kind.open_admin(address, 'ledger').close()",
    "a gateway": "from coordinator.http import main; from coordinator.reading import open_database; open_database(url)",
}


def url_of(scheme: str) -> str:
    if scheme in WITHOUT_SERVER:
        # An operator's command asks that its file is there; it is not opened.
        return f"{scheme}:///{__file__}"
    return f"{scheme}://localhost/here"


@pytest.mark.parametrize("scheme", FOLDERS)
def test_every_scheme_has_a_kind_that_opens_what_is_asked_of_it_without_connecting(scheme: str) -> None:
    address = parse_address(url_of(scheme))
    kind = kind_of(address)
    kind.open_store(address, LEDGER).close()
    kind.open_admin(address, "ledger").close()
    open_database(url_of(scheme))


def test_an_unknown_scheme_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"for its scheme: it must begin with postgresql://, mysql://, mariadb://, mongodb:// or sqlite://",
    ):
        kind_of(parse_address("oracle://localhost/here"))


@pytest.mark.parametrize("scheme", [*FOLDERS, "oracle"])
def test_settings_take_the_schemes_that_have_a_kind(scheme: str) -> None:
    for settings in (DatabaseSettings, ReaderSettings):
        if scheme in FOLDERS:
            assert settings(database_url=url_of(scheme))
        else:
            with pytest.raises(ValidationError):
                settings(database_url=url_of(scheme))


@pytest.mark.parametrize(
    ("scheme", "process"),
    [(folder, process) for folder in dict.fromkeys(FOLDERS.values()) for process in OPENS],
)
def test_a_process_loads_the_driver_of_its_database_and_no_migrations(scheme: str, process: str) -> None:
    program = f"""
import sys
from coordinator.runtime.addresses import parse_address
from coordinator.stores.kinds import kind_of
from tests.support.ledger import LEDGER
url = {url_of(scheme)!r}
address = parse_address(url)
kind = kind_of(address)
{OPENS[process]}
print(*sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(run.stdout.split())
    asynchronous = ASYNCHRONOUS.get(scheme, set()) if process == "a gateway" else set()
    assert loaded & DRIVERS == NEEDS[scheme] | asynchronous
    assert loaded & {"alembic", "coordinator.migrations"} == set()


def test_what_a_gateway_reads_from_may_stand_in_any_annotation() -> None:
    """Though no driver is loaded for its name."""

    def read(database: Database | None = None, documents: Documents | None = None) -> None: ...

    assert get_type_hints(read).keys() == {"database", "documents", "return"}


def texts(path: Path) -> Iterator[str]:
    """The strings of a file, but for its docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value


def test_a_kind_is_named_in_its_folder_only() -> None:
    """As `dev` and what Alembic runs may do: a developer's servers are a list of programs, and revisions are past."""
    folders = tuple(f"stores/{folder}/" for folder in FOLDERS.values())
    named = re.compile(rf"^({'|'.join(FOLDERS)})(\+\w+)?$")
    wrong = {
        name
        for path in FRAMEWORK.rglob("*.py")
        if not (name := str(path.relative_to(FRAMEWORK))).startswith((*folders, "dev/", "migrations/versions/"))
        and any(named.match(text) for text in texts(path))
    }
    assert wrong == set(NAMES_KINDS)
