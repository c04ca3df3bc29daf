"""Fakes for the gateways' tests: writes that answer as told, repositories and a cache in memory."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from coordinator.cache.reader import Lookup, Ticket
from coordinator.client.command_log import Asked, Passed
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.telemetry import current_stages, end_stage
from coordinator.service.errors import DatabaseUnavailable, NotFound
from coordinator.service.json_text import to_json
from coordinator.service.outcome import Outcome, OutcomeError
from coordinator.service.paging import Page, page_of
from coordinator.stores.lane_tables import LogEntry
from shared.items.model import Item, Reservation
from shared.payments.model import Payment, Refund
from shared.users.commands import Transfer
from shared.users.model import User
from tests.support.passed_entries import passed

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
USER = User(id=7, name="Ada", email="ada@example.org", credit=0, created_at=NOW, version=3)
ITEM = Item(id=5, name="Lamp", price=1999, currency="EUR", stock=4, created_at=NOW, version=2)
PAYMENT = Payment(id=9, user_id=7, amount=100, currency="EUR", status="pending", created_at=NOW, updated_at=NOW)
REFUND = Refund(id=4, payment_id=9, amount=40, created_at=NOW)

RESULTS: dict[str, Any] = {
    "users.create": USER,
    "users.update": USER,
    "users.delete": None,
    "users.credit": USER,
    "users.transfer": Transfer(from_=7, to=8, amount=1, from_credit=9),
    "items.create": ITEM,
    "items.update": ITEM,
    "items.reserve": Reservation(id=31, item_id=5, quantity=2),
    "items.release": None,
    "payments.open": PAYMENT,
    "payments.capture": PAYMENT,
    "payments.reverse": PAYMENT,
    "payments.refund": REFUND,
    "payments.provider_event": PAYMENT,
}

Answer = Callable[[CommandMessage], Outcome]


def applied(message: CommandMessage, *, replayed: bool = False) -> Outcome:
    return Outcome(
        command_id=message.command_id,
        type=message.type,
        status="applied",
        sequence=41,
        result=msgspec.Raw(to_json(RESULTS[message.type or ""])),
        replayed=replayed,
    )


def refused(status: Any, code: str, *, replayed: bool = False) -> Answer:
    def answer(message: CommandMessage) -> Outcome:
        return Outcome(
            command_id=message.command_id,
            type=message.type,
            status=status,
            sequence=42,
            error=OutcomeError(code=code, message=f"because of {code}"),
            replayed=replayed,
        )

    return answer


class FakeWrites:
    """Answers every command as `answer` says, once `gate` is open."""

    def __init__(self) -> None:
        self.connected = True
        self.account = "gateway"
        self.why = "the broker is not connected"
        self.unready_reason = "nothing answers at secret-host:5672"
        self.in_flight: set[str] = set()
        self.settled_places: dict[str, tuple[str, int]] = {}
        self.waiting_by_lane: dict[str, int] = {}
        self.issued: list[tuple[str, CommandMessage, float | None]] = []
        self.answer: Answer = applied
        self.error: Callable[[CommandMessage], Exception] | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    @property
    def problem(self) -> str | None:
        return None if self.connected else self.why

    @property
    def last(self) -> CommandMessage:
        return self.issued[-1][1]

    @property
    def last_wait_s(self) -> float | None:
        return self.issued[-1][2]

    def pending(self, command_id: str) -> bool:
        return command_id in self.in_flight

    def settled_place(self, command_id: str) -> tuple[str, int] | None:
        return self.settled_places.get(command_id)

    async def waiting(self, lane: str) -> int | None:
        return self.waiting_by_lane.get(lane)

    async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
        self.issued.append((lane, message, wait_s))
        self.entered.set()
        stages = current_stages()
        if stages is not None:
            stages.command_id = message.command_id
        end_stage("publish")
        await self.gate.wait()
        if self.error is not None:
            raise self.error(message)
        end_stage("apply")
        outcome = self.answer(message)
        if stages is not None:
            stages.sequence = outcome.sequence
        return outcome


class FakeRows:
    """A repository of rows by id."""

    def __init__(self, *rows: Any) -> None:
        self.rows = {row.id: row for row in rows}
        self.error: Exception | None = None

    async def get(self, row_id: int) -> Any:
        if self.error is not None:
            raise self.error
        return self.rows.get(row_id)

    latest = get

    async def with_ids(self, row_ids: Sequence[int]) -> list[Any]:
        found = []
        for row_id in row_ids:
            with suppress(NotFound):
                found.append(await self.get(row_id))
        return [row for row in found if row is not None]

    async def page(self, *arguments: Any) -> Page[Any]:
        if self.error is not None:
            raise self.error
        *filters, after, limit, shown = arguments if isinstance(arguments[-1], Mapping) else (*arguments, {})
        user_id = filters[0] if filters else None
        found = [row for row_id, row in sorted(self.rows.items()) if row_id > after]
        found = [row for row in found if user_id in (None, getattr(row, "user_id", None))]
        return page_of([row for row in found if shown.items() <= msgspec.structs.asdict(row).items()], limit)


class FakePayments(FakeRows):
    """Payments and their refunds."""

    def __init__(self) -> None:
        super().__init__(PAYMENT)
        self.refunds = [REFUND]

    async def get_refund(self, payment_id: int, refund_id: int) -> Refund | None:
        return next((each for each in self.refunds if (each.payment_id, each.id) == (payment_id, refund_id)), None)

    async def known_as(self, provider_id: str) -> Payment | None:
        return next((each for each in self.rows.values() if each.provider_id == provider_id), None)

    async def page_of_refunds(self, payment_id: int, after: int, limit: int) -> Page[Refund]:
        return page_of([each for each in self.refunds if each.payment_id == payment_id and each.id > after], limit)


class FakeCache:
    """The items' cache."""

    def __init__(self) -> None:
        self.items: dict[int, Item] = {}
        self.is_up = True

    async def get(self, item_id: int) -> Lookup[Item] | None:
        return Lookup(self.items.get(item_id), Ticket(b"generation", b"token")) if self.is_up else None

    async def problem(self) -> str | None:
        return None if self.is_up else "Redis does not answer"

    async def fill(self, item: Item, ticket: Ticket) -> bool:
        self.items[item.id] = item
        return True

    async def close(self) -> None:
        pass


class FakeLog:
    """A command log in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, LogEntry] = {}
        self.error: DatabaseUnavailable | None = None
        self.asked: list[Collection[str]] = []
        """What was asked for with `who_asked`, once its `gate` was open."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def find_all(self, command_ids: Collection[str]) -> dict[str, LogEntry]:
        entries = [(each, await self.find(each)) for each in command_ids]
        return {each: entry for each, entry in entries if entry is not None}

    async def who_asked(self, command_ids: Collection[str]) -> dict[str, Asked]:
        await self.gate.wait()
        self.asked.append(command_ids)
        if self.error is not None:
            raise self.error
        found = [self.entries[each] for each in command_ids if each in self.entries]
        return {
            each.command_id: Asked(**{name: getattr(each, name) for name in Asked.__struct_fields__}) for each in found
        }

    async def fingerprints(self) -> Fingerprints:
        return UNKEYED

    async def passages(self, first: int, last: int) -> list[Passed]:
        if self.error is not None:
            raise self.error
        return passed(self.entries.values(), first, last)

    async def find(self, command_id: str) -> LogEntry | None:
        if self.error is not None:
            raise self.error
        return self.entries.get(command_id)
