"""What the clients ask for: contended writes on all three databases."""

import itertools
import json
import random
from typing import Protocol

import msgspec

from coordinator.service.commands import Command
from shared.items.commands import CreateItem, ReleaseItem, ReserveItem
from shared.items.model import Reservation
from shared.payments.commands import OpenPayment
from shared.users.commands import CreateUser, CreditUser, TransferCredit
from tests.support.checker import ClientRecord

HOT_ROWS = 12
STOCK = 300


class Workload(Protocol):
    """One lane's commands."""

    def next_command(self, chance: random.Random) -> Command:
        """Whatever comes next."""

    def learn(self, record: ClientRecord) -> None:
        """An outcome may be what a later command needs."""


class UsersWorkload:
    """Credits and transfers among a few users; some are refused."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next_command(self, chance: random.Random) -> Command:
        kind = chance.random()
        if kind < 0.06:
            number = next(self._numbers)
            return CreateUser(name=f"User {number}", email=f"user{number}@example.org")
        if kind < 0.65:
            return CreditUser(id=chance.randint(1, HOT_ROWS), amount=chance.randint(-5, 20))
        payer, payee = chance.randint(1, HOT_ROWS), chance.randint(1, HOT_ROWS)
        return TransferCredit(from_=payer, to=payee, amount=chance.randint(1, 50))

    def learn(self, record: ClientRecord) -> None:
        pass


class ItemsWorkload:
    """Reservations, some of them given back, until the stock is gone."""

    def __init__(self) -> None:
        self._reserved: list[Reservation] = []
        self.told: dict[int, int] = {}
        """The sequence of the last change of each item of which an outcome has told."""

    def next_command(self, chance: random.Random) -> Command:
        kind = chance.random()
        if kind < 0.06:
            return CreateItem(name="Thing", price=100, currency="EUR", stock=STOCK)
        if kind < 0.3 and self._reserved:
            reservation = self._reserved.pop(chance.randrange(len(self._reserved)))
            return ReleaseItem(id=reservation.item_id, reservation_id=reservation.id)
        return ReserveItem(id=chance.randint(1, HOT_ROWS), quantity=chance.randint(1, 3))

    def learn(self, record: ClientRecord) -> None:
        if record.outcome is None or record.outcome.status != "applied":
            return
        if record.type == ReserveItem.type:
            self._reserved.append(msgspec.json.decode(record.outcome.result, type=Reservation))
        if record.type in (ReserveItem.type, ReleaseItem.type):
            item_id = json.loads(record.arguments)["id"]
            self.told[item_id] = max(self.told.get(item_id, 0), record.outcome.sequence or 0)


class PaymentsWorkload:
    """Payments are opened, no more. For some the provider is to be asked; nobody carries that out."""

    def __init__(self, with_effect: float) -> None:
        self._with_effect = with_effect

    def next_command(self, chance: random.Random) -> Command:
        method = "pm_card_visa" if chance.random() < self._with_effect else None
        return OpenPayment(
            user_id=chance.randint(1, HOT_ROWS), amount=chance.randint(1, 999), currency="EUR", payment_method=method
        )

    def learn(self, record: ClientRecord) -> None:
        pass


def workloads(items: ItemsWorkload | None = None, with_effect: float = 0.0) -> dict[str, Workload]:
    """By lane. `with_effect`: the share of the payments of which the provider is to be asked."""
    return {"users": UsersWorkload(), "items": items or ItemsWorkload(), "payments": PaymentsWorkload(with_effect)}


def route_of(command: Command) -> tuple[str, str, object]:
    """Method, path and body of the HTTP request that means this command."""
    match command:
        case CreditUser():
            return "POST", f"/users/{command.id}/credit", {"amount": command.amount}
        case ReserveItem():
            return "POST", f"/items/{command.id}/reservations", {"quantity": command.quantity}
        case ReleaseItem():
            return "DELETE", f"/items/{command.id}/reservations/{command.reservation_id}", None
    path = {"users.create": "/users", "items.create": "/items", "payments.open": "/payments"}.get(
        command.type, "/transfers"
    )
    return "POST", path, json.loads(msgspec.json.encode(command))
