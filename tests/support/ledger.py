"""A fourth service, for the tests: accounts with a unique owner. It shows what a service needs to be one."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, structs
from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects.mysql import DATETIME

from coordinator.service.commands import Command, Id
from coordinator.service.continuation import Continuation, Deferred
from coordinator.service.errors import Rejected
from coordinator.service.rows import VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork

metadata = MetaData()
Table(
    "accounts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(20), nullable=False, unique=True),
    Column("reference", String(20), unique=True),
    Column("balance", BigInteger, CheckConstraint("balance >= -1000"), nullable=False),
    Column("note", String(50)),
    Column("data", LargeBinary),
    Column("version", BigInteger, nullable=False),
    Column(
        "created_at",
        DateTime(timezone=True).with_variant(DATETIME(fsp=3), "mysql", "mariadb"),
        nullable=False,
    ),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)


class Account(VersionedRow, table="accounts", key="id", unique=("owner", "reference"), audited=True):
    id: int
    owner: str
    reference: str | None = None
    balance: int = 0
    note: str | None = None
    data: bytes | None = None
    created_at: datetime


class OpenAccount(Command, type="ledger.open"):
    owner: str


class Deposit(Command, type="ledger.deposit"):
    id: Id
    amount: Annotated[int, Meta(ge=-(10**6), le=10**6)]


class Tamper(Command, type="ledger.tamper"):
    """Changes the account and then goes wrong, in one of several ways."""

    id: Id
    how: str


class Rename(Command, type="ledger.rename"):
    id: Id
    owner: str


class Close(Command, type="ledger.close"):
    id: Id


class Forward(Command, type="ledger.forward"):
    """Emits a deposit into the same lane."""

    id: Id
    amount: int


class Fragile(Command, type="ledger.fragile"):
    """A deposit that crashes while the account's note says `broken`, and keeps the account's later commands waiting.

    An amount of 0 gives the account the owner `b`, which the database refuses if another account has it.
    """

    id: Id
    amount: int


class Remark(Command, type="ledger.remark"):
    """Changes the account's note; it names no target, so it waits for nothing."""

    id: Id
    note: str | None


class Postpone(Command, type="ledger.postpone"):
    """Puts its continuation off, until `Resume`; `how` says what becomes of the command itself."""

    id: Id
    how: str = "applied"


class Resume(Command, type="ledger.resume"):
    """Lets what an account has put off go on."""

    id: Id
    refusal: str | None = None


class Note(Continuation, type="ledger.note"):
    """Notes what became of another command, in an account's place."""


def _account(work: UnitOfWork, key: int) -> Account:
    account = work.get(Account, key)
    if account is None:
        raise Rejected("account_not_found", f"there is no account {key}")
    return account


def open_account(work: UnitOfWork, command: OpenAccount) -> Account:
    number = work.next_id("accounts")
    if work.find(Account, "owner", command.owner) is not None:
        raise Rejected("owner_taken", f"{command.owner} has an account")
    return work.add(Account(id=number, owner=command.owner, created_at=work.now))


def deposit(work: UnitOfWork, command: Deposit) -> Account:
    account = _account(work, command.id)
    saved = work.save(structs.replace(account, balance=account.balance + command.amount))
    if saved.balance < 0:
        raise Rejected("overdrawn", "below zero")
    return saved


def tamper(work: UnitOfWork, command: Tamper) -> Account:
    account = _account(work, command.id)
    work.next_id("accounts")
    saved = work.save(structs.replace(account, balance=account.balance + 7))
    match command.how:
        case "crash":
            raise RuntimeError("boom \x00 \ud800")
        case "constraint":
            return work.save(structs.replace(saved, balance=-5000))
        case "too long":
            return work.save(structs.replace(saved, note="x" * 500))
        case "out of range":
            return work.save(structs.replace(saved, balance=2**70))
        case "taken":
            # Nobody asks for it, so that only the database knows that account 2 has it.
            return work.save(structs.replace(saved, owner="b"))
        case "duplicate key":
            return work.add(saved)
        case _:
            raise Rejected("refused", command.how)


def rename(work: UnitOfWork, command: Rename) -> Account:
    return work.save(structs.replace(_account(work, command.id), owner=command.owner))


def close(work: UnitOfWork, command: Close) -> None:
    work.remove(_account(work, command.id))


def forward(work: UnitOfWork, command: Forward) -> None:
    work.emit(Deposit(id=command.id, amount=command.amount))


def fragile(work: UnitOfWork, command: Fragile) -> Account:
    account = _account(work, command.id)
    owner = account.owner if command.amount else "b"
    saved = work.save(structs.replace(account, balance=account.balance + command.amount, owner=owner))
    if account.note == "broken":
        raise RuntimeError("broken")
    return saved


def remark(work: UnitOfWork, command: Remark) -> Account:
    return work.save(structs.replace(_account(work, command.id), note=command.note))


def postpone(work: UnitOfWork, command: Postpone) -> Account:
    account = _account(work, command.id)
    deferred = work.defer()
    saved = work.save(structs.replace(account, data=None if deferred is None else deferred.encode().encode()))
    if command.how == "rejected":
        raise Rejected("refused", "put off, and then refused")
    if command.how == "failed":
        raise RuntimeError("put off, and then broken")
    return saved


def resume(work: UnitOfWork, command: Resume) -> Account:
    account = _account(work, command.id)
    if account.data is None:
        raise Rejected("nothing_put_off", f"account {account.id} has put nothing off")
    refusal = None if command.refusal is None else Rejected(command.refusal, "refused in the end")
    work.resume(Deferred.decode(account.data.decode()), refusal or account)
    return account


def note(work: UnitOfWork, command: Note) -> Account:
    code = command.status if command.error is None else command.error.code
    return work.add(Account(id=work.next_id("accounts"), owner=code, created_at=work.now))


LEDGER = Service(
    name="ledger",
    models=(Account,),
    handlers=(
        Handler(OpenAccount, open_account, reads=lambda command: (Account.at(owner=command.owner),)),
        Handler(Deposit, deposit, target=lambda command: Account.at(command.id)),
        Handler(Tamper, tamper, reads=lambda command: (Account.at(command.id),)),
        Handler(Rename, rename, reads=lambda command: (Account.at(command.id),)),
        Handler(Close, close, reads=lambda command: (Account.at(command.id),)),
        Handler(Forward, forward),
        Handler(
            Fragile,
            fragile,
            target=lambda command: Account.at(command.id),
            on_failure="park-key",
        ),
        Handler(Postpone, postpone, reads=lambda command: (Account.at(command.id),)),
        Handler(Resume, resume, reads=lambda command: (Account.at(command.id),)),
        Handler(Note, note, is_internal=True),
        Handler(Remark, remark, reads=lambda command: (Account.at(command.id),)),
    ),
    metadata=metadata,
)
