"""Forgetting what commands have left of the rows that are somebody's own, whoever asked for them.

What others do to his rows has not him as the one who asked: an operator's answer, what a provider tells. The class of
the rows says which are his (`Row.personal_to`), and the lane's index has what is left of each by its key.
"""

from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.lane.control import ASKED_MAX, Forget, ForgetBegun
from coordinator.operate import output
from coordinator.operate.forget_asked import Whose
from coordinator.operate.forget_steps import begin, followed
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused
from coordinator.registry import registry
from coordinator.service.errors import UnreadableRow
from coordinator.service.ids import new_command_id
from coordinator.service.rows import Row, key_of
from coordinator.stores.admin import LaneAdmin

ROWS_MAX: Final = 100_000
"""Of one class: more of his are refused in words."""


class OwnRows(Struct):
    """How many rows are his own, how many commands have left something of them, and what of that is emptied so far."""

    rows: int = 0
    commands: int = 0
    entries: int = 0
    letters: int = 0
    is_done: bool = False

    def fields(self) -> dict[str, int]:
        """For JSON."""
        return {
            "rows": self.rows,
            "commands": self.commands,
            "log_entries": self.entries,
            "dead_letters": self.letters,
        }

    def lines(self, lane: str, *, dry_run: bool) -> Iterator[str]:
        """For eyes."""
        if not self.rows:
            return
        if dry_run:
            yield f"{lane}: {self.rows} rows are his own, of which {self.commands} commands have left something"
            return
        yield (
            f"{lane}: {self.rows} rows are his own: {self.entries} entries of what was done to them, and "
            f"{self.letters} dead letters, are emptied; the rows are the service's, and are still there"
        )


def forget_rows(lane: str, whose: Whose, reason: str, until_s: float, *, dry_run: bool) -> OwnRows:
    """Take out what commands have left of his rows until now, or count it. Raises CommandRefused, Unavailable.

    All orders are given, also when the time is over: the lane carries them out.
    """
    own = OwnRows(is_done=True)
    with lane_admin(lane) as admin:
        orders = [_order(each, whose, reason, dry_run=dry_run) for each in _his(admin, lane, whose)]
        own.rows = len(orders)
        for start in range(0, len(orders), ASKED_MAX):
            some = orders[start : start + ASKED_MAX]
            begun = begin(lane, some, max(0.0, until_s - monotonic()))
            own.commands += sum(each.commands for each in begun)
            is_done = dry_run or _all_done(admin, lane, begun, until_s, own)
            own.is_done = own.is_done and is_done and len(begun) == len(some)
            if dry_run and not own.is_done:
                break
    return own


def _all_done(admin: LaneAdmin, lane: str, begun: Sequence[ForgetBegun], until_s: float, own: OwnRows) -> bool:
    is_done = True
    for each in begun:
        progress = followed(admin, lane, each.goes_on_as, until_s)
        if progress.done is not None:
            own.entries += progress.done.entries
            own.letters += progress.done.letters
        is_done = is_done and progress.is_done
    return is_done


def _his(admin: LaneAdmin, lane: str, whose: Whose) -> Iterator[Row]:
    """His rows, of all classes that say which are. Raises CommandRefused."""
    service = registry().service(lane)
    for model in service.models:
        if model.personal_of is not Row.personal_of:
            # What is left of these rows is found by the one to whom they belong.
            continue
        where = model.personal_to(whose.principal)
        if not where or None in where.values():
            continue
        if unknown := where.keys() - {*model.__struct_fields__}:
            raise CommandRefused(f"`personal_to` of {model.__name__} names {', '.join(unknown)}, which it has not")
        try:
            rows = admin.rows(service, model, where, ROWS_MAX + 1)
        except UnreadableRow as error:
            raise CommandRefused(f"{lane}: {error}") from None
        if len(rows) > ROWS_MAX:
            raise CommandRefused(f"{lane}: more than {ROWS_MAX} rows of {model.table} are his: forget each by its KEY")
        yield from rows


def _order(row: Row, whose: Whose, reason: str, *, dry_run: bool) -> Forget:
    return Forget(
        table=row.table,
        value=msgspec.Raw(msgspec.json.encode(key_of(row))),
        asked=new_command_id(),
        actor=whose.subject,
        tenant=whose.tenant,
        dry_run=dry_run,
        reason=reason,
        by=output.as_user(),
    )
