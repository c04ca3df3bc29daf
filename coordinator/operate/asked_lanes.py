"""Reading a list from several lanes, of which some may be away: what is not whole is never shown as if it were."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from coordinator.operate.open import lane_admin
from coordinator.operate.output import EXIT_REFUSED, EXIT_USAGE, print_json
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.text import printable
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.one_lane import WrongDatabase

T = TypeVar("T")


class AskedLanes:
    """Keeps what could not be asked, and says it at the end. `are_named`: the operator has, and means no others."""

    def __init__(self, *, are_named: bool) -> None:
        self._are_named = are_named
        self._away: list[str] = []
        self._status = EXIT_REFUSED
        """For the end where a lane could not be asked: one that no other try mends counts more."""

    def ask(self, lane: str, read: Callable[[LaneAdmin], T]) -> T | None:
        """What there is in the database of a lane; None: it could not be asked.

        Raises WrongDatabase, and ConfigurationError for a lane that was named.
        """
        try:
            with lane_admin(lane) as admin:
                return read(admin)
        except WrongDatabase:
            raise
        except (Unavailable, ConfigurationError) as error:
            if isinstance(error, ConfigurationError) and self._are_named:
                raise
            self._away.append(str(error))
            if isinstance(error, ConfigurationError):
                self._status = EXIT_USAGE
        return None

    def show(
        self,
        value: object,
        table: Callable[[], None],
        hints: Sequence[str] = (),
        *,
        as_json: bool,
        is_empty: bool,
    ) -> None:
        """Print what there is, `value` as JSON, and what is away; where something is, end with the status for it.

        As JSON only what is whole, since nothing in it would say that it is not; and no table of nothing.
        """
        if as_json and not self._away:
            print_json(value)
        elif not as_json and not (is_empty and self._away):
            table()
        for hint in hints:
            click.echo(hint, err=True)
        for text in self._away:
            click.echo(f"coordinator: {printable(text)}", err=True)
        if self._away:
            sys.exit(self._status)
