"""What a gateway remembers of the commands that it has issued lately: when it got, published and answered them."""

import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from aiohttp import web

from coordinator.client.timeline import GatewayTimes
from coordinator.protocol.actors import Logged
from coordinator.runtime.telemetry import Stages
from coordinator.service.principal import Principal

RECEIPTS_MAX: Final = 4096
"""Each takes about a KiB."""


Asker: TypeAlias = Principal | Logged | None
"""Who asked for a command, as the gateway knows him or as the log does; None: nobody known."""
_Key: TypeAlias = tuple[str, str | None, str | None]


class Receipts:
    """The last `RECEIPTS_MAX` commands. A receipt is the stages themselves, which go on while the request is served.

    Anybody may send a command with an id that he knows: each has receipts of his own, and makes none for others.
    """

    def __init__(self) -> None:
        # Of a dict the first key is found behind the places of all that were removed before it.
        self._kept: OrderedDict[_Key, tuple[Stages, Stages, str]] = OrderedDict()

    def keep(self, command_id: str, lane: str, asker: Asker, request: Stages, own: Stages) -> None:
        """Remember a command that is being issued to a lane; `own` are its stages, which in a request of many are not
        the request's. The first request of a command counts."""
        kept, key = self._kept, _key(command_id, asker)
        if key not in kept:
            kept[key] = (request, own, lane)
            if len(kept) > RECEIPTS_MAX:
                kept.popitem(last=False)

    def withdraw(self, command_id: str, asker: Asker, own: Stages) -> None:
        """These stages are of a repetition, which the log has answered: its times are not the command's."""
        key = _key(command_id, asker)
        kept = self._kept.get(key)
        if kept is not None and kept[1] is own:
            del self._kept[key]

    def lane_of(self, command_id: str, asker: Asker) -> str | None:
        """Where this gateway sent it for him; None: it has not, or has forgotten it."""
        kept = self._kept.get(_key(command_id, asker))
        return None if kept is None else kept[2]

    def times_of(self, command_id: str, asker: Asker) -> GatewayTimes | None:
        """What is known so far; None: this gateway has not issued it for him, or has forgotten it."""
        kept = self._kept.get(_key(command_id, asker))
        if kept is None:
            return None
        request, own, _ = kept
        # The clock that counts has no date; what it says now has one.
        now, now_s = datetime.now(UTC), time.perf_counter()

        def at(counted_s: float) -> datetime:
            return now - timedelta(seconds=now_s - counted_s)

        spent_ms = own.spent_ms
        published_s = outcome_s = answered_s = None
        if "publish" in spent_ms:
            published_s = own.began_s + (spent_ms.get("validate", 0.0) + spent_ms["publish"]) / 1000
            # The end of a wait without an outcome is in no command's timeline.
            if own.sequence is not None and "apply" in spent_ms:
                outcome_s = published_s + spent_ms["apply"] / 1000
        if "reply" in request.spent_ms:
            answered_s = request.began_s + sum(request.spent_ms.values()) / 1000
        return GatewayTimes(
            received_at=at(request.began_s),
            published_at=None if published_s is None else at(published_s),
            outcome_at=None if outcome_s is None else at(outcome_s),
            answered_at=None if answered_s is None else at(answered_s),
        )


def _key(command_id: str, asker: Asker) -> _Key:
    return (command_id, None, None) if asker is None else (command_id, asker.subject, asker.tenant)


RECEIPTS: Final = web.AppKey("RECEIPTS", Receipts)
