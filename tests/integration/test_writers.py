"""`coordinator writers`: what else can change the rows of a lane is found on each kind of database."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.mongodb.writers import ACTIONS
from coordinator.stores.mongodb.writers import writers as writers_on_mongodb
from coordinator.stores.writers import WritersQuery
from tests.support.databases import FreshDatabases, sql_engine

PASSWORD = "hunter-twelve"  # of a role that the test makes and drops
Execute = Callable[[str], None]


@contextmanager
def executing(url: str) -> Iterator[Execute]:
    engine = sql_engine(url)

    def execute(statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(text(statement))

    yield execute
    engine.dispose()


def shown(lane: str, url: str) -> dict[str, Any]:
    settings = {f"{lane.upper()}_DATABASE_URL": url, f"{lane.upper()}_MIGRATION_URL": None}
    ran = CliRunner().invoke(cli, ["writers", lane, "--json"], env=settings)
    assert ran.exit_code == 0, ran.output
    assert PASSWORD not in ran.output
    (found,) = json.loads(ran.stdout)
    assert found["lane"] == lane
    return dict(found)


def of(found: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    (writer,) = (each for each in found["found"] if each["kind"] == kind and name in each["name"])
    return dict(writer)


def named(found: dict[str, Any]) -> list[str]:
    return [each["name"] for each in found["found"]]


def quoted(body: str) -> str:
    return body.replace("'", "''")


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{PASSWORD}@{parts.hostname}:{parts.port}"))


def test_postgresql(databases: FreshDatabases) -> None:
    url = databases.new("USERS_DATABASE_URL")
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    role, reader = f"legacy_{os.getpid()}", f"report_{os.getpid()}"
    with executing(url) as execute:
        for name in (role, reader):
            execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        try:
            execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}, {reader}")
            found = shown("users", url)
            assert role not in named(found)
            execute(f"GRANT UPDATE (name) ON users TO {role}")
            execute("CREATE TABLE halls (id BIGINT PRIMARY KEY)")
            execute("ALTER TABLE users ADD COLUMN hall BIGINT REFERENCES halls (id) ON DELETE SET NULL")
            execute("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
            execute("CREATE TRIGGER touched BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch()")
            execute("CREATE RULE quiet AS ON DELETE TO users DO INSTEAD NOTHING")
            with executing(as_user(url, role)) as other:
                other("SELECT 1")
                found = shown("users", url)
            writer = of(found, "role", role)
            assert (writer["does"], writer["tables"], writer["connections"]) == ("UPDATE", ["users"], 1)
            assert of(found, "trigger", "touched")["does"] == "calls touch"
            assert of(found, "foreign key", "users_hall_fkey")["does"] == "ON DELETE SET NULL of halls"
            assert of(found, "rule", "quiet")["tables"] == ["users"]
            assert reader not in named(found)
            # Whoever looks, as pages and operators' commands do, is the system itself; another program is not.
            own = urlsplit(url).username or ""
            (note,) = (each for each in found["unseen"] if f"the lane's role, {own}, writes as the lane does" in each)
            assert "database-accounts" in note
            assert own not in named(found)
            with psycopg.connect(url):
                used = of(shown("users", url), "role", own)
            assert (used["does"].partition(":")[0], used["connections"]) == ("the lane's own role, used by others", 1)
            assert used["is_shared"]
        finally:
            for name in (role, reader):
                execute(f"DROP OWNED BY {name}")
                execute(f"DROP ROLE {name}")


def test_functions_of_postgresql_with_the_rights_of_their_owner(databases: FreshDatabases) -> None:
    url = databases.new("USERS_DATABASE_URL")
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    reader = f"caller_{os.getpid()}"
    with executing(url) as execute:
        execute(f"CREATE ROLE {reader}")
        try:
            definers = "LANGUAGE sql SECURITY DEFINER AS 'UPDATE users SET credit = 0'"
            execute(f"CREATE FUNCTION level() RETURNS void {definers}")
            execute(f"CREATE FUNCTION own() RETURNS void {definers}")
            execute("REVOKE ALL ON FUNCTION own() FROM PUBLIC")
            execute(f"CREATE FUNCTION callers() RETURNS void {definers.replace('DEFINER', 'INVOKER')}")
            dynamic = "BEGIN EXECUTE 'UPDATE ' || which || ' SET credit = 0'; END"
            execute(f"CREATE PROCEDURE level_one(which text) LANGUAGE plpgsql SECURITY DEFINER AS '{quoted(dynamic)}'")
            execute(f"REVOKE ALL ON PROCEDURE level_one FROM PUBLIC; GRANT EXECUTE ON PROCEDURE level_one TO {reader}")
            found = shown("users", url)
            owner = urlsplit(url).username
            level = of(found, "routine", "level()")
            assert level["does"] == f"runs as {owner}, and everybody may call it"
            assert level["tables"] == ["users"]
            level_one = of(found, "routine", "level_one(text)")
            assert level_one["does"] == f"runs as {owner}, and {reader} may call it: its text names none of them"
            assert {"users", "purchases"} <= set(level_one["tables"])
            assert not {"own()", "callers()"} & set(named(found))
        finally:
            execute(f"DROP OWNED BY {reader}")
            execute(f"DROP ROLE {reader}")


def test_mysql(databases: FreshDatabases) -> None:
    url = databases.new("PAYMENTS_DATABASE_URL")
    migrate(registry().service("payments"), DatabaseSettings(database_url=url))
    name = urlsplit(url).path.strip("/")
    role = f"legacy_{os.getpid()}"
    with executing(url) as execute:
        execute(f"CREATE USER {role}@'%' IDENTIFIED BY '{PASSWORD}'")
        try:
            execute(f"GRANT SELECT ON {name}.* TO {role}@'%'")
            assert role not in str(named(shown("payments", url)))
            execute(f"GRANT UPDATE, DELETE ON {name}.payments TO {role}@'%'")
            execute("CREATE TRIGGER touched BEFORE UPDATE ON payments FOR EACH ROW SET NEW.version = NEW.version")
            execute("CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM payments WHERE id < 0")
            execute("CREATE PROCEDURE clean_up() DELETE FROM payments")
            with executing(as_user(url, role)) as other:
                other("SELECT 1")
                found = shown("payments", url)
            writer = of(found, "role", role)
            assert (writer["does"], writer["tables"], writer["connections"]) == ("UPDATE, DELETE", ["payments"], 1)
            assert of(found, "trigger", "touched")["does"] == "BEFORE UPDATE"
            assert of(found, "event", "tidy")["tables"] == ["payments"]
            assert of(found, "routine", "clean_up")["tables"] == ["payments"]
            # It says what it is not shown to a role that sees only itself.
            execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {role}@'%'")
            unseen = shown("payments", as_user(url, role))["unseen"]
            assert any("Rights of other accounts" in note for note in unseen), unseen
            assert any("Connections of other accounts" in note for note in unseen), unseen
        finally:
            execute(f"DROP USER {role}@'%'")


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    url = f"sqlite:///{path}"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    path.chmod(0o600)
    alone = shown("users", url)
    assert alone["found"] == []
    assert "Whatever runs as the file's owner may write it: a file has no rights by table." in alone["unseen"]
    path.chmod(0o666)
    with executing(url) as execute:
        execute("CREATE TRIGGER touched AFTER UPDATE ON users BEGIN SELECT 1; END")
        execute("CREATE TABLE imported (id INTEGER)")
        execute('CREATE TRIGGER copied AFTER INSERT ON imported BEGIN DELETE FROM "Users"; END')
        execute("CREATE TRIGGER harmless AFTER INSERT ON imported BEGIN SELECT 1 AS users2; END")
    script = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT 1 FROM users'); print(); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        found = shown("users", url)
        other.communicate(b"\n")
    assert of(found, "process", str(other.pid))["connections"] == 1
    assert [each["does"] for each in found["found"] if each["kind"] == "file"] == [
        "group may write it",
        "everybody may write it",
    ]
    assert of(found, "trigger", "touched")["tables"] == ["users"]
    copied = of(found, "trigger", "copied")
    assert (copied["does"], copied["tables"]) == ("of another table: its text names this one", ["users"])
    assert "harmless" not in named(found)
    # The connection of that process, too, is gone.
    assert "process" not in [each["kind"] for each in shown("users", url)["found"]]


class _Users:
    """A server as MongoDB's documentation has it: the stand-in keeps no users."""

    name = "items"

    def __init__(self, privileges: Sequence[dict[str, Any]]) -> None:
        self.client = self
        self.admin = self
        self._privileges = privileges

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["usersInfo"] == {"forAllDBs": True}:
            return {"users": [{"user": "legacy", "db": "admin"}]}
        assert command == {"usersInfo": {"user": "legacy", "db": "admin"}, "showPrivileges": True}
        return {"users": [{"user": "legacy", "db": "admin", "inheritedPrivileges": self._privileges}]}


@pytest.mark.parametrize(
    ("resource", "actions", "expected"),
    [
        ({"db": "items", "collection": ""}, ["find", "insert", "update"], "insert, update"),
        ({"db": "items", "collection": "items"}, ["remove"], "remove"),
        ({"db": "", "collection": ""}, ["update"], "update"),
        ({"anyResource": True}, ["anyAction"], ", ".join(ACTIONS)),
        ({"db": "items", "collection": ""}, ["dropDatabase"], "dropDatabase"),
        ({"db": "items", "collection": ""}, ["find"], None),
        ({"db": "others", "collection": ""}, ["insert"], None),
        ({"db": "items", "collection": "others"}, ["insert"], None),
        ({"cluster": True}, ["insert"], None),
    ],
)
def test_privileges_of_mongodb(resource: dict[str, Any], actions: list[str], expected: str | None) -> None:
    server: Any = _Users([{"resource": resource, "actions": actions}])
    found = writers_on_mongodb(server, WritersQuery(("items",), "items", "lane", "items")).found
    assert [(each.name, each.does) for each in found] == ([] if expected is None else [("legacy@admin", expected)])


def test_a_mongodb_without_users_says_so(databases: FreshDatabases) -> None:
    url = databases.new("ITEMS_DATABASE_URL")
    migrate(registry().service("items"), DatabaseSettings(database_url=url))
    found = shown("items", url)
    assert found["found"] == []
    assert found["unseen"] == ["The server has no accounts: whoever reaches it may write."]
