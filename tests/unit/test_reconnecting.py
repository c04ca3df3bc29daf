"""How a process reconnects: the pauses between attempts, the lines about them, and the two ways that lead out."""

import asyncio
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.reconnecting import STEADY_S, HandedOver, Reconnecting

SETTINGS = BrokerSettings(url="amqp://broker", reconnect_delay_s=0.25, reconnect_delay_s_max=1.0)


class Stop(Exception):
    """Ends a test's attempts."""


class Attempts:
    """Attempts that end as they are told; time passes in the pauses between them, and while one is connected."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *ends: Exception | Callable[[Reconnecting], BrokerUnavailable]
    ) -> None:
        self.connection = Reconnecting("test", SETTINGS, lambda: 1.0)
        self.pauses_s: list[float] = []
        self.up_s = 2 * STEADY_S
        """How long an attempt that connects lasts."""
        self._now = 0.0
        self._ends = list(ends)
        monkeypatch.setattr(asyncio, "sleep", self._sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self._now)

    async def _sleep(self, delay_s: float) -> None:
        self.pauses_s.append(delay_s)
        self._now += delay_s

    async def attempt(self) -> BrokerUnavailable:
        if not self._ends:
            raise Stop
        end = self._ends.pop(0)
        if isinstance(end, Exception):
            raise end
        reason = end(self.connection)
        self._now += self.up_s
        return reason

    async def run(self, error: type[Exception] = Stop) -> None:
        with pytest.raises(error):
            await self.connection.run(self.attempt)


def was_up(connection: Reconnecting) -> BrokerUnavailable:
    connection.is_up()
    assert connection.connected.is_set()
    return BrokerUnavailable("it was closed")


async def test_a_lane_that_is_handed_over_again_and_again_is_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hands_over(connection: Reconnecting) -> BrokerUnavailable:
        connection.is_up()
        return HandedOver("the lane was given up")

    attempts = Attempts(monkeypatch, *[hands_over] * 20, HandedOver("the lane was given up"))
    with capture_logs() as lines:
        await attempts.run()
    assert lines == []
    assert isinstance(attempts.connection.ended, HandedOver)
    assert attempts.connection.reason == "the lane was given up"


async def test_pauses_grow_to_their_limit_and_begin_anew_once_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    away = BrokerUnavailable("refused")
    attempts = Attempts(monkeypatch, away, away, away, away, was_up, away)
    await attempts.run()
    assert attempts.pauses_s == [0.25, 0.5, 1.0, 1.0, 0.25, 0.5]
    assert not attempts.connection.connected.is_set()
    assert attempts.connection.reason == "refused"


async def test_a_connection_that_is_lost_at_once_again_and_again_is_one_line_a_minute_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker may take connections and refuse what they are for, as while a queue of a cluster has no leader."""
    attempts = Attempts(monkeypatch, *[was_up] * 122)
    attempts.up_s = STEADY_S / 100
    with capture_logs() as lines:
        await attempts.run()
    assert attempts.pauses_s[:4] == [0.25, 0.5, 1.0, 1.0]
    lost = [line["failures"] for line in lines if line["event"] == "broker_connection_lost"]
    assert len(lost) == 3, "two minutes"
    assert lost == sorted(lost)
    assert lost[-1] > 100
    assert len(lines) == 2 * 3, "that it is connected again is said of a loss that was said"


async def test_a_broker_that_is_back_and_restarted_at_once_is_found_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second node of a cluster whose nodes are restarted one after the other."""
    attempts = Attempts(monkeypatch, *[BrokerUnavailable("refused")] * 4, was_up, was_up)
    attempts.up_s = STEADY_S / 2
    await attempts.run()
    assert attempts.pauses_s == [0.25, 0.5, 1.0, 1.0, 0.25, 0.5]


async def test_half_of_a_pause_is_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, BrokerUnavailable("refused"))
    attempts.connection = Reconnecting("test", SETTINGS, lambda: 0.0)
    await attempts.run()
    assert attempts.pauses_s == [0.125]


async def test_a_login_that_is_refused_is_named_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ConfigurationError("RabbitMQ at 127.0.0.1:5672 refuses this user")
    attempts = Attempts(monkeypatch, was_up, refused, was_up)
    with capture_logs() as lines:
        await attempts.run()
    (line,) = [line for line in lines if line["event"] == "broker_unavailable"]
    assert "refuses the login or a right" in line["what_to_do"]
    assert "in AMQP_URL, and start this process again" in line["what_to_do"]


async def test_an_outage_is_one_line_a_minute_and_each_change_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, forced = BrokerUnavailable("refused"), BrokerUnavailable("no vhost")
    attempts = Attempts(monkeypatch, was_up, *[refused] * 600, forced, was_up)
    with capture_logs() as lines:
        await attempts.run()
    events = [(line["event"], line.get("error")) for line in lines]
    assert events[:2] == [("broker_connection_lost", "it was closed"), ("broker_unavailable", "refused")]
    assert ["what_to_do" in line for line in lines[:2]] == [False, True]
    assert "that AMQP_URL names it" in lines[1]["what_to_do"]
    assert events[-3:] == [
        ("broker_unavailable", "no vhost"),
        ("broker_connected", None),
        ("broker_connection_lost", "it was closed"),
    ]
    assert len(events) == 2 + 9 + 3, "600 s, a line a minute"


async def test_a_broker_that_is_looked_for_at_the_default_address_is_told_by_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AMQP_URL", "BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(f"{__name__}.SETTINGS", BrokerSettings())
    attempts = Attempts(monkeypatch, BrokerUnavailable("refused"), was_up, BrokerUnavailable("refused"))
    with capture_logs() as logs:
        await attempts.run()
    told = "refused (neither AMQP_URL nor BROKER_URL is set, so this is the default)"
    # Once it was there, it is no wrong place.
    assert [log["error"] for log in logs if "error" in log] == [told, "it was closed", "refused"]


async def test_a_configuration_that_was_never_right_ends_it_and_one_that_was_is_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = Attempts(monkeypatch, ConfigurationError("no right"))
    await attempts.run(ConfigurationError)
    assert attempts.pauses_s == []
    attempts = Attempts(monkeypatch, was_up, ConfigurationError("the right was taken"))
    await attempts.run()
    assert attempts.connection.reason == "the right was taken"


async def test_a_defect_ends_it_whenever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    await Attempts(monkeypatch, was_up, KeyError("a defect")).run(KeyError)


async def test_it_can_be_cancelled_in_a_pause_and_in_an_attempt() -> None:
    async def attempt() -> BrokerUnavailable:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(Reconnecting("test", SETTINGS).run(attempt))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
