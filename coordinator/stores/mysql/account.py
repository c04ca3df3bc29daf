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
