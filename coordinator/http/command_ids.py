"""Which commands a request's idempotency key stands for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeAlias

from aiohttp import web

from coordinator.access.keyed_ids import KeyedIds
from coordinator.client.command_log import CommandLog
from coordinator.http.keys import CONTEXT
from coordinator.service.ids import command_id_for
from coordinator.service.principal import Principal

LaneKey: TypeAlias = tuple[str, str]
"""A lane, and the idempotency key of one of its commands."""


class OwnKeys:
    """The idempotency keys of those who ask one gateway: each has his own."""

    def __init__(self, made: KeyedIds, command_log: CommandLog) -> None:
        self._made = made
        self._log = command_log

    async def ids(self, principal: Principal, keys: Sequence[LaneKey]) -> list[str]:
        """The ids of the commands that these keys of a principal stand for.

        A command that the log has under an id of before, made with another secret or without one, keeps that id.
        Raises Unavailable and InvalidCommand.
        """
        ids = [self._made.id_for(principal, lane, key) for lane, key in keys]
        former = [self._made.former_ids_for(principal, lane, key) for lane, key in keys]
        if not any(former):
            return ids
        found = await asyncio.gather(*map(self._settled, former))
        return [earlier or own for earlier, own in zip(found, ids, strict=True)]

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        await self._made.start()
        yield
        await self._made.close()

    async def _settled(self, ids: Sequence[str]) -> str | None:
        for command_id in ids:
            if await self._log.find(command_id) is not None:
                return command_id
        return None


OWN_KEYS: Final = web.AppKey("OWN_KEYS", OwnKeys)
"""Not there where everybody may ask."""


async def ids_of_keys(request: web.Request, keys: Sequence[LaneKey]) -> list[str]:
    """The ids of the commands that a request's keys stand for.

    Where everybody may ask they belong to all, and anybody can make the same ids by `command_id_for`. Raises
    Unavailable and InvalidCommand.
    """
    principal = request[CONTEXT].principal
    if principal is None:
        return [command_id_for(lane, key) for lane, key in keys]
    return await request.app[OWN_KEYS].ids(principal, keys)
