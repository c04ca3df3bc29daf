"""What every transport promises the workers of a service's effects. The tests of each inherit this class."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from coordinator.effects.worker import EffectWorker
from coordinator.lane.control import DeadEffect
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.runtime.settings import EffectSettings
from coordinator.service.commands import Command
from coordinator.service.options import Options
from coordinator.service.outside_calls import Call, Effect, EffectHandler, Effects, GivenUp
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import OutboxEntry
from coordinator.transports.dead_effects import dead_effect
from coordinator.transports.port import EffectDelivery, EffectTransport
from tests.support.lane_contract import command_id

WITHIN_S = 20.0
PREFETCH = 3
DELAY_S = 1.0
"""The shortest pause that a transport has to keep."""


class CallResult(Command, type="contract.result"):
    """What came of an effect."""

    number: int


class Effecting(Protocol):
    """One service's effects on their way through a transport."""

    service: str

    async def emit(self, entry: OutboxEntry) -> None:
        """As its lane does."""

    async def transport(self, prefetch: int) -> EffectTransport:
        """Another one, of a worker that begins when the one before it has ended."""

    async def brought(self) -> CommandMessage:
        """The next command that comes to the lane, once it is there."""


class Working:
    """A worker that does nothing with what it takes but what the test says."""

    def __init__(self, transport: EffectTransport) -> None:
        self.transport = transport
        self._taken: asyncio.Queue[EffectDelivery] = asyncio.Queue()
        self._lasting: Sequence[asyncio.Future[Any]] = transport.start(self._taken.put_nowait, _defect)

    async def take(self, count: int) -> list[EffectDelivery]:
        return [await self._taken.get() for _ in range(count)]

    async def has_another(self) -> bool:
        """Also after a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DELAY_S / 2):
                await self._taken.get()
                return True
        return False

    async def put_back(self, delivery: EffectDelivery) -> None:
        """Once that can be: a transport may not be quite there yet when the first effect comes."""
        while not await self.transport.put_back(delivery, DELAY_S):
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        self.transport.stop()
        await self.transport.close()


def _defect(error: BaseException) -> None:
    raise error


class GatedCalls(Effects):
    """The calls of a service: each begins at once, and ends when it may."""

    def __init__(self, service: str) -> None:
        self.begun: list[int] = []
        self.may_end = asyncio.Semaphore(0)

        class ContractCall(Effect, type=f"{service}.call"):
            id: int

        class ContractDone(Command, type=f"{service}.done"):
            id: int

        async def perform(effect: ContractCall, _: Call) -> Command:
            self.begun.append(effect.id)
            await self.may_end.acquire()
            return ContractDone(id=effect.id)

        def give_up(effect: ContractCall, _: GivenUp) -> Command:
            return ContractDone(id=effect.id)

        self._handlers = (EffectHandler(ContractCall, perform, give_up),)

    @property
    def handlers(self) -> tuple[EffectHandler[Any], ...]:
        return self._handlers

    async def close(self) -> None: ...


class CountingWorker(EffectWorker):
    """A worker that says how many effects it has taken."""

    taken = 0

    def take(self, delivery: EffectDelivery) -> None:
        super().take(delivery)
        self.taken += 1

    async def begins_to_stop(self) -> None:
        await self._stop.wait()

    async def has_taken(self, count: int) -> None:
        """And its transport is wholly there, which it may not be yet when the first effect comes."""
        while self.taken < count or self._transport.unready_reason is not None:
            await asyncio.sleep(0.01)


def numbers(deliveries: Sequence[EffectDelivery]) -> list[int]:
    return [int((delivery.message.command_id or "")[-12:]) for delivery in deliveries]


class EffectContract:
    """`effecting` is a fixture of the subclass."""

    within_s: ClassVar[float] = WITHIN_S
    """How long a test may take."""
    knows_what_was_not_begun: ClassVar[bool] = True
    """Whether the next worker knows of an effect that was put back that no call was made for it."""

    async def _emit(self, effecting: Effecting, *of: int, actor: Principal | None = None) -> None:
        entries = [
            OutboxEntry(
                id=number,
                lane=f"effects.{effecting.service}",
                command_id=command_id(number),
                type=f"{effecting.service}.call",
                arguments=b'{"id":%d}' % number,
                created_at=datetime.now(UTC),
                options=Options(actor=actor).encode(),
            )
            for number in of
        ]
        # All at once, as an outbox does: they are sent in this order, and a confirm may take a second.
        await asyncio.gather(*(effecting.emit(entry) for entry in entries))

    async def _calling(
        self, effecting: Effecting, calls: GatedCalls, *, at_once: int, stop: asyncio.Event
    ) -> tuple[CountingWorker, "asyncio.Task[bool]"]:
        settings = EffectSettings(concurrency=at_once, read_ahead_max=50)
        transport = await effecting.transport(settings.held_max)
        worker = CountingWorker(effecting.service, calls, transport, settings)
        return worker, asyncio.create_task(worker.run(stop))

    async def test_who_asks_for_many_calls_does_not_hold_up_that_of_another(self, effecting: Effecting) -> None:
        calls, stop = GatedCalls(effecting.service), asyncio.Event()
        async with asyncio.timeout(self.within_s):
            worker, running = await self._calling(effecting, calls, at_once=2, stop=stop)
            await self._emit(effecting, *range(1, 31), actor=Principal(subject="greedy"))
            await self._emit(effecting, 31, actor=Principal(subject="bob"))
            await self._emit(effecting, 32, actor=Principal(subject="bob", tenant="acme"))
            await self._emit(effecting, 33)
            await worker.has_taken(33)
            assert sorted(calls.begun) == [1, 2]
            for _ in range(33):
                calls.may_end.release()
                await effecting.brought()
            stop.set()
            assert await running
        assert sorted(calls.begun) == list(range(1, 34))
        assert calls.begun[2:6] == [3, 31, 32, 33], "each has his turn"
        assert [each for each in calls.begun if each <= 30] == list(range(1, 31)), "and each his oldest first"

    async def test_what_had_no_turn_when_its_worker_stops_goes_to_another(self, effecting: Effecting) -> None:
        calls, stop = GatedCalls(effecting.service), asyncio.Event()
        async with asyncio.timeout(self.within_s):
            worker, running = await self._calling(effecting, calls, at_once=1, stop=stop)
            await self._emit(effecting, 1, 2, 3)
            await worker.has_taken(3)
            stop.set()
            await worker.begins_to_stop()
            calls.may_end.release()
            assert await running
            assert calls.begun == [1]
            other = await self._worker(effecting)
            again = await other.take(2)
            assert not await other.has_another()
            await other.end()
        assert sorted(numbers(again)) == [2, 3]
        if self.knows_what_was_not_begun:
            assert [(each.attempted.calls, each.attempted.may_have_happened) for each in again] == [(0, False)] * 2

    async def _worker(self, effecting: Effecting) -> Working:
        return Working(await effecting.transport(PREFETCH))

    async def test_an_effect_comes_as_its_lane_asked_for_it(self, effecting: Effecting) -> None:
        before_s = int(time.time())
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1)
            (delivery,) = await worker.take(1)
            await worker.end()
        message, attempted = delivery.message, delivery.attempted
        assert (message.command_id, message.type, message.arguments, message.origin, message.defect) == (
            *(command_id(1), f"{effecting.service}.call", b'{"id":1}'),
            *("system", None),
        )
        assert (attempted.calls, attempted.may_have_happened) == (0, False)
        assert delivery.emitted_at_s is not None
        assert before_s <= delivery.emitted_at_s <= attempted.first_at_s <= time.time()

    async def test_a_worker_has_as_many_at_a_time_as_it_wants(self, effecting: Effecting) -> None:
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1, 2, 3, 4, 5)
            taken = await worker.take(PREFETCH)
            assert not await worker.has_another()
            worker.transport.acknowledge(taken[:1])
            taken += await worker.take(1)
            await worker.end()
        assert numbers(taken) == [1, 2, 3, 4]

    async def test_what_was_not_acknowledged_comes_again_and_may_have_happened(self, effecting: Effecting) -> None:
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1, 2)
            taken = await worker.take(2)
            worker.transport.acknowledge(taken[:1])
            await asyncio.sleep(0.1)  # an acknowledgement may be lost with its connection
            await worker.end()
            other = await self._worker(effecting)
            again = await other.take(1)
            assert not await other.has_another()
            await other.end()
        assert numbers(again) == [2]
        assert again[0].attempted.may_have_happened

    async def test_what_is_put_back_comes_again_later_with_what_is_known(self, effecting: Effecting) -> None:
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1)
            (first,) = await worker.take(1)
            first.attempted.calls, first.attempted.reason = 2, "busy"
            began_s = time.monotonic()
            await worker.put_back(first)
            worker.transport.acknowledge([first])
            (again,) = await worker.take(1)
            passed_s = time.monotonic() - began_s
            worker.transport.acknowledge([again])
            assert not await worker.has_another()
            await worker.end()
        assert passed_s > DELAY_S / 2
        assert (again.message, again.emitted_at_s) == (first.message, first.emitted_at_s)
        assert (again.attempted.calls, again.attempted.reason) == (2, "busy")

    async def test_what_is_put_back_makes_room_for_others_and_outlives_its_worker(self, effecting: Effecting) -> None:
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await self._emit(effecting, *range(1, PREFETCH + 2))
            taken = await worker.take(PREFETCH)
            await worker.put_back(taken[0])
            worker.transport.acknowledge(taken[:1])
            taken += await worker.take(1)
            worker.transport.acknowledge(taken[1:])
            await asyncio.sleep(0.1)  # as above
            await worker.end()
            other = await self._worker(effecting)
            assert numbers(await other.take(1)) == [1]
            await other.end()

    async def test_a_result_comes_to_the_lane_as_what_the_system_says(self, effecting: Effecting) -> None:
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            named = f"{effecting.service}.call {command_id(1)}"
            await worker.transport.bring(CallResult(number=7), command_id(9), effecting.service, None, result_of=named)
            brought = await effecting.brought()
            await worker.end()
        assert (brought.command_id, brought.type, brought.arguments, brought.origin, brought.result_of) == (
            *(command_id(9), CallResult.type),
            *(b'{"number":7}', "system", named),
        )

    async def test_who_asked_for_an_effect_stays_with_it_and_with_what_comes_of_it(self, effecting: Effecting) -> None:
        """And so does the command that emitted it, with the effect: of it the ids of its results are made."""
        emitter = f"{effecting.service}.buy {command_id(2)}"
        actor = Principal(subject="ada", tenant="acme", scopes=frozenset({"b", "a"}))
        entry = OutboxEntry(
            id=1,
            lane=f"effects.{effecting.service}",
            command_id=command_id(1),
            type=f"{effecting.service}.call",
            arguments=b"{}",
            created_at=datetime.now(UTC),
            options=Options(actor=actor, result_of=emitter).encode(),
        )
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await effecting.emit(entry)
            (first,) = await worker.take(1)
            await worker.put_back(first)
            worker.transport.acknowledge([first])
            (again,) = await worker.take(1)
            message = again.message
            await worker.transport.bring(CallResult(number=7), command_id(9), effecting.service, message.actor)
            result = await effecting.brought()
            dead = dead_effect(message, Defect("unknown_effect_type", "it has none"))
            await worker.transport.bury(dead, again.copy, message.actor)
            letter = await effecting.brought()
            worker.transport.acknowledge([again])
            await worker.end()
        assert [each.actor for each in (first.message, message, result, letter)] == [actor] * 4
        assert (first.message.result_of, message.result_of) == (emitter, emitter)

    async def test_what_is_no_effect_becomes_a_dead_letter_once_for_each_copy(self, effecting: Effecting) -> None:
        async with asyncio.timeout(self.within_s):
            worker = await self._worker(effecting)
            await self._emit(effecting, 1)
            (delivery,) = await worker.take(1)
            dead = dead_effect(delivery.message, Defect("unknown_effect_type", "it has none"))
            ids = set()
            for copy in (delivery.copy, delivery.copy, "a replay"):
                await worker.transport.bury(dead, copy, None)
                brought = await effecting.brought()
                assert (brought.type, brought.origin, brought.arguments) == (
                    DeadEffect.type,
                    "system",
                    dead.arguments(),
                )
                ids.add(brought.command_id)
            await worker.end()
        assert len(ids) == 2
