"""Two services whose commands cross: the test ledger, with more commands, and a journal that answers it."""

from datetime import timedelta
from typing import Any

from msgspec import Struct, structs

from coordinator.service.allowing import any_of, has_scope
from coordinator.service.commands import Command, Id
from coordinator.service.continuation import Continuation, Deferred
from coordinator.service.errors import Rejected
from coordinator.service.outside_calls import Effect, effects_key
from coordinator.service.principal import Principal
from coordinator.service.reading import Reading
from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.service.upgrades import Upgrade
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, Rename, Resume, Tamper, tamper

BALANCE_MIN = -1000
RENAME_COSTS = 3
LARGE = 5
NOTE_CHARACTERS_MAX = 50
MENDED = "mended"
CLERK = "clerk"
"""A scope."""
FIRST_SECRET = "fe" * 32
"""That of the first fingerprint key of each lane, which migrations make."""


class Note(Row, table="notes", key="id"):
    id: int
    account: int
    amount: int


class Report(Row, table="reports", key="id"):
    """What was reported to somebody of another command."""

    id: int
    about: str
    status: str
    code: str | None


class Noted(Continuation, type="ledger.noted"):
    """What became of a note that the ledger had written; the system's own."""


class Heard(Continuation, type="ledger.heard"):
    """What became of whatever: anybody may name it."""


class Audited(Continuation, type="journal.audited"):
    """What became of what the journal had the ledger do; the system's own."""


class Grant(Command, type="ledger.grant"):
    """A deposit that only the system makes."""

    id: Id
    amount: int


class Buy(Command, type="ledger.buy"):
    """Has the provider charge somebody."""

    amount: int


class Charge(Effect, type="ledger.charge"):
    """One charge for each command that asks for it."""

    buyer: str
    amount: int


class Charged(Command, type="ledger.charged"):
    """The provider's answer: a fact."""

    buyer: str
    reference: str


class NotCharged(Command, type="ledger.not_charged"):
    """There will be no answer: a guess."""

    buyer: str
    may_have_happened: bool


class Keep(Command, type="ledger.keep"):
    """Has something kept in the archive, whose queue may be missing."""

    number: int


class Archive(Command, type="archive.keep"):
    """Nobody here applies it."""

    number: int


class WriteNote(Command, type="journal.note"):
    """Keeps a note; with `back` it also emits a deposit into the other lane."""

    account: int
    amount: int
    back: bool = False


class WriteSum(Command, type="journal.note", version=2):
    """The second version of `WriteNote`."""

    account: int
    sum: int
    back: bool = False


class Relay(Command, type="ledger.relay"):
    """Takes an amount off an account and emits it, twice, into the journal; refuses only after it has emitted."""

    id: Id
    amount: int


class Later(Command, type="ledger.later"):
    """Has a deposit made later; if it is a large one and there is no account, refuses after the timer is set."""

    id: Id
    amount: int
    after_ms: int


class TakeBack(Command, type="ledger.take_back"):
    """Takes a timer back; refuses, if told to, only after that."""

    timer: str
    refuse: bool


class Taken(Struct, frozen=True):
    """Whether the timer still waited."""

    waited: bool


class Strict(Command, type="ledger.strict"):
    """Crashes when told to, and stops the lane with it."""

    id: Id
    crash: bool


class Spend(Command, type="ledger.spend"):
    """Takes an amount off an account, for its owner or a clerk; crashes if it is 0."""

    id: Id
    amount: int


class Fee(Command, type="ledger.fee"):
    """The same, for clerks only."""

    id: Id
    amount: int


CLERKS_ONLY = frozenset({Fee.type})
RULED = CLERKS_ONLY | {Spend.type}
"""The types that have rules."""


def owns(who: Principal, command: Spend, rows: Reading) -> bool:
    account = rows.get(Account, command.id)
    return account is not None and account.owner == who.subject


def spend(work: UnitOfWork, command: Spend | Fee) -> Account:
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    saved = work.save(structs.replace(account, balance=account.balance - command.amount))
    if not command.amount:
        raise RuntimeError("spent nothing")
    if saved.balance < 0:
        raise Rejected("overdrawn", "below zero")
    return saved


def write_note(work: UnitOfWork, command: WriteNote) -> Note:
    note = work.add(Note(id=work.next_id("notes"), account=command.account, amount=command.amount))
    if command.back and command.amount % 3 == 0:
        work.emit(Grant(id=command.account, amount=command.amount), continuation=Audited)
    elif command.back:
        work.emit(Deposit(id=command.account, amount=command.amount), continuation=Audited)
    return note


def write_sum(work: UnitOfWork, command: WriteSum) -> Note:
    return write_note(work, WriteNote(account=command.account, amount=command.sum, back=command.back))


def sum_was_amount(arguments: dict[str, Any]) -> dict[str, Any]:
    return {("sum" if name == "amount" else name): value for name, value in arguments.items()}


def report(work: UnitOfWork, command: Continuation) -> Report:
    code = None if command.error is None else command.error.code
    about = f"{command.command_type} {command.command_id}"
    return work.add(Report(id=work.next_id("reports"), about=about, status=command.status, code=code))


def grant(work: UnitOfWork, command: Grant) -> Account:
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    return work.save(structs.replace(account, balance=account.balance + command.amount))


def buy(work: UnitOfWork, command: Buy) -> None:
    work.emit(Charge(buyer=work.command_id, amount=command.amount))


def charged(work: UnitOfWork, command: Charged) -> Report:
    about = f"charge {command.buyer}"
    return work.add(Report(id=work.next_id("reports"), about=about, status="fact", code=command.reference))


def not_charged(work: UnitOfWork, command: NotCharged) -> Report:
    code = "maybe" if command.may_have_happened else "no"
    return work.add(Report(id=work.next_id("reports"), about=f"charge {command.buyer}", status="guess", code=code))


def keep(work: UnitOfWork, command: Keep) -> None:
    work.emit(Archive(number=command.number))


def relay(work: UnitOfWork, command: Relay) -> Account:
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    work.emit(WriteNote(account=command.id, amount=command.amount, back=command.amount % 2 == 0), continuation=Noted)
    saved = work.save(structs.replace(account, balance=account.balance - command.amount))
    work.emit(WriteNote(account=command.id, amount=-command.amount))
    if saved.balance < 0:
        raise Rejected("overdrawn", "below zero")
    return saved


def later(work: UnitOfWork, command: Later) -> None:
    after = timedelta(milliseconds=command.after_ms)
    work.emit(Deposit(id=command.id, amount=command.amount), after=after)
    if command.amount >= LARGE and work.get(Account, command.id) is None:
        raise Rejected("account_not_found", "no such account")


def take_back(work: UnitOfWork, command: TakeBack) -> Taken:
    taken = Taken(work.cancel(command.timer))
    if command.refuse:
        raise Rejected("refused", "after the timer was taken back")
    return taken


def strict(work: UnitOfWork, command: Strict) -> Account:
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    saved = work.save(structs.replace(account, balance=account.balance + 1))
    if command.crash:
        raise RuntimeError("strict")
    return saved


def fragile(work: UnitOfWork, command: Fragile) -> Account:
    """Crashes until somebody has mended the account."""
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    saved = work.save(structs.replace(account, balance=account.balance + command.amount))
    if account.note != MENDED:
        raise RuntimeError("broken")
    return saved


def resume(work: UnitOfWork, command: Resume) -> Account:
    """Once: the account forgets what it had put off."""
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    if account.data is None:
        raise Rejected("nothing_put_off", "nothing was put off")
    saved = work.save(structs.replace(account, data=None))
    refusal = None if command.refusal is None else Rejected(command.refusal, "refused in the end")
    work.resume(Deferred.decode(account.data.decode()), refusal or saved)
    return saved


def rename(work: UnitOfWork, command: Rename) -> Account:
    """Refuses only after it has renamed: the rename must be taken back, for whoever looks an owner up next."""
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    if work.find(Account, "owner", command.owner) is not None:
        raise Rejected("owner_taken", "taken")
    saved = work.save(structs.replace(account, owner=command.owner, balance=account.balance - RENAME_COSTS))
    if saved.balance < 0:
        raise Rejected("overdrawn", "below zero")
    return saved


LEDGER_LANE = Service(
    name="ledger",
    models=(*LEDGER.models, Report),
    handlers=(
        *(handler for handler in LEDGER.handlers if handler.command not in (Rename, Resume, Tamper, Fragile)),
        Handler(
            Fragile,
            fragile,
            target=lambda command: Account.at(command.id),
            on_failure="park-key",
        ),
        Handler(Tamper, tamper, target=lambda command: Account.at(command.id)),
        Handler(Resume, resume, reads=lambda command: (Account.at(command.id),)),
        Handler(Rename, rename, reads=lambda command: (Account.at(command.id),)),
        Handler(
            Relay,
            relay,
            reads=lambda command: (Account.at(command.id),),
            target=lambda command: Account.at(command.id),
        ),
        Handler(Strict, strict, reads=lambda command: (Account.at(command.id),), on_failure="block"),
        Handler(Spend, spend, target=lambda command: Account.at(command.id), allow=any_of(has_scope(CLERK), owns)),
        Handler(Fee, spend, target=lambda command: Account.at(command.id), allow=has_scope(CLERK)),
        Handler(Grant, grant, target=lambda command: Account.at(command.id), is_internal=True),
        Handler(Keep, keep),
        Handler(Buy, buy),
        Handler(Charged, charged, is_internal=True),
        Handler(NotCharged, not_charged, is_internal=True),
        Handler(Later, later),
        Handler(TakeBack, take_back),
        Handler(Noted, report, is_internal=True),
        Handler(Heard, report),
    ),
)
JOURNAL_LANE = Service(
    name="journal",
    models=(Note, Report),
    handlers=(Handler(WriteNote, write_note), Handler(Audited, report, is_internal=True)),
)
SINKS = ("archive", effects_key("ledger"))
"""What leaves the lanes. The second is consumed in some worlds (`worker.py`)."""
TARGETS = ("ledger", "journal", *SINKS)
SERVICES = {service.name: service for service in (LEDGER_LANE, JOURNAL_LANE)}
NEWER_SERVICES = SERVICES | {
    "journal": JOURNAL_LANE.replace(
        handlers=(Handler(WriteSum, write_sum), Handler(Audited, report, is_internal=True)),
        upgrades=(Upgrade(WriteSum, 1, sum_was_amount),),
    )
}
"""Those of the release that `releases.py` brings."""
