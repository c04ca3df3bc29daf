"""`coordinator database-accounts` on real servers: what it prints makes the roles, and what it applies, too."""

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from coordinator.cache.rights import acl_line, reader_acl_line
from coordinator.cli import cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.stores.reading_rights import reading_rights
from shared.items.cache import LEASE_KEY, cache_key
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.servers import REFERENCE_APP

pytestmark = pytest.mark.doors

NASTY = {"lane": "la'ne \"%_`\\ü", "reader": "re'ader \"%_`\\ü"}
OUTER, INNER = f"outer_{os.getpid()}", f"inner_{os.getpid()}"
"""Roles of PostgreSQL: one is a member of the other."""
PASSWORD = "p'a\"s%s\\ü"


def with_user(url: str, user: str, password: str = PASSWORD) -> str:
    address = urlsplit(url)
    host = f"{quote(user, safe='')}:{quote(password, safe='')}@{address.hostname}:{address.port}"
    return address._replace(netloc=host).geturl()


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(
        cli, ["database-accounts", *arguments], env={"COORDINATOR_APP": REFERENCE_APP} | environment
    )


class Roles:
    """The addresses of a new database; its owner may do everything."""

    def __init__(self, lane: str, owner: str) -> None:
        self.lane = lane
        self.owner = owner
        self.is_mysql = owner.startswith("mysql")
        self.urls = {role: with_user(owner, name) for role, name in NASTY.items()}
        prefix = lane.upper()
        self.environment = {f"{prefix}_DATABASE_URL": self.urls["lane"], f"{prefix}_READER_URL": self.urls["reader"]}
        self.environment[f"{prefix}_MIGRATION_URL"] = owner

    def execute(self, url: str, *statements: str) -> None:
        engine = sql_engine(url)
        try:
            with engine.connect() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        finally:
            engine.dispose()

    def may(self, role: str, statement: str) -> bool:
        try:
            self.execute(self.urls[role], statement)
        except DBAPIError:
            return False
        return True

    def quoted(self, role: str) -> str:
        name = NASTY[role]
        if self.is_mysql:
            escaped = name.replace("\\", "\\\\").replace("'", "''")
            return f"'{escaped}'@'%'"
        return '"' + name.replace('"', '""') + '"'

    def migrate(self) -> None:
        prefix, known = self.lane.upper(), registry().service(self.lane)
        urls = (self.environment[f"{prefix}_{name}_URL"] for name in ("DATABASE", "READER", "MIGRATION"))
        lane, reader, owner = urls
        migrate(known, DatabaseSettings(database_url=lane, reader_url=reader, migration_url=owner))

    def drop(self) -> None:
        for role in NASTY:
            before = [] if self.is_mysql else [f"DROP OWNED BY {self.quoted(role)}"]
            kind = "USER" if self.is_mysql else "ROLE"
            self.execute(self.owner, *before, f"DROP {kind} {self.quoted(role)}")


@pytest.fixture(params=["users", "payments"], ids=["PostgreSQL", "MySQL"])
def roles(request: pytest.FixtureRequest, databases: FreshDatabases) -> Iterator[Roles]:
    made = Roles(request.param, databases.new(f"{request.param.upper()}_DATABASE_URL"))
    made.execute(made.owner, "CREATE TABLE before_that (id INTEGER)")
    if not made.is_mysql:
        made.execute(made.owner, f"CREATE ROLE {INNER}; CREATE ROLE {OUTER} NOINHERIT; GRANT {INNER} TO {OUTER}")
    yield made
    if not made.is_mysql:
        made.execute(made.owner, *(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in (OUTER, INNER)))
    made.drop()


def check(roles: Roles) -> None:
    """Of tables that were there, and of those that the owner makes afterwards."""
    roles.execute(roles.owner, "CREATE TABLE after_that (id INTEGER)")
    for table in ("before_that", "after_that"):
        assert roles.may("lane", f"INSERT INTO {table} VALUES (1)")
        assert roles.may("lane", f"UPDATE {table} SET id = 2")
        assert roles.may("lane", f"DELETE FROM {table}")
        assert not roles.may("reader", f"SELECT id FROM {table}")
        assert not roles.may("reader", f"INSERT INTO {table} VALUES (1)")
        assert not roles.may("reader", f"UPDATE {table} SET id = 2")
        assert not roles.may("reader", f"DELETE FROM {table}")
        for role in NASTY:
            assert not roles.may(role, f"DROP TABLE {table}")
            assert not roles.may(role, f"ALTER TABLE {table} ADD COLUMN more INTEGER")
    for role in NASTY:
        assert not roles.may(role, "CREATE TABLE mine (id INTEGER)")
        assert not roles.may(role, f"CREATE {'USER' if roles.is_mysql else 'ROLE'} somebody")
    roles.migrate()
    check_reader(roles)
    assert not roles.may("reader", "SELECT id FROM before_that")


def check_reader(roles: Roles) -> None:
    """It reads what a gateway reads, and no other table of the lane's."""
    rights = reading_rights(registry().service(roles.lane))
    assert {*rights.tables, *rights.withheld} >= {roles.lane, "command_log", "dead_letters", "lane_schema_version"}
    assert [table for table in rights.tables if not roles.may("reader", f"SELECT * FROM {table}")] == []
    assert [table for table in rights.withheld if roles.may("reader", f"SELECT * FROM {table}")] == []
    assert [table for table in rights.withheld if not roles.may("lane", f"SELECT * FROM {table}")] == []


def test_the_statements_that_it_prints_make_the_roles(roles: Roles) -> None:
    printed = run(roles.lane, **roles.environment)
    assert printed.exit_code == 0, (printed.output, printed.exception)
    assert PASSWORD not in printed.output
    lines = [line for line in printed.stdout.splitlines() if not line.startswith(("--", "\\connect"))]
    # The owner and its database are there.
    own = re.compile(r"^(CREATE DATABASE|CREATE ROLE \"coordinator\"|\\password \"coordinator\")|'(coordinator|root)'@")
    literal = PASSWORD.replace("'", "''")
    escaped = literal.replace("\\", "\\\\")
    statements = [
        re.sub(r"^\\password (.*)", lambda asked: f"ALTER ROLE {asked[1]} PASSWORD '{literal}'", line)
        .removesuffix(";")
        .replace("'PASSWORD'", f"'{escaped}'")
        for line in lines
        if not own.search(line)
    ]
    assert len(statements) == (3 if roles.is_mysql else 18), statements
    roles.execute(roles.owner, *statements)
    check(roles)
    given = [line[3:-1] for line in printed.stdout.splitlines() if line.startswith("-- GRANT SELECT ON ")]
    taken = [statement.replace("GRANT", "REVOKE").replace(" TO ", " FROM ") for statement in given]
    roles.execute(roles.owner, *taken)
    assert not roles.may("reader", f"SELECT * FROM {roles.lane}")
    roles.execute(roles.owner, *given)
    check_reader(roles)


def test_it_makes_the_roles_and_doing_it_again_changes_nothing(roles: Roles) -> None:
    for _ in range(2):
        made = run(roles.lane, "--apply", **roles.environment)
        assert made.exit_code == 0, (made.output, made.exception)
        assert made.stdout.splitlines() == [
            f"{roles.lane}: {NASTY['lane']} reads and writes rows",
            f"{roles.lane}: {NASTY['reader']} reads what gateways read",
        ]
        assert PASSWORD not in made.output
    check(roles)


def test_who_gives_rights_at_the_same_moment_keeps_nobody_from_it(roles: Roles) -> None:
    """PostgreSQL lets two sessions that change the rights of a table not both commit."""
    assert run(roles.lane, "--apply", **roles.environment).exit_code == 0
    roles.migrate()
    table = "`command_log`" if roles.is_mysql else "command_log"
    engine = sql_engine(roles.owner).execution_options(isolation_level="REPEATABLE READ")

    def beside(step: Callable[[], object]) -> object:
        with engine.connect() as other, ThreadPoolExecutor(1) as pool:
            other.exec_driver_sql(
                f"GRANT SELECT ON {table} TO {roles.quoted('reader')}", execution_options={"no_parameters": True}
            )
            begun = pool.submit(step)
            time.sleep(1.5)
            other.commit()
            return begun.result()

    try:
        applied = beside(lambda: run(roles.lane, "--apply", **roles.environment))
        assert isinstance(applied, Result)
        assert applied.exit_code == 0, (applied.output, applied.exception)
        with capture_logs() as logs:
            beside(roles.migrate)
        assert [line for line in logs if line["event"] == "rights_not_given"] == []
    finally:
        engine.dispose()


def test_it_makes_a_role_again_what_it_was_and_confines_readers(roles: Roles) -> None:
    roles.migrate()
    reader = roles.quoted("reader")
    before = ["SELECT 1"]
    if not roles.is_mysql:
        # What a role may say of itself.
        database = urlsplit(roles.owner).path[1:]
        before = [
            f"ALTER ROLE {reader} SET statement_timeout = 1",
            f'ALTER ROLE {reader} IN DATABASE "{database}" SET statement_timeout = 1',
        ]
    changed = f"ALTER USER {reader} IDENTIFIED BY 'mine'" if roles.is_mysql else f"ALTER ROLE {reader} PASSWORD 'mine'"
    roles.execute(roles.owner, *before, changed)
    assert not roles.may("reader", "SELECT 1")
    roles.migrate()
    assert not roles.may("reader", "SELECT 1"), "`migrate` leaves it to people"
    assert run(roles.lane, "--apply", **roles.environment).exit_code == 0
    assert roles.may("reader", "SELECT 1")
    assert not roles.may("reader", "CREATE TEMPORARY TABLE mine (id INTEGER)")
    limit = "SELECT @@max_user_connections" if roles.is_mysql else "SELECT rolconnlimit FROM pg_roles"
    engine = sql_engine(roles.urls["reader"])
    with engine.connect() as connection:
        of_role = "" if roles.is_mysql else " WHERE rolname = current_user"
        found = connection.exec_driver_sql(f"{limit}{of_role}").scalar_one()
        everybody = "SELECT @@max_connections" if roles.is_mysql else "SELECT current_setting('max_connections')::int"
        assert 0 < found == connection.exec_driver_sql(everybody).scalar_one() * 3 // 4
        if not roles.is_mysql:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "5s"
    engine.dispose()
    if not roles.is_mysql:
        for call in ("pg_advisory_lock(1)", "pg_try_advisory_xact_lock(1, 2)", "lo_creat(-1)"):
            assert not roles.may("reader", f"SELECT {call}")
    roles.migrate()


def excess(roles: Roles) -> tuple[list[str], list[str]]:
    """What `--check` finds that the reader may, and the statements that it prints."""
    checked = run(roles.lane, "--check", **roles.environment)
    assert PASSWORD not in checked.output
    lines = checked.stdout.splitlines()
    statements = [line.strip().removesuffix(";") for line in lines if line.startswith("    ")]
    found = [line for line in lines if not line.startswith("    ")]
    if found == [f"{roles.lane}: {NASTY['reader']} reads what gateways read, and no more"]:
        found = []
    assert checked.exit_code == bool(found), (checked.output, checked.exception)
    return found, statements


def _more_than_its_rights(roles: Roles) -> list[str]:
    """What gives a reader more, each in another way."""
    reader = roles.quoted("reader")
    if roles.is_mysql:
        name = urlsplit(roles.owner).path[1:].replace("_", r"\_")
        return [
            f"GRANT SELECT ON dead_letters TO {reader}",
            f"GRANT SELECT (id) ON lane_timers TO {reader}",
            f"GRANT CREATE TEMPORARY TABLES ON `{name}`.* TO {reader}",
            f"ALTER USER {reader} WITH MAX_USER_CONNECTIONS 0",
        ]
    return [
        f"GRANT SELECT ON dead_letters TO {reader}",
        f"GRANT SELECT (id) ON lane_timers TO {reader}",
        "GRANT SELECT ON dead_letters TO PUBLIC",
        f"GRANT pg_read_all_data TO {reader}",
        f"GRANT TEMPORARY ON DATABASE {urlsplit(roles.owner).path[1:]} TO PUBLIC",
        f"GRANT CREATE ON SCHEMA public TO {reader}",
        f"ALTER ROLE {reader} CREATEDB CONNECTION LIMIT -1",
        f"ALTER ROLE {reader} SET statement_timeout = 0",
        f"GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO {reader}",
        # What an owner may stands in no list of rights.
        f"GRANT coordinator TO {reader}",
        f"ALTER ROLE {reader} NOINHERIT; GRANT {OUTER} TO {reader}",
    ]


def test_all_that_a_reader_may_beyond_its_rights_is_said_with_what_ends_it(roles: Roles) -> None:
    (missing,), _ = excess(roles)
    assert "there is no such" in missing
    roles.migrate()
    assert run(roles.lane, "--apply", **roles.environment).exit_code == 0
    assert excess(roles) == ([], [])
    if not roles.is_mysql:
        roles.execute(roles.owner, f"GRANT SELECT ON dead_letters TO {INNER}")
    for more in _more_than_its_rights(roles):
        roles.execute(roles.owner, more)
        found, statements = excess(roles)
        assert found, more
        roles.execute(roles.owner, *statements)
        assert excess(roles) == ([], []), (more, statements)
    check_reader(roles)


def _as_of_earlier_releases(roles: Roles) -> list[str]:
    """What gave a reader all tables."""
    reader = roles.quoted("reader")
    if roles.is_mysql:
        name = urlsplit(roles.owner).path[1:].replace("_", r"\_")
        return [f"GRANT SELECT ON `{name}`.* TO {reader}", f"GRANT SELECT ON dead_letters TO {reader}"]
    return [
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {reader}",
    ]


@pytest.mark.parametrize("by", ["migrate", "database-accounts"])
def test_a_reader_of_an_earlier_release_is_narrowed_and_keeps_what_is_not_the_lane_s(roles: Roles, by: str) -> None:
    roles.migrate()
    roles.execute(roles.owner, *_as_of_earlier_releases(roles))
    rights = reading_rights(registry().service(roles.lane))
    assert [name for name in rights.withheld if roles.may("reader", f"SELECT * FROM {name}")] == [
        name for name in rights.withheld if roles.may("lane", f"SELECT * FROM {name}")
    ]
    for _ in range(2):
        if by == "migrate":
            roles.migrate()
        else:
            assert run(roles.lane, "--apply", **roles.environment).exit_code == 0
        check_reader(roles)
        assert roles.may("reader", "SELECT id FROM before_that")
    roles.execute(roles.owner, "CREATE TABLE after_that (id INTEGER)")
    assert not roles.may("reader", "SELECT id FROM after_that")
    roles.migrate()
    assert not roles.may("reader", "SELECT id FROM after_that")


@pytest.mark.parametrize("lane", ["users", "payments"])
def test_an_administrator_without_rights_is_named(databases: FreshDatabases, lane: str) -> None:
    made = Roles(lane, databases.new(f"{lane.upper()}_DATABASE_URL"))
    assert run(lane, "--apply", **made.environment).exit_code == 0
    poor = made.environment | {f"{lane.upper()}_MIGRATION_URL": made.urls["lane"]}
    poor[f"{lane.upper()}_DATABASE_URL"] = with_user(made.owner, "another_lane")
    refused = run(lane, "--apply", **poor)
    made.drop()
    assert refused.exit_code == 1
    assert f"{lane.upper()}_MIGRATION_URL: {NASTY['lane']} cannot make the roles of {lane}: " in refused.output
    assert PASSWORD not in refused.output


def test_mongodb_s_users_and_redis_s_are_printed() -> None:
    of = {"ITEMS_DATABASE_URL": "it%22s_lane", "ITEMS_READER_URL": "it%22s_reader"}
    urls = {setting: f"mongodb://{user}:x@h/items" for setting, user in of.items()}
    printed = run("items", REDIS_URL="redis://cached:x@h/0", **urls)
    made = 'db.getSiblingDB("items").createUser({user: "it\\"s_%s", pwd: passwordPrompt(), roles: [%s]})'
    privileges = ", ".join(
        f'{{resource: {{db: "items", collection: "{name}"}}, actions: ["find"]}}'
        for name in (
            "items",
            "reservations",
            "command_log",
            "lane_lease",
            "api_keys",
            "idempotency_secrets",
            "fingerprint_keys",
        )
    )
    command = '[db.getSiblingDB("items").getRole("gateway") ? "updateRole" : "createRole"]: "gateway"'
    assert printed.stdout.splitlines()[1:] == [
        made % ("lane", '{role: "readWrite", db: "items"}'),
        f'db.getSiblingDB("items").runCommand({{{command}, privileges: [{privileges}], roles: []}})',
        made % ("reader", '{role: "gateway", db: "items"}'),
        "# Redis, for items: as an administrator in redis-cli, with a password in the place of PASSWORD",
        acl_line("cached", (cache_key("*"), LEASE_KEY)),
        "# its gateways, from Redis 7 on, which only read the lease: in their REDIS_URL",
        reader_acl_line("cached_reader", (cache_key("*"), LEASE_KEY)),
    ]
    refused = run("items", "--apply", **urls, ITEMS_MIGRATION_URL="mongodb://owner:x@h/items")
    assert "run what is printed without --apply" in str(refused.exception)


@pytest.mark.parametrize("given", ["", "CREATE USER"])
def test_an_owner_who_may_not_give_rights_is_told_which_ones_he_lacks(
    databases: FreshDatabases, request: pytest.FixtureRequest, given: str
) -> None:
    """What he is told to have run is enough."""
    roles = Roles("payments", databases.new("PAYMENTS_DATABASE_URL"))
    owner, name = f"owner{os.getpid()}", urlsplit(roles.owner).path[1:]
    every = f"`{name}`.*".replace("_", "\\_")
    roles.execute(roles.owner, f"CREATE USER {owner} IDENTIFIED BY 'o'", f"GRANT ALL ON {every} TO {owner}")
    request.addfinalizer(lambda: roles.execute(roles.owner, f"DROP USER {owner}"))
    if given:
        roles.execute(roles.owner, f"GRANT {given} ON *.* TO {owner}")
    administrator = roles.owner
    roles.environment["PAYMENTS_MIGRATION_URL"] = with_user(administrator, owner, "o")
    with pytest.raises(ConfigurationError) as refused:
        roles.migrate()
    missing = "WITH GRANT OPTION" if given else "CREATE USER"
    assert re.search(rf"it may not .+, which takes {missing}\. As an administrator: ", str(refused.value))
    told = str(refused.value).partition("As an administrator: ")[2].rstrip("\"')").replace("\\\\", "\\")
    roles.execute(administrator, *told.split("; "))
    roles.migrate()
    request.addfinalizer(roles.drop)
    check_reader(roles)


def test_other_tables_of_the_database_may_stay_somebody_else_s(databases: FreshDatabases) -> None:
    administrator = databases.new("USERS_DATABASE_URL")
    names = {each: f"{each}_{os.getpid()}" for each in ("migrator", "shop", "lane")}
    urls = {each: with_user(administrator, name, "password") for each, name in names.items()}
    database = urlsplit(administrator).path.strip("/")
    roles = Roles("users", administrator)
    roles.execute(
        administrator,
        f"CREATE ROLE {names['migrator']} LOGIN CREATEROLE PASSWORD 'password'",
        f"CREATE ROLE {names['shop']} LOGIN PASSWORD 'password'",
        f"ALTER DATABASE {database} OWNER TO {names['migrator']}",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {names['shop']}, {names['migrator']}",
    )
    try:
        roles.execute(urls["shop"], "CREATE TABLE loans (id SERIAL PRIMARY KEY)")
        with capture_logs() as lines:
            settings = DatabaseSettings(database_url=urls["lane"], migration_url=urls["migrator"])
            migrate(registry().service("users"), settings)
        assert [line["event"] for line in lines] == ["migrated"]
        roles.execute(urls["lane"], "SELECT id FROM users", "SELECT sequence FROM command_log")
        with pytest.raises(DBAPIError, match="permission denied for table loans"):
            roles.execute(urls["lane"], "SELECT id FROM loans")
        roles.execute(administrator, f"REVOKE ALL ON users FROM {names['lane']}")
        environment = {"USERS_DATABASE_URL": urls["lane"], "USERS_MIGRATION_URL": urls["migrator"]}
        applied = run("users", "--apply", **environment)
        assert applied.exit_code == 0, applied.output
        roles.execute(urls["lane"], "SELECT id FROM users")
        # A table of the lane's is none that may be left out.
        roles.execute(
            administrator,
            f"ALTER TABLE users OWNER TO {names['shop']}",
            f"REVOKE ALL ON users FROM {names['migrator']}",
        )
        refused = run("users", "--apply", **environment)
        assert refused.exit_code == 1
        assert "permission denied for table users" in refused.output
    finally:
        roles.execute(administrator, f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
        for name in names.values():
            roles.execute(administrator, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
