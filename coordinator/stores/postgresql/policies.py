"""Row-level security, as the sessions of a lane meet it."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import psycopg

from coordinator.stores.postgresql.errors import is_of_policy
from coordinator.stores.postgresql.missing_rights import check_shown
from coordinator.stores.postgresql.session import MEET_POLICIES, SET_UP_LANE
from coordinator.stores.sql.schema import TableOf

SHOWN_FOR_S: Final = 1.0
"""How long a busy lane whose session may meet policies takes it for certain that they hide no rows."""

_Connection = psycopg.Connection[tuple[Any, ...]]


class Policies:
    """What is known of the policies that a lane's statements meet, over all of its sessions."""

    def __init__(self) -> None:
        self._has_met_one = False
        """Whether a statement has met one, perhaps within a trigger whose function has a role of its own."""
        self._may_be_met = False
        """Whether the session lets its statements meet one."""
        self._shown_until_s = 0.0

    def set_up(self, connection: _Connection) -> None:
        """Set a new session up."""
        (row_security, *_) = connection.execute(SET_UP_LANE).fetchone() or ("on",)
        if self._has_met_one:
            connection.execute(MEET_POLICIES)
        self._may_be_met = self._has_met_one or row_security == "on"
        self._shown_until_s = 0.0

    def check(self, connection: _Connection, tables: Callable[[], Sequence[TableOf]]) -> None:
        """Raise NotAdmitted where they may hide rows of these tables from the session's role, if it is time to ask."""
        if self._may_be_met and monotonic() >= self._shown_until_s:
            check_shown(connection, tables())
            self._shown_until_s = monotonic() + SHOWN_FOR_S

    def have_ended(self, error: psycopg.Error) -> bool:
        """Whether that is an error since the session lets nothing meet a policy. The next one does, and asks whether
        those of the lane's role hide anything."""
        if self._may_be_met or not is_of_policy(error):
            return False
        self._has_met_one = True
        return True
