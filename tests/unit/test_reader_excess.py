"""What of a reader's excess is taken from it: the roles that lead to it alone, and attributes only if asked for."""

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from coordinator.accounts import database as accounts
from coordinator.runtime.addresses import parse_address
from coordinator.stores.foreign_rights import ForeignRight
from coordinator.stores.kinds import kind_of
from coordinator.stores.mongodb import reader_excess as mongodb
from coordinator.stores.mongodb.foreign_rights import command_of
from coordinator.stores.mysql import reader_excess as mysql
from coordinator.stores.mysql.memberships import Membership
from coordinator.stores.postgresql import reader_excess as postgresql
from coordinator.stores.reader_excess import ReaderQuery
from coordinator.stores.reading_rights import ReadingRights

QUERY = ReaderQuery(role="reader", database="seats", withheld=("dead_letters",))


def test_only_the_roles_that_lead_to_an_excess_are_taken_from_a_reader() -> None:
    def has(user: str, role: str) -> Membership:
        return Membership(user=user, host="%", of_user=role, of_host="%", is_admin="N")

    known = [has("reader", "needed"), has("reader", "outer"), has("outer", "excess")]
    right = ForeignRight(who="'excess'@'%'", does="SELECT", tables=("dead_letters",))
    (taken,) = mysql._by_role(right, QUERY, known[:2], known)
    (statement,) = taken.statements
    assert "outer" in statement


def test_a_role_s_attributes_are_taken_from_it_only_where_wide_statements_are_asked_for() -> None:
    has: list[Any] = [True] * 5
    for looks_as_super in (True, False):
        assert all(right.is_wide for right in postgresql._of_attributes(QUERY, has, looks_as_super=looks_as_super))


_FIND = [{"resource": {"db": "seats", "collection": name}, "actions": ["find"]} for name in ("seats", "dead_letters")]
_ROLES: dict[str, list[dict[str, Any]]] = {
    "gateway": _FIND[:1],
    "read": [{"resource": {"db": "seats", "collection": ""}, "actions": ["find", "listCollections"]}],
    "elsewhere": [{"resource": {"db": "other", "collection": ""}, "actions": ["find", "insert", "dropDatabase"]}],
    "letters": _FIND[1:],
    "ending": [{"resource": {"cluster": True}, "actions": ["killop", "serverStatus"]}],
}


class _Mongo:
    """A server's answers about its accounts, as MongoDB's documentation has them: the stand-in keeps none."""

    name = "seats"

    def __init__(self, *roles: str) -> None:
        self.client = self
        self.admin = self
        self._roles = roles

    def __getitem__(self, database: str) -> "_Mongo":
        return self

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        if "rolesInfo" in command:
            return {"roles": [{"inheritedPrivileges": _ROLES[command["rolesInfo"]["role"]]}]}
        if command["usersInfo"] == {"forAllDBs": True}:
            return {"users": [{"user": "reader", "db": "seats"}]}
        roles = [{"role": role, "db": "seats"} for role in self._roles]
        privileges = [privilege for role in self._roles for privilege in _ROLES[role]]
        return {"users": [{**command["usersInfo"], "roles": roles, "inheritedPrivileges": privileges}]}


def _on_mongodb(*roles: str) -> dict[str, tuple[str, ...]]:
    """What is said of each role that is an excess, with what it reads. Each is taken, and the printed one given."""
    server: Any = _Mongo(*roles)
    found = mongodb.reader_excess(server, QUERY)
    for right in found:
        assert [command_of(statement)[1]["roles"][0]["role"] for statement in right.statements] in (
            [],
            ["gateway", right.does.split()[3].partition("@")[0]],
        )
    return {right.does: right.tables for right in found}


def test_on_mongodb_each_role_of_a_reader_is_judged_by_what_it_may_itself() -> None:
    assert _on_mongodb("gateway", "elsewhere") == {}
    assert _on_mongodb("elsewhere", "letters", "read", "ending") == {
        "has the role letters@seats": ("dead_letters",),
        "has the role read@seats": ("dead_letters",),
        "has the role ending@seats, by which it may killop": (),
    }


def test_who_makes_the_roles_of_postgresql_is_told_that_a_reader_enters_other_databases() -> None:
    """The table of locks and the disk are the server's, and what is taken from everybody is of one database."""
    lane, reader = (parse_address(f"postgresql://{user}@127.0.0.1/seats") for user in ("lane", "reader"))
    lines = kind_of(lane).account_lines(None, lane, reader, ReadingRights(tables=("seats",), withheld=()))
    at = next(place for place, line in enumerate(lines) if "pg_hba.conf" in line)
    assert "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;" in "".join(lines[at:])
    assert "pg_hba.conf" not in "".join(kind_of(lane).account_lines(None, lane, None, ReadingRights((), ())))


@pytest.mark.parametrize(
    ("databases", "named"),
    [((), None), (("postgres", "shop"), "postgres, shop "), ((*map(str, range(10)), "x"), "7, 8, 9, … ")],
)
def test_a_check_names_the_other_databases_of_the_server_and_finds_no_fault_with_them(
    databases: tuple[str, ...], named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = SimpleNamespace(reader_excess=lambda *_: (), reader_elsewhere=lambda *_: databases)
    looking = SimpleNamespace(kind=kind, address=parse_address("postgresql://operator@127.0.0.1/users"))
    monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://users_lane@127.0.0.1/users")
    monkeypatch.setattr(accounts, "looking_at", lambda _: looking)
    monkeypatch.setattr(accounts, "reader_of", lambda *_: QUERY)
    ran = CliRunner().invoke(accounts.database_accounts_command, ["users", "--check"])
    assert (ran.exit_code, ran.stdout) == (0, "users: reader reads what gateways read, and no more\n")
    assert (named in ran.stderr) if named else ran.stderr == ""
