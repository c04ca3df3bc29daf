"""How Redis keeps how far a lane has come: beside its turns, written by whoever has the turn."""

import asyncio
from functools import partial
from typing import Any, Final

import redis
import structlog

from coordinator.lane.high_water import Mark, decode_mark, encode_mark
from coordinator.service.errors import BrokerUnavailable
from coordinator.transports.redis.lane_lease import LaneLease

LOOK_EVERY_S: Final = 10.0

log = structlog.get_logger("consumer")


class RedisMark:
    """The mark of one lane. One that is not kept is sent again with the consumer's next turn.

    Whoever has the turn is the only one who writes it, so what is found there later is what he has kept, or spoiled.
    """

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._lease: LaneLease | None = None
        """The consumer's, while it has its turn."""
        self._wanted: Mark | None = None
        """The newest, until it is known to be kept."""
        self._kept: bytes | None = None
        """The newest that is known to be kept; None: none is."""

    def keep(self, mark: Mark) -> None:
        """Replace the mark; without a turn it is sent with the next one."""
        self._wanted = mark
        self._send()

    def begin(self, lease: LaneLease, found: bytes | None) -> Mark | None:
        """The consumer has this turn now, and this was kept. Return that, or a later one of its own that may not be."""
        self._lease, self._kept = lease, found
        known: Mark | None = None
        try:
            known = None if found is None else decode_mark(found)
        except ValueError as error:
            log.warning("mark_unreadable", lane=self._lane, reason=str(error))
            self._kept = None
        own = self._wanted
        if own is not None and (known is None or not known.covers(own)):
            self._send()
            return own
        self._wanted = None
        return known

    def end(self) -> None:
        """The turn is over."""
        self._lease = None

    async def watch(self, lease: LaneLease) -> BrokerUnavailable:
        """See, while this turn lasts, that the mark is there; if not, keep it again: an idle lane has no newer one.

        Until cancelled. Raises BrokerUnavailable.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            kept = self._kept
            if kept is None or self._wanted is not None:
                continue
            try:
                found = await lease.kept_mark()
            except redis.ResponseError:
                # Renewing says what is wrong with the key.
                continue
            if found == kept or kept is not self._kept or self._wanted is not None:
                continue
            mark = decode_mark(kept)
            log.warning("mark_gone", lane=self._lane, sequence=mark.sequence)
            self.keep(mark)

    def _send(self) -> None:
        mark, lease = self._wanted, self._lease
        if mark is not None and lease is not None:
            body = encode_mark(mark)
            lease.keep(body).add_done_callback(partial(self._on_answer, mark, body))

    def _on_answer(self, mark: Mark, body: bytes, answer: "asyncio.Future[Any]") -> None:
        if answer.cancelled() or answer.exception() is not None or answer.result() != 1:
            return
        self._kept = body
        if self._wanted is mark:
            self._wanted = None
