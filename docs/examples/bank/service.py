"""Accounts and their entries, in tables that another application has made and filled.

    BANK_DATABASE_URL=postgresql://… coordinator --app bank.service:bank migrate
    BANK_DATABASE_URL=postgresql://… coordinator --app bank.service:bank run bank

From then on only the lane writes them. Columns that no class here has keep what is in them.
"""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from coordinator import Command, Name, Rejected, Row, Service, UnitOfWork, VersionedRow

from . import models

bank = Service("bank", migrations=Path(__file__).parent / "migrations")

Cents = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Email = Annotated[str, Meta(max_length=200, pattern=r"\A[!-?A-~]+@[!-?A-~]+\Z")]
# As its column has it: INTEGER.
AccountId = Annotated[int, Meta(ge=1, le=2**31 - 1)]


@bank.row(is_public=True)
class Account(VersionedRow, table=models.Account, key="id", unique=("email",)):
    """What somebody has: the sum of the account's entries."""

    id: int
    owner: str
    email: str
    balance_cents: int = 0
    entries: int = 0


@bank.row(is_public=True)
class Entry(Row, table=models.Entry, key=("account_id", "number")):
    """What came, or went, numbered 1, 2, 3 … in each account."""

    account_id: int
    number: int
    amount_cents: int


class OpenAccount(Command, type="bank.open"):
    """Open an account with nothing in it. Rejected: `email_taken`."""

    owner: Name
    email: Email


class Transfer(Command, type="bank.transfer"):
    """Move money. Rejected: `account_not_found`, `same_account`, `not_enough`."""

    source: AccountId
    to: AccountId
    amount_cents: Cents


@bank.handles(OpenAccount, reads=lambda command: [Account.at(email=command.email)])
def open_account(work: UnitOfWork, command: OpenAccount) -> Account:
    if work.find(Account, "email", command.email) is not None:
        raise Rejected("email_taken", f"there is an account of {command.email} already")
    # Above those that the other application has given out.
    return work.add(Account(id=work.next_id(Account), owner=command.owner, email=command.email))


@bank.handles(
    Transfer,
    target=lambda command: Account.at(command.source),
    reads=lambda command: [Account.at(command.to)],
)
def transfer(work: UnitOfWork, command: Transfer) -> Account:
    if command.source == command.to:
        raise Rejected("same_account", "an account cannot pay itself")
    source, to = _account(work, command.source), _account(work, command.to)
    if source.balance_cents < command.amount_cents:
        raise Rejected("not_enough", f"account {source.id} has {source.balance_cents} cents")
    _book(work, to, command.amount_cents)
    return _book(work, source, -command.amount_cents)


def _book(work: UnitOfWork, account: Account, amount_cents: int) -> Account:
    number = account.entries + 1
    work.add(Entry(account_id=account.id, number=number, amount_cents=amount_cents))
    return work.save(account.replace(balance_cents=account.balance_cents + amount_cents, entries=number))


def _account(work: UnitOfWork, account_id: int) -> Account:
    account = work.get(Account, account_id)
    if account is None:
        raise Rejected("account_not_found", f"there is no account {account_id}")
    return account
