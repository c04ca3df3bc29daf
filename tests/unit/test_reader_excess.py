"""What of a reader's excess is taken from it: the roles that lead to it alone, and attributes only if asked for."""

from typing import Any

from coordinator.stores.foreign_rights import ForeignRight
from coordinator.stores.mysql import reader_excess as mysql
from coordinator.stores.mysql.memberships import Membership
from coordinator.stores.postgresql import reader_excess as postgresql
from coordinator.stores.reader_excess import ReaderQuery

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
