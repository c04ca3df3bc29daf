"""`coordinator guard` says by which ways out of the server, and back into it, a lane's tables are written."""

import os
from urllib.parse import urlsplit

import pytest

from tests.integration import test_guard
from tests.integration.test_guard import PASSWORD, Database, ident, my

pytestmark = pytest.mark.operators
mysql, postgresql = test_guard.mysql, test_guard.postgresql


def said(database: Database, kind: str) -> list[str]:
    """What `guard` lists of one kind."""
    ran = database.invoke()
    assert ran.exit_code == 0, ran.output
    return [line for line in ran.output.splitlines() if line.startswith(kind)]


def test_on_postgresql_a_trigger_of_a_partition_is_found(postgresql: tuple[Database, list[str]]) -> None:
    """It runs in the lane's transactions, and has rows of the lane's."""
    database, _ = postgresql
    database.run(
        "CREATE TABLE older () INHERITS (users)",
        "CREATE FUNCTION doubled() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.credit := 2; RETURN NEW; END'",
        "CREATE TRIGGER doubles BEFORE UPDATE ON older FOR EACH ROW EXECUTE FUNCTION doubled()",
        "INSERT INTO older (id, name, email, credit, version, created_at) VALUES (1, 'Ada', '', 1, 1, now())",
    )
    assert database.may(database.lane_role, "UPDATE users SET credit = 1 WHERE id = 1")
    database.run("UPDATE older SET version = 1 / (credit - 1)")  # it is 2 by now
    assert said(database, "trigger") == ["trigger doubles: calls doubled, on older, which has rows of it (users)"]


def test_on_postgresql_what_hangs_on_a_partition_alone_is_found_once(postgresql: tuple[Database, list[str]]) -> None:
    database, (owner, *_) = postgresql
    database.run(
        "CREATE TABLE older (PRIMARY KEY (id)) INHERITS (users)",
        "CREATE TABLE oldest (PRIMARY KEY (id)) INHERITS (older)",
        "CREATE TABLE roots (id bigint PRIMARY KEY)",
        "ALTER TABLE oldest ADD CONSTRAINT rooted FOREIGN KEY (id) REFERENCES roots ON DELETE CASCADE",
        "CREATE TABLE following (id bigint REFERENCES older ON DELETE CASCADE)",
        f"ALTER TABLE following OWNER TO {ident(owner)}",
        "CREATE FUNCTION fits(text) RETURNS boolean LANGUAGE sql AS 'SELECT TRUE'",
        f"ALTER FUNCTION fits OWNER TO {ident(owner)}",
        "ALTER TABLE oldest ADD CONSTRAINT fitting CHECK (fits(name))",
    )
    runs = "its triggers run in the lane's transactions"
    assert said(database, "foreign key") == [
        "foreign key rooted: ON DELETE CASCADE of roots, on oldest, which has rows of it (users)",
        f"foreign key following_id_fkey: of following, which follows it and is {owner}'s: {runs} (users)",
    ]
    (line,) = said(database, "routine")
    assert line.startswith(f"routine fits(text): {owner} may put another in its place, and constraint fitting on table")


def test_on_postgresql_a_trigger_of_a_whole_is_no_trigger_of_each_partition(
    postgresql: tuple[Database, list[str]],
) -> None:
    database, _ = postgresql
    database.run(
        "ALTER TABLE purchases RENAME TO purchases_before",
        "CREATE TABLE purchases (LIKE purchases_before) PARTITION BY RANGE (id)",
        "CREATE TABLE first PARTITION OF purchases FOR VALUES FROM (0) TO (10)",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER whole BEFORE UPDATE ON purchases FOR EACH ROW EXECUTE FUNCTION nothing()",
        "CREATE TRIGGER part BEFORE UPDATE ON first FOR EACH ROW EXECUTE FUNCTION nothing()",
    )
    assert said(database, "trigger") == [
        "trigger whole: calls nothing (purchases)",
        "trigger part: calls nothing, on first, which has rows of it (purchases)",
    ]


def test_on_postgresql_a_foreign_server_that_leads_back_is_found(postgresql: tuple[Database, list[str]]) -> None:
    """Its user mapping has the password, and whoever may use it has not."""
    database, (reports, harmless, *_) = postgresql
    there = urlsplit(database.url)
    name = there.path.strip("/")
    lane, options = ident(database.lane_role), f"host '{there.hostname}', port '{there.port}'"
    as_lane = f"OPTIONS (user '{database.lane_role}', password '{PASSWORD}')"
    database.run(
        "CREATE EXTENSION postgres_fdw",
        f"CREATE SERVER back FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options}, dbname '{name}')",
        f"CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options}, dbname 'elsewhere')",
        f"CREATE USER MAPPING FOR {ident(reports)} SERVER back {as_lane}",
        f"CREATE USER MAPPING FOR PUBLIC SERVER back {as_lane}",
        f"CREATE USER MAPPING FOR {ident(harmless)} SERVER back OPTIONS (user '{harmless}', password '{PASSWORD}')",
        f"CREATE USER MAPPING FOR {lane} SERVER back {as_lane}",
        f"CREATE USER MAPPING FOR PUBLIC SERVER away {as_lane}",
        "CREATE FOREIGN TABLE looped (id bigint, name varchar) SERVER back OPTIONS (table_name 'users')",
        f"GRANT SELECT, UPDATE ON looped TO {ident(reports)}",
    )
    assert database.may(reports, "UPDATE looped SET name = name")
    where = f"in as {database.lane_role}, at {there.hostname} in a database called {name}"
    found = said(database, "foreign server")
    assert [line.partition(" (")[0] for line in found] == [
        f"foreign server back: logs everybody who may use it {where}",
        f"foreign server back: logs {reports} {where}",
    ]
    assert all("users" in line for line in found)
    # Who is neither the server's owner nor a superuser is shown no options: what may lead back is said all the same.
    database.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ident(harmless)}")
    ran = database.invoke(USERS_MIGRATION_URL=database.as_role(database.url, harmless))
    assert f"logs {reports} in as somebody whom this role is not shown, at {there.hostname}" in ran.output


def test_on_postgresql_a_job_of_pg_cron_is_found(postgresql: tuple[Database, list[str]]) -> None:
    """A table as pg_cron has it, which is not installed here."""
    database, (other, *_) = postgresql
    name = urlsplit(database.url).path.strip("/")
    database.run(
        "CREATE SCHEMA cron",
        "CREATE TABLE cron.job (jobid bigint, schedule text, command text, database text, username text, "
        "active boolean, jobname name)",
        f"INSERT INTO cron.job VALUES (1, '* * * * *', 'UPDATE', '{name}', '{database.lane_role}', TRUE, 'levels'), "
        f"(2, '* * * * *', 'UPDATE', '{name}', '{database.lane_role}', FALSE, 'rests'), "
        f"(3, '* * * * *', 'UPDATE', 'elsewhere', '{database.lane_role}', TRUE, 'of others'), "
        f"(4, '* * * * *', 'SELECT', '{name}', $${other}$$, TRUE, 'reads')",
    )
    (line,) = said(database, "job")
    assert line.startswith(f"job levels: runs as {database.lane_role}, by pg_cron (* * * * *) (")
    database.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ident(other)}")
    ran = database.invoke(USERS_MIGRATION_URL=database.as_role(database.url, other))
    assert "Jobs of pg_cron may be hidden from this role" in ran.stderr


def test_on_mysql_a_table_that_leads_back_is_found(mysql: tuple[Database, list[str]]) -> None:
    """Its address has the password, and whoever may write it has not."""
    database, (reports, *_) = mysql
    there, other = urlsplit(database.url), f"loops_{os.getpid()}"
    name, loop = there.path.strip("/"), f"loop_{os.getpid()}"
    columns = "(id bigint NOT NULL, version bigint NOT NULL)"
    if not database.is_mariadb:
        pytest.skip("a server of MySQL must be started with the engine FEDERATED")
    database.run(
        "INSTALL SONAME 'ha_federatedx'",
        f"CREATE DATABASE {other}",
        f"CREATE USER {loop} IDENTIFIED BY '{PASSWORD}'",
        f"GRANT SELECT, UPDATE ON {name}.payments TO {loop}",
        "CREATE OR REPLACE SERVER back FOREIGN DATA WRAPPER mysql OPTIONS "
        f"(HOST '{there.hostname}', PORT {there.port}, DATABASE '{name}', USER '{loop}', PASSWORD '{PASSWORD}')",
        f"CREATE TABLE {other}.looped {columns} ENGINE=FEDERATED "
        f"CONNECTION='mysql://{loop}:{PASSWORD}@{there.hostname}:{there.port}/{name}/payments'",
        f"CREATE TABLE {other}.payments {columns} ENGINE=FEDERATED CONNECTION='back'",
        f"CREATE TABLE {other}.few {columns} ENGINE=FEDERATED CONNECTION='back/payments'",
        f"GRANT SELECT, UPDATE ON {other}.* TO {my(reports)}",
        # He logs in here.
        f"GRANT SELECT ON payments TO {my(reports)}",
    )
    try:
        assert database.may(reports, f"UPDATE {other}.looped SET version = version")
        found = [line for line in database.invoke().output.splitlines() if line.startswith("foreign table")]
        does = f"whoever may write it writes as {loop}, at {there.hostname}"
        assert [line.partition(" in a database called ")[0] for line in found] == [
            f"foreign table {other}.few: {does}",
            f"foreign table {other}.looped: {does}:{there.port}",
            f"foreign table {other}.payments: {does}",
        ]
        assert all(line.endswith(f" {name} (payments)") for line in found)
    finally:
        database.run(
            f"DROP DATABASE {other}", "DROP SERVER back", f"DROP USER {loop}", "UNINSTALL SONAME 'ha_federatedx'"
        )


def test_on_mysql_accounts_of_one_name_are_said(mysql: tuple[Database, list[str]]) -> None:
    """Which of them is the lane's nothing says, and each has a password of its own."""
    database, _ = mysql
    assert said(database, "account") == []
    namesake = my(database.lane_role, "10.9.8.7")
    database.run(f"CREATE USER {namesake} IDENTIFIED BY 'another'", f"GRANT UPDATE ON payments TO {namesake}")
    try:
        lines = said(database, "account")
        assert {line.partition(": ")[0] for line in lines} == {
            f"account {namesake}",
            f"account {my(database.lane_role)}",
        }
        assert all("each with a password of its own: keep one" in line for line in lines)
    finally:
        database.run(f"DROP USER {namesake}")
    assert said(database, "account") == []
