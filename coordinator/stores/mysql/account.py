"""The account of a connection, as `CURRENT_USER()` has it: user@host, where a user's name may have an @, too."""

from typing import Final

_HOST: Final = "SUBSTRING_INDEX(CURRENT_USER(), '@', -1)"
USER: Final = f"LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER()) - CHAR_LENGTH({_HOST}) - 1)"
GRANTEE: Final = f"CONCAT('''', {USER}, '''@''', {_HOST}, '''')"
"""The same as `grantee` of the information schema has it: between quotes, without any escape."""


def user_of(grantee: str) -> str:
    """The user of a `grantee`; MariaDB's roles have no host, and may have no quotes."""
    user, at, _ = grantee.rpartition("@")
    name = user if at and user.endswith("'") else grantee
    return name[1:-1] if name[:1] == name[-1:] and name[:1] in ("'", "`") else name


def account_of(grantee: str) -> str:
    """A `grantee` as a statement takes it: a user and its host; a role of MariaDB's, which has none; or PUBLIC."""
    name, (_, _, host) = user_of(grantee), grantee.rpartition("@")
    if not is_role(grantee):
        return f"{_literal(name)}@{_literal(host[1:-1])}"
    return name if name == "PUBLIC" else _literal(name)


def is_role(grantee: str) -> bool:
    """Whether a `grantee` of MariaDB is a role, which may have the name of an account."""
    _, at, host = grantee.rpartition("@")
    return not at or host in ("''", "")


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
