"""The in-process transport keeps what is promised to the workers of effects."""

import asyncio

import pytest

from coordinator.protocol.wire import CommandMessage
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.inprocess.effects import LocalEffects
from tests.support.effect_contract import EffectContract


class LocalEffecting:
    """A lane of this process, as far as its effects see of it: an outbox, and what is brought to it."""

    service = "contract"

    def __init__(self) -> None:
        self.outbox: dict[int, OutboxEntry] = {}
        self._brought: asyncio.Queue[CommandMessage] = asyncio.Queue()
        self._transport: LocalEffects | None = None

    async def emit(self, entry: OutboxEntry) -> None:
        self.outbox[entry.id] = entry
        self._put(entry, is_inherited=False)

    async def transport(self, prefetch: int) -> LocalEffects:
        self._transport = LocalEffects(self.service, prefetch, self._bring)
        for entry in self.outbox.values():
            self._put(entry, is_inherited=True)
        return self._transport

    async def brought(self) -> CommandMessage:
        return await self._brought.get()

    def _put(self, entry: OutboxEntry, *, is_inherited: bool) -> None:
        if self._transport is not None:
            self._transport.put(
                self.service, entry, lambda: self.outbox.__delitem__(entry.id), is_inherited=is_inherited
            )

    async def _bring(self, lane: str, message: CommandMessage) -> None:
        assert lane == self.service
        self._brought.put_nowait(message)


class TestInProcess(EffectContract):
    # The outbox of a lane of before: another process may have made calls for it.
    knows_what_was_not_begun = False

    @pytest.fixture
    def effecting(self) -> LocalEffecting:
        return LocalEffecting()
