"""Forgetting what somebody has asked for: found in the whole log by who asked, and taken out by orders of the lane.

The log has no index by actor, since each command would pay for it, and this is asked once in a while. So the log is
read by the operator's own connection, a page at a time, and the lane gets the ids: it looks itself whose they are. So
it is with dead letters, which may be of no entry of the log: of effects that were made for him, and of messages without
an id.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.lane.control import ASKED_MAX, ForgetAsked, ForgottenAsked
from coordinator.lane.forgetting import names
from coordinator.operate import output
from coordinator.operate.acts import act_of
from coordinator.operate.forget_waiting import note_asked
from coordinator.operate.giving_orders import OrderAnswer, give
from coordinator.operate.open import lane_admin, lane_api_keys
from coordinator.operate.output import CommandRefused
from coordinator.service.commands import INTEGER_MAX, validated
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import FORGOTTEN
from coordinator.service.principal import Principal
from coordinator.stores.admin import LaneAdmin, LetterQuery
from coordinator.stores.api_keys import KeyCounts
from coordinator.stores.audit import ChangeQuery

PAGE_COMMANDS: Final = 10 * ASKED_MAX


class Whose(Struct, frozen=True):
    """A subject, and his tenant (empty: he has none): together they are somebody."""

    subject: str
    tenant: str

    @property
    def principal(self) -> Principal:
        """He, whatever his credential was good for."""
        return Principal(subject=self.subject, tenant=self.tenant or None)

    @property
    def logged(self) -> str:
        """As the log has him."""
        return self.principal.as_logged


class AskedFor(Struct):
    """How many commands somebody has asked for, and what of them is emptied so far."""

    commands: int = 0
    named: int = 0
    """How many dead letters name him as who asked, of what was not emptied with an entry."""
    entries: int = 0
    letters: int = 0
    keys: int = 0
    is_done: bool = False

    def fields(self, *, dry_run: bool) -> dict[str, object]:
        """For JSON."""
        return {
            "status": "dry_run" if dry_run else FORGOTTEN if self.is_done else "pending",
            "commands": self.commands,
            "log_entries": self.entries,
            "dead_letters": self.named if dry_run else self.letters,
            "api_keys": self.keys,
        }

    def lines(self, lane: str, *, dry_run: bool) -> Iterator[str]:
        """For eyes."""
        if dry_run:
            yield f"{lane}: he has asked for {self.commands} commands; nothing is changed"
            if self.named:
                yield f"{lane}: {self.named} dead letters name him as who asked"
            return
        yield f"{lane}: {self.entries} entries of what he asked for are emptied, and {self.letters} dead letters"
        if self.keys:
            yield f"{lane}: {self.keys} API keys of his that had ended are deleted"


def forget_keys(lane: str, whose: Whose, reason: str) -> int:
    """Delete his API keys, which have all ended; returns how many there were.

    Raises CommandRefused where one has not: with it he would go on to ask.
    """
    validated(_order(whose, [], "", reason))
    with lane_api_keys(lane) as keys:
        try:
            return keys.forget(
                whose.subject, whose.tenant or None, output.now(), act_of(lane, "keys forget", reason or None)
            )
        except KeyCounts as counting:
            raise CommandRefused(
                f"{lane}: his key {counting} still counts: revoke it first (`coordinator keys revoke {lane} --id "
                f"{counting}`), and forget again"
            ) from None


def forget_asked(lane: str, whose: Whose, reason: str, until_s: float, keys: int = 0, *, dry_run: bool) -> AskedFor:
    """Take out what he has asked for until now, or count it. Raises CommandRefused, Unavailable.

    So many of his API `keys` are gone already. All orders are given, also when the time is over: the lane carries them
    out.
    """
    asked, run = AskedFor(keys=keys, is_done=True), new_command_id()
    validated(_order(whose, [], run, reason))
    note = partial(note_asked, lane, reason)
    with lane_admin(lane) as admin:
        for ids in _pages(admin, whose):
            asked.commands += len(ids)
            if dry_run:
                continue
            parts = [ids[start : start + ASKED_MAX] for start in range(0, len(ids), ASKED_MAX)]
            answers: list[OrderAnswer] = []
            orders = [_order(whose, part, run, reason) for part in parts]
            give(lane, orders, max(0.0, until_s - monotonic()), answers.append, note)
            _take(lane, answers, len(orders), asked)
        for numbers in _letters(admin, whose):
            asked.named += len(numbers)
            if dry_run:
                continue
            answers = []
            order = _order(whose, [], run, reason, numbers)
            give(lane, [order], max(0.0, until_s - monotonic()), answers.append, note)
            _take(lane, answers, 1, asked)
    return asked


def _order(whose: Whose, ids: list[str], run: str, reason: str, letters: Sequence[int] = ()) -> ForgetAsked:
    return ForgetAsked(
        commands=ids,
        letters=tuple(letters),
        actor=whose.subject,
        tenant=whose.tenant,
        asked=run,
        by=output.as_user(),
        reason=reason,
    )


def _letters(admin: LaneAdmin, whose: Whose) -> Iterator[list[int]]:
    """The numbers of the dead letters that name him, as many at a time as one order takes."""
    after, found = 0, list[int]()
    while page := admin.letters(LetterQuery(), after, PAGE_COMMANDS):
        for each in page:
            letter = admin.letter(each.id)
            if letter is not None and names(letter, whose.logged):
                found.append(each.id)
            if len(found) == ASKED_MAX:
                yield found
                found = []
        after = page[-1].id
    if found:
        yield found


def _pages(admin: LaneAdmin, whose: Whose) -> Iterator[list[str]]:
    """The ids of his commands, the latest first."""
    before, his = INTEGER_MAX, whose.logged
    while True:
        page = admin.audited(ChangeQuery(actor=whose.subject), before, PAGE_COMMANDS)
        if ids := [each.command_id for each in page if each.actor == his]:
            yield ids
        if len(page) < PAGE_COMMANDS:
            return
        before = page[-1].sequence


def _take(lane: str, answers: list[OrderAnswer], orders: int, asked: AskedFor) -> None:
    """Count what the lane has done, and note where that is not all yet. Raises CommandRefused."""
    outcomes = [answer.outcome for answer in answers if answer.outcome is not None]
    for outcome in outcomes:
        if outcome.status != "applied":
            error = outcome.error
            raise CommandRefused(f"{lane}: {error.code}: {error.message}" if error else f"{lane}: {outcome.status}")
        done = msgspec.json.decode(outcome.result, type=ForgottenAsked)
        asked.entries += done.entries
        asked.letters += done.letters
    asked.is_done = asked.is_done and len(outcomes) == orders
