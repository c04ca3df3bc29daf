"""Two services whose commands cross: the test ledger, with more commands, and a journal that answers it."""

from typing import ClassVar

from msgspec import structs

from shared.commands import Command, Id
from shared.errors import Rejected
from shared.rows import Ref, Row, by_key
from shared.service import Service
from shared.unit_of_work import Handler, UnitOfWork
from tests.support.ledger import LEDGER, Account, Deposit, Fragile, Rename, Tamper, tamper

BALANCE_MIN = -1000
NOTE_CHARACTERS_MAX = 50
MENDED = "mended"


class Note(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "notes"
    key: ClassVar[str] = "id"

    id: int
    account: int
    amount: int


class WriteNote(Command, frozen=True, kw_only=True):
    """Keeps a note; with `back` it also emits a deposit into the other lane."""

    type: ClassVar[str] = "journal.note"
    account: int
    amount: int
    back: bool = False


class Relay(Command, frozen=True, kw_only=True):
    """Takes an amount off an account and emits it, twice, into the journal; refuses only after it has emitted."""

    type: ClassVar[str] = "ledger.relay"
    id: Id
    amount: int


class Strict(Command, frozen=True, kw_only=True):
    """Crashes when told to, and stops the lane with it."""

    type: ClassVar[str] = "ledger.strict"
    id: Id
    crash: bool


def write_note(work: UnitOfWork, command: WriteNote) -> Note:
    note = work.add(Note(id=work.next_id("notes"), account=command.account, amount=command.amount))
    if command.back:
        work.emit(Deposit(id=command.account, amount=command.amount))
    return note


def relay(work: UnitOfWork, command: Relay) -> Account:
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    work.emit(WriteNote(account=command.id, amount=command.amount, back=command.amount % 2 == 0))
    saved = work.save(structs.replace(account, balance=account.balance - command.amount))
    work.emit(WriteNote(account=command.id, amount=-command.amount))
    if saved.balance < 0:
        raise Rejected("overdrawn", "below zero")
    return saved


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


def rename(work: UnitOfWork, command: Rename) -> Account:
    account = work.get(Account, command.id)
    if account is None:
        raise Rejected("account_not_found", "no such account")
    if work.find(Account, "owner", command.owner) is not None:
        raise Rejected("owner_taken", "taken")
    return work.save(structs.replace(account, owner=command.owner))


def _named(command: Tamper | Fragile) -> tuple[Ref[Row], ...]:
    return (by_key(Account, command.id),)


LEDGER_LANE = Service(
    name="ledger",
    models=LEDGER.models,
    handlers=(
        *(handler for handler in LEDGER.handlers if handler.command not in (Rename, Tamper, Fragile)),
        Handler(
            Fragile,
            fragile,
            reads=_named,
            target=lambda command: by_key(Account, command.id),
            on_failure="park-key",
        ),
        Handler(Tamper, tamper, reads=_named, target=lambda command: by_key(Account, command.id)),
        Handler(Rename, rename, reads=lambda command: (by_key(Account, command.id),)),
        Handler(
            Relay,
            relay,
            reads=lambda command: (by_key(Account, command.id),),
            target=lambda command: by_key(Account, command.id),
        ),
        Handler(Strict, strict, reads=lambda command: (by_key(Account, command.id),), on_failure="block"),
    ),
)
JOURNAL_LANE = Service(name="journal", models=(Note,), handlers=(Handler(WriteNote, write_note),))
SERVICES = {service.name: service for service in (LEDGER_LANE, JOURNAL_LANE)}
