"""Which roles are members of which on PostgreSQL, and what ends a membership."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, text

from coordinator.stores.postgresql.identifiers import quoted

# From version 16 on a membership is one for each role that gave it. Whoever owns the database is a member of
# `pg_database_owner`, which stands in no catalogue.
_OWNERS: Final = "pg_database_owner"
_MEMBERSHIPS: Final = text(f"""
    SELECT held.rolname, member.rolname,
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN pg_get_userbyid(grantor) END,
        own.rolsuper OR pg_has_role(held.oid, 'USAGE WITH ADMIN OPTION')
            OR (own.rolcreaterole AND current_setting('server_version_num')::int < 160000)
    FROM pg_auth_members JOIN pg_roles AS held ON held.oid = roleid JOIN pg_roles AS member ON member.oid = member
        JOIN pg_roles AS own ON own.rolname = current_user
    UNION ALL SELECT '{_OWNERS}', pg_get_userbyid(datdba), NULL, FALSE
        FROM pg_database WHERE datname = current_database()
    ORDER BY 1, 2, 3
""")  # noqa: S608  # a constant of ours


class RoleMembership(Struct, frozen=True):
    """A role that may act as another, whether it has the other's rights by itself or by SET ROLE."""

    role: str
    member: str
    grantor: str | None
    """Who gave it; None where the server does not tell such memberships apart."""
    is_ours: bool
    """Whether the role that looks may end it."""

    @property
    def statement(self) -> str:
        """What ends it."""
        by = "" if self.grantor is None else f" GRANTED BY {quoted(self.grantor)}"
        return f"REVOKE {quoted(self.role)} FROM {quoted(self.member)}{by} CASCADE"

    @property
    def statements(self) -> tuple[str, ...]:
        """What ends it, where the role that looks may; otherwise nothing."""
        return (self.statement,) if self.is_ours else ()

    @property
    def why(self) -> str:
        """What ends with it, or who else may end it."""
        if self.role == _OWNERS:
            return f"{self.member} owns the database: ALTER DATABASE … OWNER TO whoever migrates the lane"
        if self.is_ours:
            return f"it ends all that {self.member} may as {self.role}"
        return f"only a superuser, or who has ADMIN OPTION on {self.role}, may run {self.statement}"


class RoleMemberships(Struct, frozen=True):
    """All those of a server."""

    known: tuple[RoleMembership, ...]

    def leading(self, member: str, role: str) -> Iterator[RoleMembership]:
        """The memberships of `member` by which it may act as `role`, through whatever others. Once they are revoked it
        may not.
        """
        for each in self.known:
            if each.member == member and role in self.acting_as(each.role):
                yield each

    def acting_as(self, role: str) -> frozenset[str]:
        """The roles that a role may act as; itself, too."""
        reached: set[str] = set()
        new = {role}
        while new:
            reached |= new
            new = {each.role for each in self.known if each.member in new} - reached
        return frozenset(reached)


def memberships(connection: Connection) -> RoleMemberships:
    """Every role sees all of them."""
    rows = connection.execute(_MEMBERSHIPS)
    return RoleMemberships(tuple(RoleMembership(*row) for row in rows))
