"""Ids of the commands that principals ask for with idempotency keys."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.errors import DatabaseUnavailable, Unavailable
from coordinator.service.ids import command_id_for, scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import IdempotencySecret

READ_AGAIN_S: Final = 1.0

log = structlog.get_logger("access")


class SecretsUnknown(Unavailable):
    """Raised while the secrets could never be read: the same key would stand for another command afterwards."""

    code = "idempotency_unavailable"


class KeyedIds:
    """Makes them with the secrets of one lane's database, which it reads until it has them.

    A secret that is made later counts for a gateway that is started later: two that run never differ, where all are
    stopped before it is made.
    """

    def __init__(self, read: Callable[[], Awaitable[Sequence[IdempotencySecret]]]) -> None:
        self._read = read
        self._secrets: tuple[str, ...] = ()
        self._reading: asyncio.Task[None] | None = None
        self._line = RepeatedLine()

    async def start(self) -> None:
        """Read them; while the database is away, again and again."""
        if not await self._are_read():
            self._reading = asyncio.create_task(self._read_until_there(), name="idempotency secrets")

    async def close(self) -> None:
        """Stop. Never raises."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def problem(self) -> str | None:
        """Why it cannot make ids, in words for anybody; None: it can."""
        return None if self._secrets else "the idempotency secrets cannot be read"

    def id_for(self, principal: Principal, lane: str, key: str) -> str:
        """The id that this key of this principal stands for. Raises SecretsUnknown and InvalidCommand."""
        return _made(self._known()[0], principal, lane, key)

    def former_ids_for(self, principal: Principal, lane: str, key: str) -> list[str]:
        """The ids that it stood for with earlier secrets, and before there was any; the latest first."""
        return [_made(secret, principal, lane, key) for secret in self._known()[1:]]

    def _known(self) -> tuple[str, ...]:
        if not self._secrets:
            raise SecretsUnknown("idempotency keys cannot be told apart now: repeat the request later")
        return self._secrets

    async def _read_until_there(self) -> None:
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            if await self._are_read():
                log.info("idempotency_secrets_read")
                return

    async def _are_read(self) -> bool:
        try:
            found = await self._read()
        except DatabaseUnavailable as error:
            self._tell(str(error))
            return False
        if not found or not found[0].secret:
            self._tell("there is none: run `coordinator migrate`")
            return False
        self._secrets = tuple(each.secret for each in found)
        return True

    def _tell(self, reason: str) -> None:
        if self._line.is_due(reason, time.monotonic()):
            log.error("idempotency_secrets_not_read", reason=reason)


def _made(secret: str, principal: Principal, lane: str, key: str) -> str:
    if not secret:
        return command_id_for(lane, key)
    return scoped_command_id_for(secret, lane, key, subject=principal.subject, tenant=principal.tenant)
