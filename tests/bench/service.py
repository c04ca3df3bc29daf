"""The service that is measured: accounts, gapless orders, stock. One for each lane, all with the same handlers.

The alternatives write to tables of the same definition, in databases of their own.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, structs
from sqlalchemy import BigInteger, CheckConstraint, Column, MetaData, String, Table

from coordinator.service.commands import Amount, Command, Id, Quantity
from coordinator.service.errors import Rejected
from coordinator.service.principal import Principal
from coordinator.service.reading import Reading
from coordinator.service.rows import Ref, Row, VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork

ACCOUNTS: Final = 100_000
ITEMS: Final = 1_000
BALANCE: Final = 1_000_000_000
STOCK: Final = 500

LANES: Final = {"postgresql": "benchpg", "mariadb": "benchmy", "mongodb": "benchmongo"}
NO_LANE: Final = "bench"
"""The name in the databases of what writes without a lane."""
LANE_EMPTY_LOG: Final = "benchempty"
LANE_BIG_LOG: Final = "benchbig"
LANE_WITH_RULES: Final = "benchrules"

_MYSQL: Final[dict[str, Any]] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

metadata = MetaData()
Table(
    "accounts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("balance", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("balance >= 0", name="balance_not_negative"),
    **_MYSQL,
)
Table(
    "orders",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("reference", String(60), nullable=False, unique=True),
    **_MYSQL,
)
Table(
    "stock",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("left_over", BigInteger, nullable=False),
    CheckConstraint("left_over >= 0", name="stock_not_negative"),
    **_MYSQL,
)
# Not the lane's: where an alternative remembers what it has applied, to be as safe against repetitions as the lane is.
Table(
    "idempotency_keys",
    metadata,
    Column("key", String(36), primary_key=True),
    Column("result", String(200)),
    **_MYSQL,
)


class Account(VersionedRow, table="accounts", key="id"):
    id: int
    balance: int


class Order(Row, table="orders", key="number", unique=("reference",)):
    number: int
    reference: str


class Stock(Row, table="stock", key="id"):
    id: int
    left_over: int


class Moved(Struct, frozen=True, kw_only=True):
    """The balances that a transfer left."""

    payer: int
    payee: int


def _account(work: UnitOfWork, key: int) -> Account:
    account = work.get(Account, key)
    if account is None:
        raise Rejected("account_not_found", f"there is no account {key}")
    return account


def _credited(work: UnitOfWork, account: Account, amount: int) -> Account:
    if account.balance + amount < 0:
        raise Rejected("insufficient_balance", f"account {account.id} has {account.balance}")
    return work.save(structs.replace(account, balance=account.balance + amount))


def credit(work: UnitOfWork, command: Any) -> Account:
    return _credited(work, _account(work, command.id), command.amount)


def _may_credit(who: Principal, command: Any, rows: Reading) -> bool:
    """A rule as systems have them: it looks at a scope of the caller's, and at the row."""
    account = rows.get(Account, command.id)
    return "credit" in who.scopes and account is not None and account.balance >= 0


def transfer(work: UnitOfWork, command: Any) -> Moved:
    payer = _credited(work, _account(work, command.payer), -command.amount)
    payee = _credited(work, _account(work, command.payee), command.amount)
    return Moved(payer=payer.balance, payee=payee.balance)


def create(work: UnitOfWork, command: Any) -> Order:
    if work.find(Order, "reference", command.reference) is not None:
        raise Rejected("reference_taken", f"there is an order {command.reference}")
    return work.add(Order(number=work.next_id("orders"), reference=command.reference))


def reserve(work: UnitOfWork, command: Any) -> Stock:
    item = work.get(Stock, command.item)
    if item is None or item.left_over < command.quantity:
        raise Rejected("out_of_stock", f"there is not so much of {command.item}")
    return work.save(structs.replace(item, left_over=item.left_over - command.quantity))


class _Commands(Struct):
    credit: type[Command]
    transfer: type[Command]
    create: type[Command]
    reserve: type[Command]


def _commands(lane: str) -> _Commands:
    """A command's type names its lane, so each lane has classes of its own."""

    class Credit(Command, type=f"{lane}.credit"):
        id: Id
        amount: Amount

    class Transfer(Command, type=f"{lane}.transfer"):
        payer: Id
        payee: Id
        amount: Amount

    class Create(Command, type=f"{lane}.create"):
        reference: str

    class Reserve(Command, type=f"{lane}.reserve"):
        item: Id
        quantity: Quantity

    return _Commands(Credit, Transfer, Create, Reserve)


def service_named(lane: str) -> Service:
    """The service of one lane. Its settings are `<LANE>_DATABASE_URL` and so on."""
    commands = _commands(lane)

    def reading(*refs: Callable[[Any], Ref[Row]]) -> Callable[[Any], tuple[Ref[Row], ...]]:
        return lambda command: tuple(ref(command) for ref in refs)

    return Service(
        name=lane,
        models=(Account, Order, Stock),
        handlers=(
            Handler(
                commands.credit,
                credit,
                reads=reading(lambda command: Account.at(command.id)),
                allow=_may_credit if lane == LANE_WITH_RULES else None,
            ),
            Handler(
                commands.transfer,
                transfer,
                reads=reading(lambda command: Account.at(command.payer), lambda command: Account.at(command.payee)),
            ),
            Handler(
                commands.create,
                create,
                reads=reading(lambda command: Order.at(reference=command.reference)),
            ),
            Handler(commands.reserve, reserve, reads=reading(lambda command: Stock.at(command.item))),
        ),
        metadata=metadata,
    )


def credit_command(lane: str) -> type[Any]:
    """The command class with which a lane's account is credited, for the gateway."""
    return _commands(lane).credit
