"""Which commands a request's idempotency key stands for."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, TypeAlias

from aiohttp import web
from msgspec.structs import replace

from coordinator.access.keyed_ids import FormerId, KeyedIds
from coordinator.client.command_log import Asked, CommandLogs
from coordinator.http.keys import CONTEXT
from coordinator.http.slices import Slices
from coordinator.service.ids import command_id_for
from coordinator.service.outcome import FORGOTTEN, Outcome
from coordinator.service.principal import Principal

MISMATCH: Final = "idempotency_mismatch"
_SHOWN_MAX: Final = 40

LaneKey: TypeAlias = tuple[str, str]
"""A lane, and the idempotency key of one of its commands."""


class OwnKeys:
    """The idempotency keys of those who ask one gateway: each has his own."""

    def __init__(self, made: KeyedIds, logs: CommandLogs) -> None:
        self._made = made
        self._logs = logs

    async def ids(self, principal: Principal | None, keys: Sequence[LaneKey]) -> list[str]:
        """The ids of the commands that these keys of a principal stand for, or of those who are not known (None).

        A command that such a key asked for before, under an id that was made with another secret or without one, keeps
        that id. To find it costs a look into the log, which is one query for some hundred ids. Raises Unavailable and
        InvalidCommand.
        """
        ids, former, slices = list[str](), list[list[FormerId]](), Slices()
        for lane, key in keys:
            ids.append(self._made.id_for(principal, lane, key))
            former.append(self._made.former_ids_for(principal, lane, key))
            await slices.pause()
        if not any(former):
            return ids
        by_lane: dict[str, list[str]] = {}
        for (lane, _), own, some in zip(keys, ids, former, strict=True):
            by_lane.setdefault(lane, []).extend((own, *(each.command_id for each in some)))
        known = {lane: await self._logs.of(lane).who_asked(every) for lane, every in by_lane.items()}
        # What has an id of now is this principal's. Others may have used the key since then where everybody may ask.
        return [
            own if own in known[lane] else next((each.command_id for each in some if _is_his(each, known[lane])), own)
            for (lane, _), own, some in zip(keys, ids, former, strict=True)
        ]

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """For as long as the application runs."""
        await self._made.start()
        yield
        await self._made.close()


def _is_his(former: FormerId, asked: Mapping[str, Asked]) -> bool:
    entry = asked.get(former.command_id)
    if entry is None or (former.is_without_secret and entry.error_code == "forbidden"):
        # What was refused since nobody known asked for it was never accepted for anybody.
        return False
    return former.is_of(entry.actor, entry.settled_at, is_forgotten=entry.error_code == FORGOTTEN)


OWN_KEYS: Final = web.AppKey("OWN_KEYS", OwnKeys)
"""Not there where everybody may ask."""


async def ids_of_keys(request: web.Request, keys: Sequence[LaneKey]) -> list[str]:
    """The ids of the commands that a request's keys stand for.

    At a gateway where everybody may ask they belong to all, and anybody can make the same ids by `command_id_for`.
    Raises Unavailable and InvalidCommand.
    """
    principal = request[CONTEXT].principal
    own = request.app.get(OWN_KEYS)
    if own is None:
        ids, slices = list[str](), Slices()
        for lane, key in keys:
            ids.append(command_id_for(lane, key))
            await slices.pause()
        return ids
    return await own.ids(principal, keys)


def of_other_content(key: str, why: str) -> str:
    """Why a command is refused whose id stands for this key, for whoever knows the key and not the id."""
    return f"the Idempotency-Key {key[:_SHOWN_MAX]!a} was used before, for other content: {why}"


def told_of_key(outcome: Outcome, key: str) -> Outcome:
    """The outcome of a command whose id stands for this key: a mismatch is told of the key."""
    if outcome.error is None or outcome.error.code != MISMATCH:
        return outcome
    return replace(outcome, error=replace(outcome.error, message=of_other_content(key, outcome.error.message)))
