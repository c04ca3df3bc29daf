"""What a worker does with a delivery: whatever it was, something is safe before it is acknowledged."""

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pika
import pytest
from structlog.testing import capture_logs

from coordinator.effects.worker import EffectWorker
from coordinator.lane.control import DeadEffect
from coordinator.protocol.attempted import HEADER_CALLS, HEADER_DOUBT, HEADER_FIRST_AT, Attempted
from coordinator.protocol.wire import BODY_BYTES_MAX, HEADER_REPLAYED, HEADER_RESULT_OF, JSON_CONTENT, PACK_CONTENT
from coordinator.runtime.settings import BrokerSettings, EffectSettings
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError
from coordinator.service.ids import derived_command_id, is_system_id
from coordinator.service.outside_calls import Call, Effect, EffectHandler, EffectRetry, GivenUp
from coordinator.service.upgrades import Upgrade
from coordinator.transports.rabbitmq.effects.transport import RabbitEffects
from coordinator.transports.rabbitmq.topology import SYSTEM_EXCHANGE, WRITES_EXCHANGE
from tests.support.courier import Courier, ParcelResult, TakeAway
from tests.support.effect_fakes import FakeChannel, FakePublisher

FIRST = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
SECOND = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b12"
THIRD = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b13"
BACK = "effects.courier.retry."
BODY = b'{"id": 7}'
FACT, DENIAL, DOUBT = (derived_command_id(f"{TakeAway.type} {FIRST}", position, BODY) for position in (0, 1, 2))
WITHIN_S = 10.0


class Crashing(Courier):
    """A courier with a defect: `give_up` raises."""

    @property
    def handlers(self) -> tuple[EffectHandler[TakeAway], ...]:
        return (EffectHandler(TakeAway, self._take_away, self._crash),)

    def _crash(self, effect: TakeAway, given_up: GivenUp) -> Command:
        raise ValueError(f"\ud800 {effect.id}")


class Unreadable(Courier):
    """A courier to whose calls a third party answers what no lane can be told: `state`, in a parcel of `number`."""

    def __init__(self, state: str, number: int = 7) -> None:
        super().__init__([])
        self.state, self.number = state, number

    async def _take_away(self, effect: TakeAway, call: Call) -> Command:
        return ParcelResult(id=self.number, state=self.state)


class Delivering:
    """A worker between fakes."""

    def __init__(self, courier: Courier, *, upgrades: Sequence[Upgrade] = (), **settings: float) -> None:
        self.publisher = FakePublisher()
        fake: Any = self.publisher
        given = EffectSettings(**settings)  # type: ignore[arg-type]
        broker = BrokerSettings(reconnect_delay_s=0.001)
        self.transport = RabbitEffects("courier", broker, given.held_max, fake)
        self.worker = EffectWorker("courier", courier, self.transport, given, lambda: 1.0, upgrades)
        self.transport._take = self.worker.take
        self.channel = FakeChannel()
        self.connect(self.channel)

    def connect(self, channel: Any) -> None:
        self.transport._channel = channel

    def deliver(self, tag: int, command_id: str | None = FIRST, body: bytes = BODY, **how: Any) -> None:
        """`how`: channel, exchange, redelivered, headers, content_type, timestamp."""
        properties = pika.BasicProperties(
            message_id=command_id,
            type=how.get("type", TakeAway.type),
            content_type=how.get("content_type", JSON_CONTENT),
            headers=how.get("headers"),
            timestamp=how.get("timestamp"),
        )
        method = SimpleNamespace(
            delivery_tag=tag, redelivered=how.get("redelivered", False), exchange=how.get("exchange", SYSTEM_EXCHANGE)
        )
        self.transport.deliver(how.get("channel", self.channel), method, properties, body)

    async def until_done(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.worker._under_way:
                # gather() of what is done gives the loop no turn, in which it would be taken off.
                done, _ = await asyncio.wait(self.worker._under_way)
                for task in done:
                    task.result()

    @property
    def told(self) -> list[tuple[str | None, str]]:
        """The ids and the states that the lane was told."""
        told = [each for each in self.publisher.published if each.type == ParcelResult.type]
        assert {each.target for each in told} <= {"courier"}
        return [(each.command_id, msgspec.json.decode(each.body, type=ParcelResult).state) for each in told]

    @property
    def dead(self) -> list[DeadEffect]:
        dead = [each for each in self.publisher.published if each.type == DeadEffect.type]
        assert all(each.target == "courier" and is_system_id(each.command_id or "") for each in dead)
        return [msgspec.json.decode(each.body, type=DeadEffect) for each in dead]

    @property
    def put_back(self) -> list[tuple[str, dict[str, Any]]]:
        """Where, and with what known."""
        back = [each for each in self.publisher.published if each.type == TakeAway.type]
        assert all((each.command_id, each.body) == (FIRST, BODY) for each in back)
        return [(each.target.removeprefix(BACK), each.headers) for each in back]


async def test_an_effect_is_acknowledged_once_the_broker_has_its_result() -> None:
    delivering = Delivering(Courier([]))
    delivering.publisher.may_confirm.clear()
    delivering.deliver(1)
    async with asyncio.timeout(WITHIN_S):
        await delivering.publisher.has_published.wait()
    assert delivering.channel.acknowledged == []
    delivering.publisher.may_confirm.set()
    await delivering.until_done()
    assert delivering.told == [(FACT, "taken")]
    assert delivering.channel.acknowledged == [1]


@pytest.mark.parametrize("after_s", [3.0, 15.0, 700.0])
async def test_an_effect_that_has_to_wait_is_put_back_with_what_is_known_and_then_acknowledged(after_s: float) -> None:
    retry = EffectRetry("busy", after_s=after_s, may_have_happened=True)
    delivering = Delivering(Courier([retry]))
    delivering.publisher.may_confirm.clear()
    delivering.deliver(1, timestamp=1_700_000_000)
    async with asyncio.timeout(WITHIN_S):
        await delivering.publisher.has_published.wait()
    assert delivering.channel.acknowledged == []
    delivering.publisher.may_confirm.set()
    await delivering.until_done()
    [(queue, known)] = delivering.put_back
    assert queue == {3.0: "1s", 15.0: "10s", 700.0: "10m"}[after_s]
    assert (known[HEADER_CALLS], known[HEADER_DOUBT], known["reason"]) == (1, True, "busy")
    assert known["asked-at-ms"] == 1_700_000_000_000
    assert abs(known["not-before-ms"] / 1000 - time.time() - after_s) < 5
    assert delivering.channel.acknowledged == [1]


async def test_what_comes_back_early_is_put_back_for_the_rest_without_a_call() -> None:
    courier = Courier([])
    delivering = Delivering(courier)
    known = Attempted(asked_at_s=1.0, first_at_s=time.time(), calls=4, not_before_s=time.time() + 75)
    delivering.deliver(1, headers=known.headers())
    await delivering.until_done()
    [(queue, headers)] = delivering.put_back
    assert (queue, headers[HEADER_CALLS], courier.keys) == ("1m", 4, [])
    assert delivering.channel.acknowledged == [1]


async def test_short_pauses_are_waited_out_a_few_times_and_then_it_is_put_back() -> None:
    """However short they are: sick ones must not keep their places of the prefetch."""
    courier = Courier([EffectRetry("busy") for _ in range(100)])
    delivering = Delivering(courier, retry_delay_s=0.001, retry_delay_s_max=0.001)
    delivering.deliver(1)
    await delivering.until_done()
    [(queue, known)] = delivering.put_back
    assert (queue, known[HEADER_CALLS], len(courier.keys)) == ("1s", 4, 4)
    assert not known[HEADER_DOUBT]


async def test_what_no_queue_takes_back_stays_with_the_worker_and_goes_on() -> None:
    delivering = Delivering(
        Courier([EffectRetry("busy") for _ in range(6)]), retry_delay_s=0.001, retry_delay_s_max=0.001
    )
    delivering.publisher.away.add(f"{BACK}1s")
    delivering.deliver(1)
    await delivering.until_done()
    assert delivering.told == [(FACT, "taken")]
    assert delivering.channel.acknowledged == [1]


async def test_a_result_that_no_queue_takes_waits_and_others_go_on() -> None:
    delivering = Delivering(Courier([]))
    delivering.publisher.away.add("courier")
    delivering.deliver(1)
    known = Attempted(asked_at_s=1.0, first_at_s=time.time(), not_before_s=time.time() + 75)
    delivering.deliver(2, SECOND, headers=known.headers())
    async with asyncio.timeout(WITHIN_S):
        await delivering.publisher.has_published.wait()
    assert delivering.publisher.published[0].command_id == SECOND
    delivering.publisher.away.clear()
    await delivering.until_done()
    assert delivering.told == [(FACT, "taken")]


async def test_an_effect_that_meets_a_defect_becomes_a_dead_letter_with_its_traceback() -> None:
    delivering = Delivering(Crashing([EffectRetry("busy")]), give_up_after_s=0.001)
    delivering.deliver(1)
    await delivering.until_done()
    [dead] = delivering.dead
    assert (dead.command_id, dead.effect_type, dead.body) == (FIRST, TakeAway.type, BODY.decode())
    assert dead.code == "handler_error"
    assert dead.reason == "ValueError: ? 7"
    assert "Traceback" in (dead.traceback or "")
    assert delivering.channel.acknowledged == [1]


@pytest.mark.parametrize(
    ("state", "number"),
    [("\ud800", 7), ("x" * BODY_BYTES_MAX, 7), ("taken", -1), ("taken", 1 << 70)],
    ids=["half a surrogate pair", "too large", "no id", "no integer of JSON"],
)
async def test_an_answer_that_no_lane_can_read_is_sent_on_as_one_that_nobody_knows(state: str, number: int) -> None:
    """It would be nothing, or a command that fails, while somebody waits for what came of the call."""
    delivering = Delivering(Unreadable(state, number))
    delivering.deliver(1)
    await delivering.until_done()
    assert (delivering.told, delivering.dead) == ([(DOUBT, "unsure")], [])
    assert delivering.channel.acknowledged == [1]


async def test_what_the_broker_refuses_for_its_size_is_sent_on_as_one_that_nobody_knows() -> None:
    """Its limit (`max_message_size`) may be below ours."""
    delivering = Delivering(Unreadable("x" * 1000))
    delivering.publisher.bytes_max = 500
    delivering.deliver(1)
    await delivering.until_done()
    assert (delivering.told, delivering.dead) == ([(DOUBT, "unsure")], [])
    assert delivering.channel.acknowledged == [1]


async def test_no_reason_of_a_third_party_keeps_an_effect_from_being_put_back() -> None:
    retry = EffectRetry("no\x00 \ud83d " + "x" * 3_000_000, after_s=3.0)
    delivering = Delivering(Courier([retry]))
    delivering.deliver(1)
    await delivering.until_done()
    [(_, known)] = delivering.put_back
    assert known["reason"].startswith("no\ufffd ? xxx")
    assert len(known["reason"]) <= 500


DEEP = b'[{"id":"%s","type":"%s","args":%s}]' % (FIRST.encode(), TakeAway.type.encode(), b"[" * 2000 + b"]" * 2000)
ONE = b'{"id":"%s","type":"%s","args":{"id":7}}' % (FIRST.encode(), TakeAway.type.encode())


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"exchange": WRITES_EXCHANGE}, "not_from_system"),
        ({"exchange": ""}, "not_from_system"),
        ({"body": DEEP, "content_type": PACK_CONTENT}, None),
        ({"body": b"[" * 100_000, "content_type": PACK_CONTENT}, None),
        ({"body": b"[%s,%s]" % (ONE, ONE), "content_type": PACK_CONTENT}, "malformed_effect"),
        ({"body": b"[]", "content_type": PACK_CONTENT}, None),
        ({"body": b"[" * 100_000}, None),
        ({"body": b"\xff\xfe"}, "malformed_json"),
        ({"body": b'{"id": "seven"}'}, "invalid_arguments"),
        ({"body": b'{"id": 7' + b" " * (2 << 20) + b"}"}, "message_too_large"),
        ({"type": "courier.lose"}, "unknown_effect_type"),
        ({"type": None}, "missing_command_type"),
        ({"command_id": None}, "missing_command_id"),
        ({"command_id": "seven"}, "invalid_command_id"),
        ({"headers": {"x-malformed-properties": "00"}}, "malformed_properties"),
    ],
)
async def test_what_is_no_effect_is_a_dead_letter_and_no_exception(how: dict[str, Any], code: str | None) -> None:
    courier = Courier([])
    delivering = Delivering(courier)
    delivering.deliver(1, **how)
    await delivering.until_done()
    [dead] = delivering.dead
    assert code in {None, dead.code}, dead.code
    assert dead.reason
    assert (courier.keys, delivering.channel.acknowledged) == ([], [1])
    if dead.code == "not_from_system":
        assert (dead.origin, dead.command_id, dead.effect_type) == ("public", FIRST, TakeAway.type)
        assert ("through the default exchange" in dead.reason) is (how["exchange"] == "")


async def test_a_stranger_with_the_id_of_an_effect_of_ours_changes_nothing_about_it() -> None:
    delivering = Delivering(Courier([]))
    for tag, exchange in enumerate(("", SYSTEM_EXCHANGE), start=1):
        delivering.deliver(tag, timestamp=1_700_000_000, type="courier.lose", exchange=exchange)
    await delivering.until_done()
    assert [(each.origin, each.command_id) for each in delivering.dead] == [("public", FIRST), ("system", FIRST)]
    first, second = (each.command_id for each in delivering.publisher.published)
    assert first != second


async def test_copies_of_one_dead_letter_are_one_and_the_failure_of_a_replay_is_another() -> None:
    delivering = Delivering(Courier([]))
    emitted: dict[str, Any] = {"timestamp": 1_700_000_000}
    replayed: dict[str, Any] = {"headers": {HEADER_REPLAYED: True}, "timestamp": 1_700_000_009}
    for tag, how in enumerate((emitted, emitted, replayed), start=1):
        delivering.deliver(tag, type="courier.lose", **how)
        await delivering.until_done()
    first, second, third = (each.command_id for each in delivering.publisher.published)
    assert first == second != third


async def test_deliveries_without_an_id_are_each_dead_lettered_on_its_own() -> None:
    """The first is not settled yet when a new channel, whose tags begin again, brings the second."""
    delivering, later = Delivering(Courier([])), FakeChannel()
    delivering.deliver(1, None, b'{"id": 1}')
    delivering.connect(later)
    delivering.deliver(1, None, b'{"id": 2}', channel=later)
    delivering.deliver(2, None, b'{"id": 3}', channel=later)
    await delivering.until_done()
    assert [each.body for each in delivering.dead] == ['{"id": 1}', '{"id": 2}', '{"id": 3}']
    assert (delivering.channel.acknowledged, later.acknowledged) == ([], [1, 2])


async def test_a_task_that_ends_unforeseen_ends_the_worker() -> None:
    delivering = Delivering(Courier([]))
    delivering.channel.error = OSError("the socket is gone")
    delivering.worker._failed = failed = asyncio.get_running_loop().create_future()
    delivering.deliver(1)
    with pytest.raises(OSError, match="socket"):
        await delivering.until_done()
    assert delivering.told == [(FACT, "taken")]
    with pytest.raises(OSError, match="socket"):
        await failed


async def test_an_acknowledgement_that_cannot_be_sent_any_more_is_none_of_those() -> None:
    delivering = Delivering(Courier([]))
    delivering.channel.error = pika.exceptions.ChannelWrongStateError("closed")
    delivering.deliver(1)
    await delivering.until_done()
    assert delivering.told == [(FACT, "taken")]


async def test_a_worker_that_stops_puts_back_what_it_would_only_repeat() -> None:
    """Left unacknowledged it would come with the doubt that somebody made a call."""
    delivering = Delivering(Courier([EffectRetry("busy")]))
    delivering.deliver(1)
    delivering.worker._stop.set()
    await delivering.until_done()
    [(queue, known)] = delivering.put_back
    assert (queue, known[HEADER_CALLS], known[HEADER_DOUBT]) == ("1s", 1, False)
    assert delivering.channel.acknowledged == [1]


async def test_what_waits_for_its_turn_when_its_connection_is_lost_is_left_to_who_gets_it_then() -> None:
    courier, later = Courier([]), FakeChannel()
    courier.may_go.clear()
    delivering = Delivering(courier, concurrency=1)
    for tag, command_id in ((1, FIRST), (2, SECOND), (3, THIRD)):
        delivering.deliver(tag, command_id)
    delivering.connect(later)
    # One of the two comes again here, and the other goes elsewhere.
    delivering.deliver(1, THIRD, channel=later, redelivered=True)
    courier.may_go.set()
    await delivering.until_done()
    assert courier.keys == [FIRST, THIRD]
    assert (delivering.channel.acknowledged, later.acknowledged) == ([], [1])
    delivering.deliver(2, SECOND, channel=later, redelivered=True)
    await delivering.until_done()
    assert (courier.keys, later.acknowledged) == ([FIRST, THIRD, SECOND], [1, 2])


async def test_what_waits_for_its_turn_counts_as_without_a_result() -> None:
    courier = Courier([])
    courier.may_go.clear()
    delivering = Delivering(courier, concurrency=1)
    now_s = int(time.time())
    delivering.deliver(1, FIRST, timestamp=now_s - 10)
    delivering.deliver(2, SECOND, timestamp=now_s - 1000)
    assert 1000 <= delivering.worker.oldest_s < 1060
    courier.may_go.set()
    await delivering.until_done()
    assert delivering.worker.oldest_s == 0


async def test_what_the_last_calls_met_is_the_past_once_no_effect_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker may have made them since, and this one makes no call by which it would learn that."""
    delivering = Delivering(Courier([EffectRetry("away", after_s=15.0)]), breaker_failures=1)
    delivering.deliver(1)
    await delivering.until_done()
    worker = delivering.worker
    assert (worker.is_provider_away, worker.trouble) == (True, "the last call to the provider had no answer: away")
    # It was put back, and did not come again.
    monkeypatch.setattr(worker._waiting, "_clock", lambda: time.time() + 15 + 61)
    assert (worker.is_provider_away, worker.trouble, worker.late) == (False, None, None)


async def test_a_worker_that_stops_leaves_what_nobody_takes_back() -> None:
    delivering = Delivering(Courier([EffectRetry("busy")]))
    delivering.publisher.away.add(f"{BACK}1s")
    delivering.deliver(1)
    delivering.worker._stop.set()
    await delivering.until_done()
    assert (delivering.publisher.published, delivering.channel.acknowledged) == ([], [])


async def test_a_worker_that_is_cancelled_leaves_its_call_to_another() -> None:
    courier = Courier([])
    courier.may_go.clear()
    delivering = Delivering(courier)
    delivering.deliver(1)
    async with asyncio.timeout(WITHIN_S):
        await courier.arrived.wait()
    [task] = delivering.worker._under_way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (delivering.publisher.published, delivering.channel.acknowledged) == ([], [])


async def test_an_effect_that_is_delivered_again_is_called_once_and_acknowledged_where_it_came_last() -> None:
    courier, later = Courier([]), FakeChannel()
    courier.may_go.clear()
    delivering = Delivering(courier)
    delivering.deliver(5)
    async with asyncio.timeout(WITHIN_S):
        await courier.arrived.wait()
    delivering.connect(later)
    delivering.deliver(1, channel=later)
    delivering.deliver(2, SECOND, channel=later)
    courier.may_go.set()
    await delivering.until_done()
    assert sorted(courier.keys) == [FIRST, SECOND]
    assert (delivering.channel.acknowledged, sorted(later.acknowledged)) == ([], [1, 2])


async def test_every_delivery_of_one_effect_is_acknowledged() -> None:
    """The outbox may publish it twice: each copy has a place of the prefetch."""
    courier = Courier([])
    courier.may_go.clear()
    delivering = Delivering(courier)
    for tag in (1, 2, 3):
        delivering.deliver(tag)
    courier.may_go.set()
    await delivering.until_done()
    assert (courier.keys, delivering.channel.acknowledged) == ([FIRST], [1, 2, 3])


@pytest.mark.parametrize(
    "how", [{"redelivered": True}, {"headers": {HEADER_REPLAYED: True}}, {"headers": {HEADER_DOUBT: True}}]
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_what_one_copy_leaves_in_doubt_is_in_doubt(how: dict[str, Any], *, is_first: bool) -> None:
    courier = Courier([EffectRetry("connection refused") for _ in range(100)])
    courier.may_go.clear()
    delivering = Delivering(courier, give_up_after_s=0.002, retry_delay_s=0.001)
    delivering.deliver(1, **(how if is_first else {}))
    async with asyncio.timeout(WITHIN_S):
        await courier.arrived.wait()
    delivering.deliver(2, **({} if is_first else how))
    courier.may_go.set()
    await delivering.until_done()
    assert delivering.told == [(DOUBT, "unsure")]
    assert delivering.channel.acknowledged == [1, 2]


async def test_a_copy_that_comes_when_the_effect_is_being_given_up_is_looked_at_by_itself() -> None:
    """What it knows is not in what is being told; and a fact has another id than a guess."""
    courier = Courier([EffectRetry("connection refused")])
    long_ago = Attempted(asked_at_s=1.0, first_at_s=1.0, calls=9, not_before_s=2.0)
    delivering = Delivering(courier)
    delivering.publisher.may_confirm.clear()
    delivering.deliver(1, headers=long_ago.headers())
    async with asyncio.timeout(WITHIN_S):
        await delivering.publisher.has_published.wait()
    courier.taken.add(FIRST)
    delivering.deliver(2, headers=long_ago.headers() | {HEADER_DOUBT: True})
    delivering.publisher.may_confirm.set()
    await delivering.until_done()
    assert delivering.told == [(DENIAL, "left"), (FACT, "taken")]
    assert sorted(delivering.channel.acknowledged) == [1, 2]


async def test_what_a_copy_knows_that_comes_while_the_effect_is_put_back_is_not_lost() -> None:
    delivering = Delivering(Courier([EffectRetry("busy", after_s=15.0), EffectRetry("busy", after_s=15.0)]))
    delivering.publisher.may_confirm.clear()
    delivering.deliver(1)
    async with asyncio.timeout(WITHIN_S):
        await delivering.publisher.has_published.wait()
    delivering.deliver(2, redelivered=True)
    delivering.publisher.may_confirm.set()
    await delivering.until_done()
    assert [known[HEADER_DOUBT] for _, known in delivering.put_back] == [False, True]
    assert sorted(delivering.channel.acknowledged) == [1, 2]


async def test_the_day_counts_from_the_first_attempt_of_any_worker() -> None:
    delivering = Delivering(Courier([EffectRetry("busy", after_s=5.0)]))
    first_at_s = time.time() - 100
    known = Attempted(asked_at_s=1.0, first_at_s=first_at_s, calls=2, not_before_s=time.time() - 1)
    delivering.deliver(1, headers=known.headers())
    await delivering.until_done()
    [(_, headers)] = delivering.put_back
    assert (headers[HEADER_FIRST_AT], headers[HEADER_CALLS]) == (int(first_at_s * 1000), 3)


async def test_an_effect_of_a_newer_release_is_put_back_until_it_is_given_up() -> None:
    courier = Courier([])
    delivering = Delivering(courier, give_up_after_s=100)
    with capture_logs() as lines:
        delivering.deliver(1, headers={"command-version": 2})
        delivering.deliver(2, SECOND, headers={"command-version": 3, "first-attempt-at-ms": 1})
        await delivering.until_done()
    [back] = [each for each in delivering.publisher.published if each.type == TakeAway.type]
    assert (back.target, back.command_id, back.headers["command-version"]) == (f"{BACK}1s", FIRST, 2)
    assert [line["reason"] for line in lines if line["event"] == "effect_of_newer_release"] == [
        "version 2 of courier.take_away is not known here: version 1 is"
    ]
    [dead] = delivering.dead
    assert (dead.command_id, dead.code, dead.effect_version) == (SECOND, "unknown_command_version", 3)
    assert courier.keys == []
    assert sorted(delivering.channel.acknowledged) == [1, 2]


async def test_an_effect_of_an_older_version_is_upgraded_before_the_call() -> None:
    class Fetch(Effect, type="courier.fetch", version=2):
        parcel: int

    fetched = []

    async def fetch(effect: Fetch, call: Call) -> Command:
        fetched.append(effect.parcel)
        return ParcelResult(id=effect.parcel, state="fetched")

    class Fetching(Courier):
        @property
        def handlers(self) -> Any:
            return (EffectHandler(Fetch, fetch, lambda effect, given_up: ParcelResult(id=1, state="lost")),)

    upgrades = (Upgrade(Fetch, 1, lambda given: {"parcel": given["id"]}),)
    delivering = Delivering(Fetching([]), upgrades=upgrades)
    delivering.deliver(1, type=Fetch.type)
    delivering.deliver(2, SECOND, b'{"parcel":8}', type=Fetch.type, headers={"command-version": 2})
    await delivering.until_done()
    assert sorted(fetched) == [7, 8]
    with pytest.raises(ConfigurationError, match="Fetch has version 2, and no upgrade from version 1"):
        Delivering(Fetching([]))


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_whatever_an_effect_s_class_raises_is_a_dead_letter(error: type[BaseException]) -> None:
    class Strange(Effect, type="courier.strange"):
        id: int

        def __post_init__(self) -> None:
            raise error("so it is")

    async def never(_effect: Strange, _call: Call) -> Command:
        raise AssertionError

    class Never(Courier):
        @property
        def handlers(self) -> Any:
            return (EffectHandler(Strange, never, lambda effect, given_up: ParcelResult(id=1, state="lost")),)

    delivering = Delivering(Never([]))
    delivering.deliver(1, type=Strange.type)
    await delivering.until_done()
    [dead] = delivering.dead
    assert (dead.code, delivering.channel.acknowledged) == ("malformed_effect", [1])
    assert (error.__name__ in dead.reason, "so it is" in dead.reason) == (True, True)


@pytest.mark.parametrize("body", [BODY, b'{"id":7}'])
async def test_the_id_of_a_result_is_made_of_the_command_that_emitted_its_effect(body: bytes) -> None:
    """As its lane has named it, and not of the effect's arguments; of these where it has not, as one of before."""
    delivering, emitter = Delivering(Courier([])), f"courier.order {SECOND}"
    delivering.deliver(1, body=body, headers={HEADER_RESULT_OF: emitter})
    await delivering.until_done()
    assert delivering.told == [(derived_command_id(f"{TakeAway.type} {FIRST}", 0, emitter.encode()), "taken")]


async def test_copies_that_never_meet_may_deny_it_and_doubt_it_and_the_lane_learns_of_both() -> None:
    """The outbox publishes an effect once more, after the first copy has denied it, and that call has no answer."""
    courier = Courier([EffectRetry("connection refused"), EffectRetry("no answer", may_have_happened=True)])
    delivering = Delivering(courier, give_up_after_s=0.002, retry_delay_s=0.002)
    delivering.deliver(1)
    await delivering.until_done()
    assert delivering.told == [(DENIAL, "left")]
    delivering.deliver(2)
    await delivering.until_done()
    assert delivering.told == [(DENIAL, "left"), (DOUBT, "unsure")]
