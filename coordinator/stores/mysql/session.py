"""What a session must be like, whatever the server has set for all of them, or its `init_connect` for each."""

from collections.abc import Mapping
from typing import Final

CHARSET: Final = "utf8mb4"
MODES: Final = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO"
"""A key that is 0 stays so, also in a column that is AUTO_INCREMENT."""

VARIABLES: Final[Mapping[str, str]] = {
    # Not DEFAULT, which is what the server has for all sessions.
    "sql_select_limit": "18446744073709551615",
    "sql_mode": f"'{MODES}'",
    "time_zone": "'+00:00'",
    "sql_auto_is_null": "0",
    "sql_big_selects": "1",
    "sql_safe_updates": "0",
    "sql_quote_show_create": "1",
    "group_concat_max_len": "65535",
    "max_sort_length": "1024",
    "foreign_key_checks": "1",
    "unique_checks": "1",
    "completion_type": "0",
    # Of tables that a migration makes: those of others know no transactions.
    "default_storage_engine": "InnoDB",
}
# MariaDB's own; MySQL takes it for a comment, and cannot switch its checks off.
_OF_MARIADB: Final = "/*M! , SESSION check_constraint_checks = 1 */"

IDLE_IN_TRANSACTION_TIMEOUT_S: Final = 10
# An operator's command has the lease row locked, as a lane has. One that stands still (Ctrl-Z, a laptop that is shut)
# must not keep it for ever: nobody takes a lane over from it. MySQL knows no limit for transactions alone.
ENDED_IDLE: Final = (
    f"/*M!100300 , SESSION idle_transaction_timeout = {IDLE_IN_TRANSACTION_TIMEOUT_S}"
    ", SESSION idle_write_transaction_timeout = 0, SESSION idle_readonly_transaction_timeout = 0 */ "
    f"/*!80000 , SESSION wait_timeout = {IDLE_IN_TRANSACTION_TIMEOUT_S} */"
)
"""The end of what sets a session up whose transaction the server rolls back if its client says nothing for too long."""


def set_up(more: Mapping[str, str | int] | None = None) -> str:
    """The statement that sets a session up, with more variables of it."""
    variables = {**VARIABLES, **(more or {})}
    # NAMES first, as `init_connect` may have changed the character set after the driver had said its own.
    listed = ", ".join(f"SESSION {name} = {value}" for name, value in variables.items())
    return f"SET NAMES {CHARSET}, {listed} {_OF_MARIADB}"
