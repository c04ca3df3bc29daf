"""`coordinator guard`: whoever wrote a lane's tables may not any more, as he finds when he tries."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.mongodb.foreign_rights import command_of
from coordinator.stores.mongodb.foreign_rights import foreign_rights as rights_on_mongodb
from coordinator.stores.writers import WritersQuery
from tests.support.databases import FreshDatabases, sql_engine

pytestmark = pytest.mark.operators

PASSWORD = "hunter-twelve"  # of roles that the tests make and drop
NAMES = ("legacy", 'le"ga%cy', "l'été _%", "back\\slash", "two words")
"""Names of roles: what a statement, a pattern or the driver could take for something else."""


def of_this_test(name: str) -> str:
    return f"{name} {os.getpid()}"


class Database:
    """A lane's database, as its migrator; and whoever tries to write it."""

    def __init__(self, lane: str, url: str) -> None:
        self.lane = lane
        self.lane_role, self.reader = of_this_test(f"{lane} lane"), of_this_test(f"{lane} reader")
        self.settings = {
            f"{lane.upper()}_DATABASE_URL": self.as_role(url, self.lane_role),
            f"{lane.upper()}_READER_URL": self.as_role(url, self.reader),
            f"{lane.upper()}_MIGRATION_URL": url,
        }
        self.url = url
        self._engine = sql_engine(url)
        self._made: list[str] = []
        migrate(
            registry().service(lane),
            DatabaseSettings(
                database_url=self.settings[f"{lane.upper()}_DATABASE_URL"],
                reader_url=self.settings[f"{lane.upper()}_READER_URL"],
                migration_url=url,
            ),
        )

    def run(self, *statements: str) -> None:
        with self._engine.connect() as connection:
            for statement in statements:
                execute(connection, statement)

    def close(self) -> None:
        self._engine.dispose()

    @staticmethod
    def as_role(url: str, role: str) -> str:
        parts = urlsplit(url)
        netloc = f"{quote(role, safe='')}:{PASSWORD}@{parts.hostname}:{parts.port}"
        return urlunsplit(parts._replace(netloc=netloc))

    @property
    def is_mariadb(self) -> bool:
        with self._engine.connect() as connection:
            return "MariaDB" in str(connection.exec_driver_sql("SELECT VERSION()").scalar())

    def may(self, role: str, statement: str) -> bool:
        """Whether a role can run a statement, by running it."""
        engine = sql_engine(self.as_role(self.url, role))
        try:
            with engine.connect() as connection:
                execute(connection, statement)
        except DBAPIError as error:
            if "denied" not in str(error):
                raise
            return False
        finally:
            engine.dispose()
        return True

    def guard(self, *options: str, **settings: str) -> tuple[int, dict[str, Any]]:
        ran = self.invoke("--json", *options, **settings)
        assert ran.exit_code in (0, 1), (ran.output, ran.exception)
        assert ran.stdout, ran.stderr
        return ran.exit_code, json.loads(ran.stdout)

    def invoke(self, *options: str, **settings: str | None) -> Result:
        ran = CliRunner().invoke(cli, ["guard", self.lane, *options], env=self.settings | settings)
        assert PASSWORD not in ran.output
        return ran


def execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def who(found: Sequence[dict[str, Any]]) -> set[str]:
    return {each["who"] for each in found}


@contextmanager
def dropping(database: Database, drops: Sequence[str]) -> Iterator[None]:
    try:
        yield
    finally:
        database.run(*drops)
        database.close()


def ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_DROPS = ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}")


@pytest.fixture
def postgresql(databases: FreshDatabases) -> Iterator[tuple[Database, list[str]]]:
    """With a role of each name."""
    database = Database("users", databases.new("USERS_DATABASE_URL"))
    roles = [of_this_test(name) for name in NAMES]
    every = [*roles, database.lane_role, database.reader]
    drops = [way.format(ident(role)) for role in every for way in _DROPS]
    with dropping(database, drops):
        database.run(*(f"CREATE ROLE {ident(role)} LOGIN PASSWORD '{PASSWORD}'" for role in roles))
        yield database, roles


WRITE = "UPDATE users SET name = name"
READ = "SELECT id FROM users"


def test_on_postgresql_each_kind_of_right_ends(postgresql: tuple[Database, list[str]]) -> None:
    database, (whole, column, passed, taken, view) = postgresql
    database.run(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON users, command_log TO {ident(whole)}",
        f"GRANT SELECT, UPDATE (name) ON users TO {ident(column)}",
        f"GRANT SELECT, UPDATE ON users TO {ident(passed)} WITH GRANT OPTION",
        f"SET ROLE {ident(passed)}",
        f"GRANT SELECT, UPDATE ON users TO {ident(taken)}",
        f"GRANT UPDATE ON users TO {ident(database.lane_role)}",
        "RESET ROLE",
        "CREATE VIEW few AS SELECT id, name FROM users WHERE id > 1",
        f"GRANT SELECT, UPDATE ON few TO {ident(view)}",
        "GRANT TRUNCATE ON outbox TO PUBLIC",
    )
    writers = [whole, column, passed, taken]
    assert [database.may(role, WRITE) for role in writers] == [True] * 4
    assert database.may(view, "UPDATE few SET name = name")
    assert database.may(whole, "DELETE FROM command_log")
    assert database.may(column, "TRUNCATE outbox")
    assert database.may(database.reader, READ)

    status, shown = database.guard()
    assert status == 1
    assert who(shown["remaining"]) == {*writers, view, "PUBLIC"}
    assert database.may(whole, WRITE), "it only looked"

    status, shown = database.guard("--apply")
    assert status == 1, shown
    assert [(each["who"], each["is_wide"]) for each in shown["remaining"]] == [(view, True)]
    assert [database.may(role, WRITE) for role in writers] == [False] * 4
    assert not database.may(whole, "DELETE FROM command_log")
    assert not database.may(column, "TRUNCATE outbox")
    assert database.may(view, "UPDATE few SET name = name")

    status, shown = database.guard("--apply", "--wide", "--reason", "ours")
    assert (status, shown["remaining"]) == (0, [])
    assert not database.may(view, "UPDATE few SET name = name")
    # Who reads still does, and so does the lane all that it did.
    assert [database.may(role, READ) for role in (*writers, database.reader)] == [True] * 5
    assert database.may(view, "SELECT id FROM few")
    for statement in (WRITE, "DELETE FROM outbox", "INSERT INTO counters VALUES ('x', 1)", READ):
        assert database.may(database.lane_role, statement), statement
    # A second time there is nothing to do.
    again = database.guard("--apply", "--wide")
    assert (again[0], again[1]["statements"]) == (0, [])
    # What was done is kept with its author, and nothing of what was only looked at.
    told = CliRunner().invoke(cli, ["audit", "users", "--operators", "--json"], env=database.settings)
    acts = [each for each in json.loads(told.stdout) if each["act"] == "guard"]
    kept = {each["reason"]: each["details"]["statements"] for each in acts}
    assert (set(kept), len(kept["ours"]), len(acts)) == ({None, "ours"}, 1, 2)


def test_on_postgresql_a_program_with_the_lanes_role_or_the_migrators_is_said(
    postgresql: tuple[Database, list[str]],
) -> None:
    database, _ = postgresql
    lane, migrator = database.lane_role, str(urlsplit(database.url).username)
    ran = database.invoke("--apply")
    assert ran.exit_code == 0, ran.output
    assert f"no role may write its tables but {lane}, which must be the lane's alone, and {migrator}" in ran.stdout
    # By its role's rights an application that shares it is no other. It is one by what it is connected as.
    with psycopg.connect(database.settings["USERS_DATABASE_URL"]):
        status, shown = database.guard("--apply")
        said = database.invoke().stdout
    assert (status, shown["remaining"], shown["kept"]) == (1, [], [lane, migrator])
    assert [(each["name"], each["connections"]) for each in shown["shared"]] == [(lane, 1)]
    assert f"others have its role {lane} now, the lane's (connections: 1)" in said
    # As an operator has it, with the lane's address alone.
    database.run(f"GRANT UPDATE ON users TO {ident(database.reader)}")
    alone = database.invoke("--apply", USERS_MIGRATION_URL=None)
    assert alone.exit_code == 1
    assert f"it looked as {lane}, of USERS_DATABASE_URL, since USERS_MIGRATION_URL is not set" in alone.stdout
    assert "is not set" not in database.invoke("--apply").stdout
    # Without a migrator of its own: the application's address is the lane's, as it begins.
    both = database.invoke("--apply", USERS_DATABASE_URL=database.url, USERS_MIGRATION_URL=None)
    assert f"but {migrator}, which must be the lane's alone: a program that logs in as it writes, too" in both.stdout


def test_on_postgresql_what_a_reader_may_write_by_a_function_is_said(postgresql: tuple[Database, list[str]]) -> None:
    database, _ = postgresql
    body = "UPDATE users SET credit = credit + 1"
    database.run(f"CREATE FUNCTION gift() RETURNS void LANGUAGE sql SECURITY DEFINER AS '{body}'")
    assert database.may(database.reader, "SELECT gift()")
    ran = database.invoke()
    assert ran.exit_code == 0, ran.output
    said = ran.output.splitlines()
    assert any(line.startswith("routine gift(): runs as ") and line.endswith("(users)") for line in said), said
    assert "users: by what is listed here its tables may be changed, too" in ran.output
    database.run("REVOKE EXECUTE ON FUNCTION gift FROM PUBLIC")
    assert not database.may(database.reader, "SELECT gift()")
    ran = database.invoke()
    assert "gift" not in ran.output
    assert "listed here" not in ran.output


def test_on_postgresql_what_others_may_write_by_another_table_is_said(postgresql: tuple[Database, list[str]]) -> None:
    database, (by_rule, by_trigger, *_) = postgresql
    body = "BEGIN UPDATE users SET credit = 0; RETURN NEW; END"
    database.run(
        "CREATE TABLE ruled (id bigint)",
        "CREATE VIEW few AS SELECT id, name FROM users",
        "CREATE RULE follows AS ON INSERT TO ruled DO ALSO UPDATE few SET name = name",
        f"GRANT INSERT ON ruled TO {ident(by_rule)}",
        "CREATE TABLE watched (id bigint)",
        f"CREATE FUNCTION reset() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $${body}$$",
        "REVOKE EXECUTE ON FUNCTION reset FROM PUBLIC",
        "CREATE TRIGGER resets BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION reset()",
        f"GRANT INSERT ON watched TO {ident(by_trigger)}",
    )
    assert database.may(by_rule, "INSERT INTO ruled VALUES (1)")
    assert database.may(by_trigger, "INSERT INTO watched VALUES (1)")
    status, shown = database.guard()
    assert (status, shown["remaining"]) == (0, [])
    means = {(each["kind"], each["name"]): each for each in shown["other_means"]}
    assert set(means) == {("rule", "follows"), ("trigger", "resets")}
    assert all(each["tables"] == ["users"] for each in means.values())
    assert means["rule", "follows"]["does"].startswith("of ruled: ")
    assert means["trigger", "resets"]["does"].startswith("of watched: calls reset(), which runs as ")


def test_on_postgresql_members_of_roles_lose_what_they_had_by_them(postgresql: tuple[Database, list[str]]) -> None:
    database, (group, member, of_lane, everything, without) = postgresql
    lane = ident(database.lane_role)
    database.run(
        f"GRANT USAGE ON SCHEMA public TO {ident(group)}",
        f"GRANT SELECT, UPDATE ON users TO {ident(group)}",
        # The lane itself has the right only as another member of the group.
        f"REVOKE UPDATE ON users FROM {lane}",
        f"GRANT {ident(group)} TO {ident(member)}, {lane}",
        f"GRANT {lane} TO {ident(of_lane)}",
        f"ALTER ROLE {ident(without)} NOINHERIT",
        f"GRANT {lane} TO {ident(without)}",
        f"GRANT pg_write_all_data TO {ident(everything)}",
        f"GRANT SELECT ON users TO {ident(everything)}",
    )
    assert [database.may(role, WRITE) for role in (member, of_lane, everything, database.lane_role)] == [True] * 4
    assert database.may(without, f"SET ROLE {lane}")
    status, shown = database.guard("--apply")
    assert status == 1
    assert who(shown["remaining"]) == {of_lane, everything, without}
    assert [database.may(role, WRITE) for role in (member, of_lane, everything)] == [False, True, True]
    assert database.may(database.lane_role, WRITE)
    status, shown = database.guard("--apply", "--wide")
    assert (status, shown["remaining"]) == (0, [])
    assert [database.may(role, WRITE) for role in (member, of_lane, everything)] == [False] * 3
    assert not database.may(without, f"SET ROLE {lane}")
    assert database.may(database.lane_role, WRITE)
    assert database.may(member, READ)


def test_on_postgresql_what_the_lane_gave_away_ends(postgresql: tuple[Database, list[str]]) -> None:
    """By its own option, with which it gave the right to somebody else; the lane keeps the right."""
    database, (role, partition, *_) = postgresql
    lane = ident(database.lane_role)
    database.run(
        f"GRANT UPDATE, DELETE ON users TO {lane} WITH GRANT OPTION",
        f"GRANT SELECT ON users TO {ident(role)}",
        f"SET ROLE {lane}",
        f"GRANT UPDATE, DELETE ON users TO {ident(role)}",
        "RESET ROLE",
        "CREATE TABLE older () INHERITS (users)",
        f"GRANT SELECT, INSERT, UPDATE ON older TO {ident(partition)}",
    )
    assert database.may(role, WRITE)
    assert database.may(partition, "UPDATE older SET name = name")
    status, shown = database.guard("--apply")
    assert (status, shown["remaining"]) == (0, [])
    assert not database.may(role, WRITE)
    assert not database.may(partition, "UPDATE older SET name = name")
    assert database.may(database.lane_role, WRITE)
    assert database.may(partition, "SELECT id FROM older")


def test_on_postgresql_as_an_owner_who_is_no_administrator(postgresql: tuple[Database, list[str]]) -> None:
    """What only others may revoke is said, and what tables to come would give away ends."""
    database, (owner, role, other, *_) = postgresql
    migrator = Database.as_role(database.url, owner)
    database.run(
        f"ALTER SCHEMA public OWNER TO {ident(owner)}",
        *(f"ALTER TABLE {table} OWNER TO {ident(owner)}" for table in ("users", "command_log")),
        f"GRANT UPDATE ON users, outbox TO {ident(role)}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {ident(owner)} IN SCHEMA public GRANT INSERT ON TABLES TO {ident(other)}",
        f"GRANT {ident(owner)} TO {ident(other)}",
    )
    settings = {"USERS_MIGRATION_URL": migrator}
    status, shown = database.guard("--apply", "--wide", **settings)
    assert status == 1
    remaining = {(each["who"], each["does"].split(" of ")[0]): each for each in shown["remaining"]}
    assert remaining[role, "UPDATE"]["tables"] == ["outbox"]
    assert "only coordinator, who owns" in remaining[role, "UPDATE"]["why"]
    assert "ALTER TABLE" in remaining["coordinator", "owns them"]["why"]
    assert "may run REVOKE" in remaining[other, "member"]["why"]
    assert len(remaining) == 3, remaining
    assert not database.may(role, WRITE)
    assert "coordinator" in who(shown["administrators"]), "a superuser, too"
    with_owner = sql_engine(migrator)
    with with_owner.connect() as connection:
        execute(connection, "CREATE TABLE later (id bigint)")
    with_owner.dispose()
    database.run(f"REVOKE {ident(owner)} FROM {ident(other)}")
    assert not database.may(other, "INSERT INTO later VALUES (1)")


def test_on_postgresql_who_refers_to_a_table_writes_it(postgresql: tuple[Database, list[str]]) -> None:
    """What refers to a row goes with it, and its deferred triggers ran as the lane, before PostgreSQL 18."""
    database, (role, column, *_) = postgresql
    database.run(
        f"CREATE SCHEMA refers AUTHORIZATION {ident(role)}",
        f"GRANT REFERENCES ON users TO {ident(role)}",
        f"GRANT REFERENCES (id) ON users TO {ident(column)}",
    )
    assert database.may(role, "CREATE TABLE refers.held (id bigint REFERENCES public.users ON DELETE CASCADE)")
    status, shown = database.guard("--apply")
    assert (status, shown["remaining"]) == (0, [])
    assert len(shown["statements"]) == 2
    assert not database.may(role, "CREATE TABLE refers.more (id bigint REFERENCES public.users)")
    assert f"of refers.held, which follows it and is {role}'s" in database.invoke().output


def test_on_postgresql_who_has_the_server_run_his_code_is_found(postgresql: tuple[Database, list[str]]) -> None:
    database, (setting, writing, *_) = postgresql
    shown = database.guard()[1]["remaining"]
    database.run(
        f"GRANT ALTER SYSTEM ON PARAMETER archive_command TO {ident(setting)}",
        f"GRANT ALTER SYSTEM ON PARAMETER work_mem TO {ident(setting)}",
        f"GRANT EXECUTE ON FUNCTION lo_export(oid, text) TO {ident(writing)}",
    )
    try:
        status, found = database.guard("--apply", "--wide")
    finally:
        database.run(
            f"REVOKE ALTER SYSTEM ON PARAMETER archive_command, work_mem FROM {ident(setting)}",
            f"REVOKE EXECUTE ON FUNCTION lo_export(oid, text) FROM {ident(writing)}",
        )
    assert status == 1
    new = [each for each in found["remaining"] if each not in shown]
    assert [(each["who"], each["does"]) for each in new] == [
        (writing, "EXECUTE ON FUNCTION lo_export(oid,text), by which it may do anything"),
        (setting, "ALTER SYSTEM ON PARAMETER archive_command, by which it may do anything"),
    ]
    revoke = f"REVOKE ALTER SYSTEM ON PARAMETER archive_command FROM {ident(setting)}"
    assert new[1]["why"] == f"only a superuser may run {revoke}"


def test_on_postgresql_who_makes_what_the_lane_calls_is_found(postgresql: tuple[Database, list[str]]) -> None:
    """An operator for texts of the table's own type is called in the place of the server's, as whoever runs the
    statement."""
    database, (in_schema, in_database, owner, *_) = postgresql
    name = urlsplit(database.url).path.strip("/")
    database.run(
        "INSERT INTO users (id, name, email, credit, version, created_at) VALUES (1, 'Ada', '', 1, 1, now())",
        f"GRANT CREATE ON SCHEMA public TO {ident(in_schema)}",
        f"GRANT CREATE ON DATABASE {name} TO {ident(in_database)}",
        f"CREATE SCHEMA {ident(database.lane_role)} AUTHORIZATION {ident(owner)}",
    )
    body = "BEGIN UPDATE public.users SET credit = 2 WHERE credit = 1; RETURN TRUE; END"
    assert database.may(
        in_schema,
        f"CREATE FUNCTION public.same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS $${body}$$; "
        "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.same)",
    )
    assert database.may(database.lane_role, "SELECT id FROM users WHERE email = 'nobody'")
    database.run("UPDATE users SET credit = 1 / (credit - 1)")  # it is 2 by now
    status, shown = database.guard()
    assert status == 1
    assert who(shown["remaining"]) == {in_schema, in_database, owner}
    status, shown = database.guard("--apply", "--wide")
    assert (status, who(shown["remaining"])) == (1, {owner})
    assert "ALTER SCHEMA" in shown["remaining"][0]["why"]
    assert not database.may(in_schema, "CREATE FUNCTION public.more() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert not database.may(in_database, "CREATE SCHEMA more")


def test_on_postgresql_what_runs_with_rights_that_nobody_may_call_is_said(
    postgresql: tuple[Database, list[str]],
) -> None:
    database, (owner, *_) = postgresql
    writes = "LANGUAGE plpgsql AS 'BEGIN UPDATE public.users SET credit = credit; RETURN 1; END'"
    database.run(
        f"CREATE FUNCTION touch(int, int) RETURNS int SECURITY DEFINER {writes}",
        "REVOKE EXECUTE ON FUNCTION touch FROM PUBLIC",
        "CREATE AGGREGATE touching (int) (SFUNC = touch, STYPE = int, INITCOND = '0')",
        "CREATE FUNCTION fits(text) RETURNS boolean LANGUAGE sql AS 'SELECT TRUE'",
        f"ALTER FUNCTION fits OWNER TO {ident(owner)}",
        "ALTER TABLE users ADD CONSTRAINT fitting CHECK (fits(name))",
    )
    assert not database.may(owner, "SELECT touch(1, 1)")
    assert database.may(owner, "SELECT touching(1)")
    said = database.invoke().output
    assert "routine touch(integer,integer): runs as coordinator, and function touching(integer) calls it" in said
    assert f"routine fits(text): {owner} may put another in its place, and constraint fitting on table users" in said


def test_on_postgresql_a_look_at_another_place_is_refused(
    postgresql: tuple[Database, list[str]], databases: FreshDatabases
) -> None:
    """Nobody writes tables that are not there."""
    database, (writing, migrating, *_) = postgresql
    migrator = {"USERS_MIGRATION_URL": database.as_role(database.url, migrating)}
    database.run(
        f"GRANT UPDATE ON users TO {ident(writing)}",
        f"GRANT SELECT ON lane_lease TO {ident(migrating)}",
        f"CREATE SCHEMA first AUTHORIZATION {ident(migrating)}",
        f"ALTER ROLE {ident(migrating)} SET search_path = first, public",
    )
    empty = {"USERS_MIGRATION_URL": databases.new("USERS_DATABASE_URL")}
    for settings, why in ((migrator, "it looks in the schema first"), (empty, "where no lane's tables are")):
        ran = database.invoke("--apply", **settings)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert why in ran.stderr
    database.run("UPDATE lane_lease SET lane = 'items'")
    ran = database.invoke()
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "it looks in the database of lane items" in ran.stderr


def my(name: str, host: str = "%") -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'@'{host}'"


@pytest.fixture
def mysql(databases: FreshDatabases) -> Iterator[tuple[Database, list[str]]]:
    database = Database("payments", databases.new("PAYMENTS_DATABASE_URL"))
    roles = [of_this_test(name) for name in NAMES]
    drops = [f"DROP USER {my(role)}" for role in (*roles, database.lane_role, database.reader)]
    with dropping(database, drops):
        database.run(*(f"CREATE USER {my(role)} IDENTIFIED BY '{PASSWORD}'" for role in roles))
        yield database, roles


def test_on_mysql_each_kind_of_right_ends(mysql: tuple[Database, list[str]]) -> None:
    database, (table, column, schema, everywhere, view) = mysql
    name = urlsplit(database.url).path.strip("/")
    pattern = name.replace("_", "\\_")
    write, read = "UPDATE payments SET version = version", "SELECT id FROM payments"
    by_view = "UPDATE few SET version = version"
    database.run(
        f"GRANT SELECT, UPDATE, DELETE ON payments TO {my(table)} WITH GRANT OPTION",
        f"GRANT SELECT, DELETE ON command_log TO {my(table)}",
        f"GRANT SELECT, UPDATE (version, `status`), INSERT (id) ON payments TO {my(column)}",
        f"GRANT ALL ON `{pattern}`.* TO {my(schema)}",
        f"GRANT SELECT, UPDATE ON *.* TO {my(everywhere)}",
        "CREATE VIEW few AS SELECT id, version FROM payments WHERE id > 1",
        f"GRANT SELECT, UPDATE ON few TO {my(view)}",
    )
    writers = [table, column, schema, everywhere]
    assert [database.may(role, write) for role in writers] == [True] * 4
    assert database.may(view, by_view)
    status, shown = database.guard()
    assert status == 1
    assert who(shown["remaining"]) == {f"'{role}'@'%'" for role in (*writers, view)}
    assert database.may(table, write), "it only looked"
    status, shown = database.guard("--apply")
    assert status == 1
    assert who(shown["remaining"]) == {f"'{role}'@'%'" for role in (everywhere, view)}
    assert [database.may(role, write) for role in writers] == [False, False, False, True]
    assert not database.may(table, "DELETE FROM command_log")
    status, shown = database.guard("--apply", "--wide")
    assert (status, shown["remaining"]) == (0, [])
    assert not database.may(everywhere, write)
    assert not database.may(view, by_view)
    assert [database.may(role, read) for role in (*writers, database.reader)] == [True] * 5
    for statement in (write, "DELETE FROM outbox", "INSERT INTO counters VALUES ('x', 1)", read):
        assert database.may(database.lane_role, statement), statement
    again = database.guard("--apply", "--wide")
    assert (again[0], again[1]["statements"]) == (0, [])


def test_on_mysql_what_a_reader_may_write_by_another_database_is_said(mysql: tuple[Database, list[str]]) -> None:
    database, _ = mysql
    name, other = urlsplit(database.url).path.strip("/"), f"reports_{os.getpid()}"
    database.run(
        f"CREATE DATABASE {other}",
        f"CREATE VIEW {other}.few AS SELECT id, version FROM {name}.payments",
        f"CREATE VIEW {other}.same AS SELECT 1 AS payments",
        f"CREATE PROCEDURE {other}.touch() UPDATE `{name}` . payments SET version = version",
        f"CREATE PROCEDURE {other}.any_one() BEGIN SET @it = CONCAT('UPDATE {name}.pay', 'ments SET version = 1'); "
        "PREPARE made FROM @it; EXECUTE made; END",
        f"CREATE PROCEDURE {other}.by_server() CALL sys.execute_prepared_stmt(CONCAT('UPDATE {name}.pay', 'ments …'))",
        f"CREATE PROCEDURE {other}.harmless() SQL SECURITY INVOKER BEGIN PREPARE made FROM 'SELECT 1'; END",
        f"GRANT UPDATE, SELECT, EXECUTE ON {other}.* TO {my(database.reader)}",
    )
    try:
        assert database.may(database.reader, f"CALL {other}.any_one()")
        assert database.may(database.reader, f"UPDATE {other}.few SET version = version")
        assert database.may(database.reader, f"CALL {other}.touch()")
        said = database.invoke().output.splitlines()
        assert f"view {other}.few: of the database {other}: it is made of the table (payments)" in said
        assert f"routine {other}.touch: of the database {other}: its text names the table (payments)" in said
        made = [line for line in said if "makes statements" in line]
        assert [line.partition(": runs as ")[0] for line in made] == [
            f"routine {other}.{each}" for each in ("any_one", "by_server")
        ]
        assert not any("same" in line for line in said)
        assert any("by what is listed here its tables may be changed, too" in line for line in said)
    finally:
        database.run(f"DROP DATABASE {other}")


def test_on_mysql_who_may_write_a_view_upon_another_is_found(mysql: tuple[Database, list[str]]) -> None:
    database, (here, elsewhere, *_) = mysql
    name, other = urlsplit(database.url).path.strip("/"), f"reports_{os.getpid()}"
    database.run(
        "CREATE SQL SECURITY INVOKER VIEW few AS SELECT id, version FROM payments WHERE id > 1",
        "CREATE VIEW fewer AS SELECT id, version FROM few WHERE id > 2",
        f"CREATE DATABASE {other}",
        f"CREATE VIEW {other}.fewest AS SELECT id, version FROM {name}.fewer",
        f"GRANT SELECT, UPDATE ON fewer TO {my(here)}",
        f"GRANT SELECT, UPDATE ON {other}.fewest TO {my(elsewhere)}",
        f"GRANT SELECT ON fewer TO {my(elsewhere)}",
    )
    try:
        assert database.may(here, "UPDATE fewer SET version = version")
        assert database.may(elsewhere, f"UPDATE {other}.fewest SET version = version")
        status, shown = database.guard("--apply", "--wide")
        assert (status, shown["remaining"]) == (0, [])
        assert not database.may(here, "UPDATE fewer SET version = version")
        (listed,) = shown["other_means"]
        assert (listed["kind"], listed["name"], listed["tables"]) == ("view", f"{other}.fewest", ["payments"])
    finally:
        database.run(f"DROP DATABASE {other}")


def test_on_mysql_what_a_role_may_on_all_databases_is_found(mysql: tuple[Database, list[str]]) -> None:
    database, (member, everybody, *_) = mysql
    if not database.is_mariadb:
        pytest.skip("only MariaDB has roles that are no accounts")
    writing, powerful = of_this_test("writing `all`"), of_this_test("powerful: a'll")
    write = "UPDATE payments SET version = version"
    literal, power = (my(each).split("@")[0] for each in (writing, powerful))
    try:
        database.run(
            f"CREATE ROLE {literal}",
            f"CREATE ROLE {power}",
            f"GRANT SELECT, UPDATE ON *.* TO {literal}",
            f"GRANT {literal} TO {my(member)}",
            f"SET DEFAULT ROLE {literal} FOR {my(member)}",
            f"GRANT ALL PRIVILEGES ON *.* TO {power} WITH GRANT OPTION",
            f"GRANT SELECT ON payments TO {my(everybody)}",
        )
        assert database.may(member, write)
        database.run(f"GRANT {literal} TO {my(database.reader)}")
        assert f"'{database.reader}'@'%'" in who(database.guard()[1]["reads"])
        status, shown = database.guard("--apply", "--wide")
        assert (status, shown["remaining"]) == (0, [])
        assert f"'{powerful}'@''" in who(shown["administrators"])
        assert not database.may(member, write)
        assert database.may(member, "SELECT id FROM payments")
        database.run("GRANT UPDATE ON *.* TO PUBLIC")
        assert database.may(everybody, write)
        assert database.guard("--apply", "--wide")[0] == 0
        assert not database.may(everybody, write)
    finally:
        database.run(f"DROP ROLE {literal}", f"DROP ROLE {power}", "REVOKE UPDATE ON *.* FROM PUBLIC")


def test_on_mysql_who_may_write_the_servers_own_tables_is_found(mysql: tuple[Database, list[str]]) -> None:
    database, (schema, table, column, harmless, _) = mysql
    database.run(
        f"GRANT INSERT ON mysql.* TO {my(schema)}",
        f"GRANT UPDATE ON mysql.db TO {my(table)}",
        f"GRANT UPDATE (user) ON mysql.db TO {my(column)}",
        f"GRANT SELECT ON mysql.* TO {my(harmless)}",
    )
    status, shown = database.guard("--apply")
    assert (status, who(shown["remaining"])) == (1, {f"'{role}'@'%'" for role in (schema, table, column)})
    status, shown = database.guard("--apply", "--wide")
    assert (status, shown["remaining"]) == (0, [])


def test_on_mysql_who_decides_what_other_sessions_run_is_an_administrator(mysql: tuple[Database, list[str]]) -> None:
    database, (role, *_) = mysql
    right = "CONNECTION ADMIN" if database.is_mariadb else "SYSTEM_VARIABLES_ADMIN"
    database.run(f"GRANT {right} ON *.* TO {my(role)}")
    # What he sets, `init_connect`, runs in each session with its own rights: here it would in those of other tests.
    status, shown = database.guard()
    assert (status, shown["remaining"]) == (0, [])
    (listed,) = (each for each in shown["administrators"] if each["who"] == f"'{role}'@'%'")
    assert listed["does"] == right


def test_on_mysql_who_may_act_as_another_one_is_an_administrator(mysql: tuple[Database, list[str]]) -> None:
    database, (role, *_) = mysql
    name, own = urlsplit(database.url).path.strip("/"), f"own_{os.getpid()}"
    right = "SET USER" if database.is_mariadb else "SET_ANY_DEFINER"
    database.run(
        f"CREATE DATABASE {own}",
        # He logs in here.
        f"GRANT SELECT ON payments TO {my(role)}",
        f"GRANT {right} ON *.* TO {my(role)}",
        f"GRANT CREATE ROUTINE, EXECUTE ON {own}.* TO {my(role)}",
        f"GRANT EXECUTE ON {own}.* TO {my(database.lane_role)}",
    )
    lane = my(database.lane_role)
    try:
        made = f"CREATE DEFINER = {lane} PROCEDURE {own}.touch() UPDATE {name}.payments SET version = version"
        assert database.may(role, made)
        assert database.may(role, f"CALL {own}.touch()")
        status, shown = database.guard()
        assert (status, shown["remaining"]) == (0, [])
        (listed,) = (each for each in shown["administrators"] if each["who"] == f"'{role}'@'%'")
        assert listed["does"] == right
    finally:
        database.run(f"DROP DATABASE {own}")


def test_on_mysql_who_may_take_a_key_away_writes(mysql: tuple[Database, list[str]]) -> None:
    database, (role, *_) = mysql
    database.run(f"GRANT INDEX ON command_log TO {my(role)}")
    assert database.may(role, "DROP INDEX `PRIMARY` ON command_log")
    status, shown = database.guard("--apply")
    assert (status, shown["remaining"]) == (0, [])
    assert not database.may(role, "CREATE INDEX more ON command_log (type)")


def test_on_mysql_who_writes_files_anywhere_is_found(mysql: tuple[Database, list[str]]) -> None:
    """A file of a trigger's, beside a table's, is a trigger of whoever it says."""
    database, (role, *_) = mysql
    database.run(f"GRANT FILE ON *.* TO {my(role)}")
    with sql_engine(database.url).connect() as connection:
        confined_to = connection.exec_driver_sql("SELECT @@secure_file_priv").scalar()
    is_found = not confined_to and (database.is_mariadb or confined_to is not None)
    status, shown = database.guard("--apply")
    assert (status, who(shown["remaining"])) == ((1, {f"'{role}'@'%'"}) if is_found else (0, set()))
    status, shown = database.guard("--apply", "--wide")
    assert (status, shown["remaining"]) == (0, [])


def test_on_mysql_a_proxy_of_every_account_is_found(mysql: tuple[Database, list[str]]) -> None:
    database, (role, *_) = mysql
    # Only a server's first account may give this right.
    database.run(f"INSERT INTO mysql.proxies_priv (host, user) VALUES ('%', '{role}'), ('gone', '{role}')")
    status, shown = database.guard("--apply")
    assert (status, who(shown["remaining"])) == (1, {my(role)})
    assert shown["remaining"][0]["does"] == "may log in as every account (PROXY)"
    database.run(f"DELETE FROM mysql.proxies_priv WHERE user = '{role}'")
    assert database.guard()[0] == 0, "root is one"


def test_on_mysql_a_role_that_everybody_has_is_found(mysql: tuple[Database, list[str]]) -> None:
    """That of the lane: on MariaDB a role of its name, which is none of the lane's; on MySQL its account."""
    database, (role, *_) = mysql
    write = "UPDATE payments SET version = version"
    lane = my(database.lane_role)
    if database.is_mariadb:
        named = my(database.lane_role).partition("@")[0]
        name = urlsplit(database.url).path.strip("/")
        database.run(
            f"CREATE ROLE {named}",
            f"GRANT UPDATE, SELECT ON payments TO {named}",
            f"GRANT {named} TO {my(role)}",
            f"SET DEFAULT ROLE {named} FOR {my(role)}",
        )
        try:
            assert database.may(role, f"UPDATE {name}.payments SET version = version")
            status, shown = database.guard("--apply")
            assert (status, shown["remaining"]) == (0, [])
            assert shown["statements"], "it had a right"
            assert database.may(database.lane_role, write)
        finally:
            database.run(f"DROP ROLE {named}")
        return
    named = lane.replace("'", "`")
    database.run(f"SET GLOBAL mandatory_roles = 'other, {named}'")
    try:
        status, shown = database.guard()
        assert (status, who(shown["remaining"])) == (1, {"every account"})
    finally:
        database.run("SET GLOBAL mandatory_roles = ''")


def test_on_mysql_what_an_account_is_not_shown_of_other_databases_is_said(mysql: tuple[Database, list[str]]) -> None:
    database, (migrator, *_) = mysql
    name = urlsplit(database.url).path.strip("/")
    assert database.guard()[1]["unseen"] == []
    database.run(
        f"GRANT ALL ON `{name}`.* TO {my(migrator)} WITH GRANT OPTION", f"GRANT SELECT ON mysql.* TO {my(migrator)}"
    )
    settings = {"PAYMENTS_MIGRATION_URL": database.as_role(database.url, migrator)}
    ran = database.invoke(**settings)
    assert "triggers of other databases may be hidden from this account" in ran.stderr
    assert any("other databases" in note for note in database.guard(**settings)[1]["unseen"])


def test_on_mysql_a_right_on_more_than_the_lanes_tables_stays_unless_asked_for(
    mysql: tuple[Database, list[str]],
) -> None:
    database, (schema, wildcard, *_) = mysql
    name = urlsplit(database.url).path.strip("/")
    exact = name.replace("_", "\\_")
    insert = "INSERT INTO counters VALUES ({}, 1)"
    database.run(f"CREATE DATABASE `{name}_beside`", f"GRANT SELECT, INSERT ON `{exact}%`.* TO {my(wildcard)}")
    status, shown = database.guard("--apply")
    assert (status, shown["statements"]) == (1, [])
    assert [each["why"].split(" on ")[1].split()[1] for each in shown["remaining"]] == ["databases"]
    database.run("CREATE TABLE halls (id BIGINT PRIMARY KEY)", f"GRANT SELECT, INSERT ON `{exact}`.* TO {my(schema)}")
    status, shown = database.guard("--apply")
    assert (status, shown["statements"]) == (1, [])
    why = {each["who"]: each["why"] for each in shown["remaining"]}
    assert why[f"'{schema}'@'%'"] == "it ends them on the database's other tables, too, such as halls"
    assert [database.may(role, insert.format(number)) for number, role in enumerate((schema, wildcard))] == [True, True]
    assert database.guard("--apply", "--wide")[0] == 0
    assert not any(database.may(role, insert.format(number)) for number, role in enumerate((schema, wildcard), 2))
    database.run(f"DROP DATABASE `{name}_beside`")


def test_on_mysql_what_comes_by_roles(mysql: tuple[Database, list[str]]) -> None:
    database, (member, proxy, *_) = mysql
    if not database.is_mariadb:
        pytest.skip("only MariaDB has roles that are no accounts")
    group, needed = of_this_test("a'group"), of_this_test("needed")
    lane = my(database.lane_role)
    write = "UPDATE payments SET version = version"
    literal = my(group).split("@")[0]
    try:
        database.run(
            f"CREATE ROLE {literal}",
            f"CREATE ROLE '{needed}'",
            f"GRANT SELECT, UPDATE ON payments TO {literal}",
            f"GRANT UPDATE ON command_log TO '{needed}'",
            "GRANT SELECT, DELETE ON outbox TO PUBLIC",
            f"GRANT {literal} TO {my(member)}",
            f"SET DEFAULT ROLE {literal} FOR {my(member)}",
            f"GRANT '{needed}' TO {lane}",
            "INSERT INTO mysql.proxies_priv (host, user, proxied_host, proxied_user, with_grant, grantor, timestamp) "
            f"VALUES ('%', '{proxy}', '%', '{database.lane_role}', 0, '', NOW())",
        )
        assert database.may(member, write)
        assert database.may(member, "DELETE FROM outbox")
        status, shown = database.guard("--apply")
        assert status == 1
        assert who(shown["remaining"]) == {f"'{needed}'@''", f"'{proxy}'@'%'"}, shown
        assert not database.may(member, write)
        assert not database.may(member, "DELETE FROM outbox")
        status, shown = database.guard("--apply", "--wide")
        why = {each["who"]: each["why"] for each in shown["remaining"]}
        assert (status, set(why)) == (1, {f"'{needed}'@''", f"'{proxy}'@'%'"})
        assert "the lane" in why[f"'{needed}'@''"]
        assert f"REVOKE PROXY ON {lane} FROM {my(proxy)}" in why[f"'{proxy}'@'%'"]
    finally:
        database.run(f"DROP ROLE {literal}", f"DROP ROLE '{needed}'")


def test_on_mysql_an_account_that_is_not_shown_others_says_so(mysql: tuple[Database, list[str]]) -> None:
    database, _ = mysql
    looking = Database.as_role(database.url, database.lane_role)
    ran = database.invoke(PAYMENTS_MIGRATION_URL=looking)
    assert ran.exit_code == 1
    assert "the rights of other accounts are not shown" in ran.stderr
    assert ran.stdout == ""
    # To read the tables, and not all of `mysql`, does not make the server show them.
    tables = ("db", "user", "proxies_priv", "roles_mapping" if database.is_mariadb else "role_edges")
    database.run(*(f"GRANT SELECT ON mysql.{table} TO {my(database.lane_role)}" for table in tables))
    ran = database.invoke(PAYMENTS_MIGRATION_URL=looking)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "the rights of other accounts are not shown" in ran.stderr


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    url = f"sqlite:///{path}"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    settings = {"USERS_DATABASE_URL": url, "USERS_MIGRATION_URL": None}
    path.chmod(0o600)
    ran = CliRunner().invoke(cli, ["guard", "users"], env=settings)
    assert (ran.exit_code, ran.stdout) == (
        0,
        "users: only its file's owner may write it, with any program: a file has no rights by table\n",
    )
    path.chmod(0o620)
    ran = CliRunner().invoke(cli, ["guard", "users", "--apply"], env=settings)
    assert ran.exit_code == 1
    assert f"chmod go-w {path}" in ran.stdout
    assert ran.stdout.endswith("users: others may write its tables: its group\n")
    assert path.stat().st_mode & 0o777 == 0o620


class _Server:
    """A server as MongoDB's documentation has it: the stand-in keeps no users."""

    name = "items"

    def __init__(self, roles: dict[tuple[str, str], list[dict[str, str]]], collections: Sequence[str] = ()) -> None:
        self.client = self
        self.admin = self
        self.roles = roles
        self._collections = collections

    def __getitem__(self, database: str) -> "_Server":
        return self

    def list_collection_names(self) -> list[str]:
        return ["items", "command_log", LEASE_TABLE, *self._collections]

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        if "rolesInfo" in command:
            assert command["showPrivileges"], command
            asked = command["rolesInfo"]
            return {"roles": [{**asked, "inheritedPrivileges": _PRIVILEGES.get(asked["role"], [])}]}
        if command["usersInfo"] == {"forAllDBs": True}:
            return {"users": [{"user": user, "db": db} for user, db in self.roles]}
        account = command["usersInfo"]
        roles = self.roles[account["user"], account["db"]]
        privileges = [each for role in roles for each in _PRIVILEGES.get(role["role"], [])]
        return {"users": [{**account, "roles": roles, "inheritedPrivileges": privileges}]}


_WRITING = ["find", "insert", "update", "remove"]
_PRIVILEGES: dict[str, list[dict[str, Any]]] = {
    "readWrite": [{"resource": {"db": "items", "collection": ""}, "actions": _WRITING}],
    "readWriteAnyDatabase": [{"resource": {"db": "", "collection": ""}, "actions": _WRITING}],
    "read": [{"resource": {"db": "items", "collection": ""}, "actions": ["find"]}],
    "root": [{"resource": {"anyResource": True}, "actions": ["anyAction"]}],
    "mine": [{"resource": {"db": "items", "collection": "items"}, "actions": ["update"]}],
    "dbAdmin": [{"resource": {"db": "items", "collection": ""}, "actions": ["dropCollection", "createIndex"]}],
    "clusterAdmin": [{"resource": {"db": "", "collection": ""}, "actions": ["dropDatabase"]}],
    "userAdmin": [{"resource": {"db": "items", "collection": ""}, "actions": ["changePassword", "grantRole"]}],
    "userAdminAnyDatabase": [{"resource": {"db": "", "collection": ""}, "actions": ["grantRole"]}],
    "passwords": [{"resource": {"db": "admin", "collection": ""}, "actions": ["changePassword"]}],
    "users": [{"resource": {"db": "admin", "collection": "system.users"}, "actions": ["update"]}],
    "restore": [{"resource": {"db": "items", "collection": "items"}, "actions": ["insert"]}],
    "of others": [{"resource": {"db": "halls", "collection": ""}, "actions": ["grantRole", "insert"]}],
}


def of_mongodb(role: str, *collections: str, user: str = "legacy") -> list[Any]:
    database = "admin" if role in ("root", "readWriteAnyDatabase") else "items"
    server: Any = _Server({(user, "admin"): [{"role": role, "db": database}]}, collections)
    query = WritersQuery(("items", "command_log", LEASE_TABLE), "items", "lane", "items")
    rights = rights_on_mongodb(server, query, "owner")
    assert rights.unseen is None
    return list(rights.found)


def test_on_mongodb_who_wrote_reads() -> None:
    (right,) = of_mongodb("readWrite", user='it"s).runCommand(')
    assert (right.is_wide, right.tables) == (False, ("command_log", "items", LEASE_TABLE))
    assert [command_of(statement) for statement in right.statements] == [
        ("admin", {"grantRolesToUser": 'it"s).runCommand(', "roles": [{"role": "read", "db": "items"}]}),
        ("admin", {"revokeRolesFromUser": 'it"s).runCommand(', "roles": [{"role": "readWrite", "db": "items"}]}),
    ]
    (right,) = of_mongodb("readWrite", "halls")
    assert right.is_wide
    assert "halls" in right.why
    (right,) = of_mongodb("readWriteAnyDatabase")
    assert right.is_wide
    assert '"readAnyDatabase"' in right.statements[0]


def test_on_mongodb_what_no_statement_ends_is_said() -> None:
    (right,) = of_mongodb("root")
    assert right.is_administrators
    (right,) = of_mongodb("mine")
    assert (right.statements, right.tables) == ((), ("items",))
    assert "by hand" in right.why
    assert of_mongodb("read") == []
    assert of_mongodb("readWrite", user="lane") == of_mongodb("readWrite", user="owner") == []


def test_on_mongodb_who_takes_collections_away_writes() -> None:
    for role in ("dbAdmin", "clusterAdmin"):
        (right,) = of_mongodb(role)
        assert (right.is_administrators, right.statements) == (False, ())
        assert "by hand" in right.why


def test_on_mongodb_who_gives_rights_is_an_administrator() -> None:
    for role in ("userAdmin", "userAdminAnyDatabase", "passwords", "users"):
        (right,) = of_mongodb(role)
        assert right.is_administrators, role
    assert of_mongodb("of others") == []
    (right,) = of_mongodb("restore")
    assert not right.is_administrators, "a role of the service's own of that name is no administrator's"


def test_on_mongodb_a_database_without_a_lane_is_refused() -> None:
    server: Any = _Server({("legacy", "admin"): []})
    server.list_collection_names = lambda: ["halls"]
    rights = rights_on_mongodb(server, WritersQuery(("items", LEASE_TABLE), "items", "lane", "items"), "owner")
    assert "no lane's collections" in str(rights.unseen)


def test_a_mongodb_without_users_says_so(databases: FreshDatabases) -> None:
    url = databases.new("ITEMS_DATABASE_URL")
    migrate(registry().service("items"), DatabaseSettings(database_url=url))
    settings = {"ITEMS_DATABASE_URL": url, "ITEMS_MIGRATION_URL": None}
    ran = CliRunner().invoke(cli, ["guard", "items", "--apply"], env=settings)
    assert ran.exit_code == 1
    assert "the server has no accounts: whoever reaches it may write" in ran.stderr
