"""Giving a lane its orders: the commands that act on the lane itself (coordinator/lane/control.py).

An order's id is derived from its content, so repeating one is safe: it is carried out once, and its outcome is sent
again. An order that was refused may be given again, since the reason may be gone: it is another order, with another id.
Ids are shown to viewers, and orders hold what these may not see, such as the arguments of a replay: so the id is made
with the lane's fingerprint key.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from coordinator.client.writes import Writes
from coordinator.operate.broker import broker
from coordinator.operate.one_process import socket_of
from coordinator.operate.open import lane_api_keys
from coordinator.operate.output import CommandRefused
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings, load
from coordinator.service.commands import Command
from coordinator.service.errors import CommandPending, ConfigurationError, OutcomeUnknown
from coordinator.service.ids import derived_command_id
from coordinator.service.lane_names import settings_prefix
from coordinator.service.outcome import Outcome
from coordinator.transports.inprocess.operators_socket import SocketWrites
from coordinator.transports.open import open_transport

if TYPE_CHECKING:
    from coordinator.client.command_log import CommandLog

CONFIRM_TIMEOUT_S = 10.0
ORDERS_AT_ONCE = 200


class OrderAnswer(Struct, frozen=True):
    """The result of the order at this place. `outcome` is None while it is not known: the order is safe, it comes."""

    position: int
    outcome: Outcome | None


def issue(
    lane: str, message: CommandMessage, wait_s: float, before: Callable[[], None] = lambda: None
) -> Outcome | None:
    """Publish one command, and wait for its outcome; None: it is safe, and not settled yet. Raises Unavailable.

    `before` is called once the broker takes us, and has the lane's queue.
    """

    async def once() -> Outcome | None:
        async with _writes(lane, 1) as writes:
            return await _issued(writes, lane, message, wait_s)

    _require_queue(lane)
    before()
    return asyncio.run(once())


def give(
    lane: str,
    orders: Sequence[Command],
    wait_s: float,
    on_answer: Callable[[OrderAnswer], None],
    before: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Give a lane orders, some at once, and pass on the result of each. Raises Unavailable after that: OutcomeUnknown
    if any of them may be carried out.

    It waits `wait_s` for all their outcomes together. `before` is called with the ids of orders that were not refused
    before, once the broker has the lane's queue.
    """

    async def all_of_them() -> None:
        deadline_s = monotonic() + wait_s
        async with _writes(lane, ORDERS_AT_ONCE) as writes:
            for start in range(0, len(orders), ORDERS_AT_ONCE):
                left_s = max(0.0, deadline_s - monotonic())
                some = orders[start : start + ORDERS_AT_ONCE]
                outcomes = await asyncio.gather(
                    *(_given(writes, lane, order, left_s, secret) for order in some), return_exceptions=True
                )
                for position, outcome in enumerate(outcomes, start):
                    if not isinstance(outcome, BaseException):
                        on_answer(OrderAnswer(position, outcome))
                errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
                for error in sorted(errors, key=lambda error: not isinstance(error, OutcomeUnknown)):
                    raise error

    if orders:
        _require_queue(lane)
        secret = _secret_of(lane)
        before([order_id(lane, order, 0, secret) for order in orders])
        asyncio.run(all_of_them())


def message_of(lane: str, order: Command, attempt: int, secret: bytes) -> CommandMessage:
    """The message of an order. `attempt` counts from 0 how often it was refused before."""
    command_id = order_id(lane, order, attempt, secret)
    arguments = msgspec.json.encode(order)
    return CommandMessage(command_id=command_id, type=order.type, arguments=arguments, origin="system")


def order_id(lane: str, order: Command, attempt: int, secret: bytes) -> str:
    """The id of an order, with the secret of the lane's fingerprint key; empty: the lane has none."""
    return derived_command_id(f"order {lane} {order.type}", attempt, msgspec.json.encode(order), secret)


def _secret_of(lane: str) -> bytes:
    """That of the key in use: a lost repetition costs nothing once another one is."""
    try:
        with lane_api_keys(lane) as keys:
            known = keys.fingerprint_keys()
    except ConfigurationError:
        return b""
    return bytes.fromhex(known[-1].secret) if known else b""


async def _given(writes: Writes, lane: str, order: Command, wait_s: float, secret: bytes) -> Outcome | None:
    for attempt in itertools.count():
        outcome = await _issued(writes, lane, message_of(lane, order, attempt, secret), wait_s)
        if outcome is None or outcome.status == "applied" or not outcome.replayed:
            return outcome
    raise AssertionError("there is no end of attempts")


async def _issued(writes: Writes, lane: str, message: CommandMessage, wait_s: float) -> Outcome | None:
    try:
        return await writes.issue(lane, message, wait_s)
    except CommandPending:
        return None


def _require_queue(lane: str) -> None:
    if socket_of(lane) is not None:
        return
    with broker(load(BrokerSettings)) as connected:
        if connected.lane_depth(lane) is None:
            raise CommandRefused(
                f"there is no queue of lane {lane}: start its coordinator, which declares it, and send again"
            )


@asynccontextmanager
async def _writes(lane: str, in_flight_max: int) -> AsyncIterator[Writes]:
    async with AsyncExitStack() as stack:
        if (socket := socket_of(lane)) is not None:
            yield await stack.enter_async_context(SocketWrites(socket))
            return
        writes = open_transport(load(BrokerSettings)).commands(
            "operator",
            confirm_timeout_s=CONFIRM_TIMEOUT_S,
            wait_s=0,
            in_flight_max=in_flight_max,
            log=await _log_of(lane, stack),
            is_system=True,
        )
        yield await stack.enter_async_context(writes)


async def _log_of(lane: str, stack: AsyncExitStack) -> "CommandLog | None":
    """The command log, which has an outcome that is lost on its way; publishing needs no database."""
    # Reads by many at once take SQLAlchemy's asyncio; commands that only look do without.
    from coordinator.client.command_log import open_command_log  # noqa: PLC0415
    from coordinator.client.database import close_database, open_database  # noqa: PLC0415

    try:
        settings = load(DatabaseSettings, prefix=settings_prefix(lane))
        database = open_database(settings.reader_url or settings.database_url, pool_max=1)
    except ConfigurationError:
        return None
    stack.push_async_callback(close_database, database)
    return open_command_log(database)
