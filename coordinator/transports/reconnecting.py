"""Reconnecting: attempt after attempt, with pauses between them, and with a line when something changes."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from coordinator.runtime.loading import where_set
from coordinator.runtime.settings import BrokerSettings, broker_setting
from coordinator.service.errors import BrokerUnavailable, ConfigurationError

REPEATED_LINE_S = 60.0
"""How often an outage that lasts is logged again."""
LOST_LINE_S = 1.0
"""How often the loss of a connection that had been of use is logged, if the reason is the same."""
STEADY_S = 5.0
"""A connection that is lost sooner was of no use: its broker takes it, and refuses what it is for."""

NOT_CONNECTED: Final = "the broker is not connected"
"""For anybody."""
_REASONS_MAX = 10

log = structlog.get_logger("broker")


class HandedOver(BrokerUnavailable):
    """A consumer has ended its connection, so that another one gets its lane: nothing is wrong with the broker."""


class NotDeclaredYet(BrokerUnavailable):
    """The broker runs, and lacks what a coordinator declares: others cannot do without it, and may not make it."""


class BrokerRefuses(ConfigurationError):
    """The broker runs, and refuses the account of this process, or a right of it. `words` say it for anybody."""

    def __init__(self, message: str, what: str = "a right of this process's account") -> None:
        super().__init__(message)
        self.words = f"the broker refuses {what}"

    @classmethod
    def the_account(cls, message: str) -> "BrokerRefuses":
        return cls(message, "this process's account")


class Reconnecting:
    """Keeps one connection up for as long as its process runs.

    However an attempt ends, the next one follows after a pause. The pause grows from about AMQP_RECONNECT_DELAY_S to
    AMQP_RECONNECT_DELAY_S_MAX, and starts over after a connection that lasted, and after the first one that did not:
    a broker that is back may be started once more. Only two errors end it: a defect, and a ConfigurationError before
    the first connection. A later ConfigurationError is an outage like others: the broker may be restored, or a right be
    given back, and to end the process would not help.
    """

    def __init__(self, name: str, settings: BrokerSettings, chance: Callable[[], float] = random.random) -> None:
        self._name = name
        self._settings = settings
        self._chance = chance
        self._delay_s = settings.reconnect_delay_s
        self._was_connected = False
        is_given = "url" in settings.model_fields_set
        default = "" if is_given else " (neither AMQP_URL nor BROKER_URL is set, so this is the default)"
        self._default = default and default + where_set("AMQP_URL", "BROKER_URL")
        """What a process that looks for its broker in the wrong place is told."""
        self._failures = 0
        self._up_since_s: float | None = None
        self._was_steady = True
        """Whether the last connection lasted."""
        self._is_logged = False
        self._logged_at: dict[str, float] = {}
        self.connected = asyncio.Event()
        self.ended: Exception | None = None
        """How the last attempt ended."""
        self.reason = "it has not been connected yet"
        """Why it is not connected, while it is not."""

    @property
    def problem(self) -> str:
        """Why it is not connected, while it is not, in words for anybody."""
        return self.ended.words if isinstance(self.ended, BrokerRefuses) else NOT_CONNECTED

    async def run(self, attempt: Callable[[], Awaitable[BrokerUnavailable]]) -> NoReturn:
        """Attempt for ever. An attempt calls `is_up` when it is connected, and returns why that ended.

        Raises ConfigurationError (see above), and every other error of an attempt but BrokerUnavailable.
        """
        while True:
            try:
                reason: Exception = await attempt()
            except BrokerUnavailable as error:
                reason = error
            except ConfigurationError as error:
                if not self._was_connected:
                    raise
                reason = error
            finally:
                up_s = self._end()
            if up_s is not None:
                self._note_end(is_steady=up_s >= STEADY_S)
            self.ended = reason
            if isinstance(reason, HandedOver):
                self.reason = str(reason)
            else:
                default = "" if self._was_connected else self._default
                self._log_loss(f"{reason}{default}", up_s, _what_to_check(reason))
            # Processes must not all connect at once when a broker comes back.
            await asyncio.sleep(self._delay_s * (0.5 + 0.5 * self._chance()))
            self._delay_s = min(self._delay_s * 2, max(self._delay_s, self._settings.reconnect_delay_s_max))

    def is_up(self) -> None:
        """It is connected now."""
        if self._is_logged:
            self._is_logged = False
            log.info("broker_connected", connection=self._name, failures=self._failures)
        self._was_connected = True
        self._up_since_s = time.monotonic()
        self.connected.set()

    def _end(self) -> float | None:
        """It is not connected any more: how long it was; None: it was not."""
        since_s, self._up_since_s = self._up_since_s, None
        self.connected.clear()
        return None if since_s is None else time.monotonic() - since_s

    def _note_end(self, *, is_steady: bool) -> None:
        """It was connected."""
        if is_steady:
            self._failures = 0
        if is_steady or self._was_steady:
            self._delay_s = self._settings.reconnect_delay_s
        self._was_steady = is_steady

    def _log_loss(self, reason: str, up_s: float | None, what_to_do: str) -> None:
        """Log a change at once, and a lasting state once a minute. `up_s` is how long it was connected; None: never."""
        self.reason = reason
        self._failures += 1
        now = time.monotonic()
        if now - self._logged_at.get(reason, -math.inf) < (REPEATED_LINE_S if (up_s or 0) < STEADY_S else LOST_LINE_S):
            return
        if len(self._logged_at) >= _REASONS_MAX:
            del self._logged_at[next(iter(self._logged_at))]
        self._logged_at[reason] = now
        self._is_logged = True
        about = {"connection": self._name, "error": reason, "failures": self._failures}
        if up_s is not None:
            log.warning("broker_connection_lost", **about)
        else:
            log.warning("broker_unavailable", what_to_do=what_to_do, **about)


def _what_to_check(reason: Exception) -> str:
    if isinstance(reason, NotDeclaredYet):
        return (
            "start a coordinator, of any lane: it declares what is missing, and this process goes on by itself; where "
            f"one runs, see that {broker_setting()} of both names the same broker and vhost"
        )
    if isinstance(reason, ConfigurationError):
        return (
            "the broker runs, and refuses the login or a right, as the error tells: give that back there; or set the "
            f"new password in {broker_setting()}, and start this process again, since it reads that once"
        )
    return f"see that the broker runs, that this machine reaches it, and that {broker_setting()} names it"
