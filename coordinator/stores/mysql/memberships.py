"""Which accounts have which roles, on MySQL and MariaDB, as the server's own tables have it."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, text

from coordinator.stores.mysql.account import account_of

_SYSTEM_TABLES: Final = text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'mysql'")
_ROLES: Final = {
    "roles_mapping": text("SELECT user, host, role, '', admin_option FROM mysql.roles_mapping ORDER BY 1, 2, 3"),
    "role_edges": text(
        "SELECT to_user, to_host, from_user, from_host, with_admin_option FROM mysql.role_edges ORDER BY 1, 2, 3, 4"
    ),
}
"""By the table in which the server notes who has which role: MariaDB's, and MySQL's."""


class Membership(Struct, frozen=True):
    """An account, or a role without a host, that has another one's rights."""

    user: str
    host: str
    of_user: str
    of_host: str
    is_admin: str
    """Y or N: whether it may give the role to others, as whoever has made it may."""

    @property
    def account(self) -> str:
        """Who has the role, as a statement has it."""
        return account_of(f"'{self.user}'@'{self.host}'")

    @property
    def role(self) -> str:
        """The role, as a statement has it."""
        return account_of(f"'{self.of_user}'@'{self.of_host}'")


def system_tables(connection: Connection) -> set[str]:
    """The server's own tables, in small letters."""
    return {row[0].lower() for row in connection.execute(_SYSTEM_TABLES)}


def memberships(connection: Connection) -> list[Membership]:
    """All of them. Raises the driver's errors where the account may not read `mysql.*`."""
    known = system_tables(connection)
    return [
        Membership(*map(str, row))
        for table, rows in _ROLES.items()
        if table in known
        for row in connection.execute(rows)
    ]


def reached_from(known: Sequence[Membership], user: str) -> set[str]:
    """The roles by which a user may have its rights."""
    needed: set[str] = set()
    reached = {user}
    while reached:
        reached = {each.of_user for each in known if each.user in reached} - needed
        needed |= reached
    return needed - {user}
