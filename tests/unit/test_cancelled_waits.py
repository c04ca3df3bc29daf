"""Callers that stop waiting before the broker has their command."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable
from coordinator.service.ids import new_command_id
from coordinator.transports.brokered_writes import BrokeredWrites

WITHIN_S = 10.0


class SilentWrites(BrokeredWrites):
    """Its broker confirms nothing."""

    title = "the silent broker"

    def __init__(self, *, in_order: bool) -> None:
        publishing: Any = SimpleNamespace(is_ready=True, takes_messages=True)
        super().__init__(
            BrokerSettings(),
            publishing,
            confirm_timeout_s=0.1,
            wait_s=1.0,
            in_flight_max=10,
            log=None,
            name="silent",
            in_order=in_order,
        )
        self.sent = asyncio.Event()
        self.confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _send(self, *_: Any, **__: Any) -> "asyncio.Future[None]":
        self.sent.set()
        return self.confirm

    async def _receive(self) -> BrokerUnavailable:
        raise NotImplementedError

    @property
    def _receiving_late(self) -> None: ...


async def given_up(writes: SilentWrites) -> "asyncio.Future[None]":
    """What waits for the confirm of a command whose caller has stopped waiting."""
    message = CommandMessage(new_command_id(), "ledger.open", b"{}")
    issuing = asyncio.create_task(writes.issue("ledger", message, None))
    await writes.sent.wait()
    issuing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await issuing
    return writes.confirm


async def test_a_command_of_a_session_comes_all_the_same_or_its_number_would_be_missing() -> None:
    confirm = await given_up(SilentWrites(in_order=True))
    assert not confirm.done()
    async with asyncio.timeout(WITHIN_S):
        await asyncio.wait({confirm})
    assert confirm.cancelled(), "it is sent no longer than until its confirm is late"


async def test_another_command_is_sent_no_more() -> None:
    confirm = await given_up(SilentWrites(in_order=False))
    assert confirm.cancelled()
