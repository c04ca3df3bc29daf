"""Rights on all databases of a server of MySQL or MariaDB."""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, text

from coordinator.stores.mysql.account import account_of
from coordinator.stores.mysql.memberships import system_tables

_OF_ACCOUNTS: Final = text("SELECT grantee, privilege_type, is_grantable FROM information_schema.user_privileges")
_ROLES: Final = text("SELECT user FROM mysql.user WHERE is_role = 'Y' ORDER BY user")
_GRANT: Final = re.compile(r"GRANT (.+?) ON \*\.\* TO (.+?)( WITH GRANT OPTION)?")
_ALL: Final = "ALL PRIVILEGES"
_EACH: Final = text("SHOW PRIVILEGES")
_NONE: Final = ("USAGE", "GRANT OPTION", "PROXY")


class GlobalRight(Struct, frozen=True):
    """One right that an account or a role has on all databases."""

    grantee: str
    right: str
    is_grantable: bool


def global_rights(connection: Connection, *, with_roles: bool) -> Iterator[GlobalRight]:
    """MariaDB's information schema leaves out those of roles, and of PUBLIC; only who may read `mysql.*` is shown them.

    Raises the driver's errors where the account may not, and roles are asked for.
    """
    for grantee, right, is_grantable in connection.execute(_OF_ACCOUNTS):
        if right != "USAGE":
            yield GlobalRight(str(grantee), str(right), is_grantable == "YES")
    if with_roles and "roles_mapping" in system_tables(connection):
        for name in connection.execute(_ROLES).scalars().all():
            yield from _of_role(connection, str(name))


def _of_role(connection: Connection, name: str) -> Iterator[GlobalRight]:
    grantee = f"'{name}'@''"
    shown = connection.exec_driver_sql(
        f"SHOW GRANTS FOR {account_of(grantee)}", execution_options={"no_parameters": True}
    )
    itself = {name, "`" + name.replace("`", "``") + "`"}
    for (line,) in shown.all():
        found = _GRANT.fullmatch(str(line))
        # Roles that it has are shown with it.
        if found is None or found.group(2) not in itself:
            continue
        rights = found.group(1).split(", ")
        if rights == [_ALL]:
            rights = [str(row[0]).upper() for row in connection.execute(_EACH)]
        for right in rights:
            if right not in _NONE:
                yield GlobalRight(grantee, right, found.group(3) is not None)
