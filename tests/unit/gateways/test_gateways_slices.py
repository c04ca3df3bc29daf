"""A pack of many commands lets others be served between, at each of its steps, and lets them into the lane."""

import asyncio
from time import sleep

import pytest

from coordinator.http import command_ids, slices
from coordinator.http.shown_results import ShownResults
from coordinator.http.slices import TURN_COMMANDS, in_turns
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import command_id_for
from coordinator.service.outcome import Outcome
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import FakeWrites, applied
from tests.unit.gateways.test_gateways_connections import until
from tests.unit.gateways.test_gateways_limits import CREDIT, limited, of
from tests.unit.gateways.test_gateways_turns import Steps

PACK = 1000


async def send(gateway: RunningGateway, number: int, **headers: str) -> list[dict[str, str]]:
    response, outcomes = await gateway.call("POST", "/commands", json=[CREDIT] * number, headers=of("ada") | headers)
    assert (response.status, len(outcomes)) == (200, number)
    return list(outcomes)


async def most_in_one_step(steps: Steps, gateway: RunningGateway, number: int, **headers: str) -> int:
    counting = asyncio.create_task(steps.count())
    await send(gateway, number, **headers)
    counting.cancel()
    return steps.most


async def test_a_single_command_does_not_wait_behind_all_of_another_s_pack(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the pack few are ahead of it in the lane's order, and its own order stays."""
    monkeypatch.setattr(slices, "TURN_S", 60.0)
    gateway = await limited(start, principal_in_flight_max=PACK)
    writes = gateway.writes
    writes.gate.clear()
    pack = asyncio.create_task(send(gateway, PACK))
    await until(lambda: len(writes.issued) == 2 * TURN_COMMANDS)
    bob = asyncio.create_task(gateway.call("POST", "/commands", json=[CREDIT], headers=of("bob")))
    await until(lambda: len(writes.issued) > 2 * TURN_COMMANDS)
    writes.gate.set()
    assert ((await bob)[0].status, len(await pack)) == (200, PACK)
    asked = [message for _, message, _ in writes.issued]
    subjects = [message.actor.subject for message in asked if message.actor is not None]
    assert subjects.index("bob") == 2 * TURN_COMMANDS
    assert len(subjects) == PACK + 1
    outcomes = [each["command_id"] for each in await pack]
    assert outcomes == [message.command_id for message in asked if message.actor and message.actor.subject == "ada"]


async def test_a_lane_that_is_slow_holds_a_pack_up_for_a_moment_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "TURN_S", 0.001)
    gateway = await limited(start, principal_in_flight_max=PACK)
    gateway.writes.gate.clear()
    pack = asyncio.create_task(send(gateway, PACK))
    await until(lambda: len(gateway.writes.issued) == PACK)
    gateway.writes.gate.set()
    await pack


async def test_few_commands_of_a_pack_are_handed_over_in_one_step_of_the_loop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, steps = await limited(start, principal_in_flight_max=PACK), Steps()

    class Counted(FakeWrites):
        async def issue(self, lane: str, message: CommandMessage, wait_s: float | None) -> Outcome:
            steps.done()
            return applied(message)

    monkeypatch.setattr(gateway.writes, "issue", Counted().issue)
    assert await most_in_one_step(steps, gateway, PACK) == TURN_COMMANDS


async def test_the_answers_of_a_pack_are_made_in_slices(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, steps, real = await limited(start, principal_in_flight_max=PACK), Steps(), ShownResults.of_logged

    def slowly(*given: object) -> object:
        steps.done()
        sleep(0.006)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ShownResults, "of_logged", slowly)
    assert await most_in_one_step(steps, gateway, 9) == 1


async def test_the_ids_of_a_pack_are_made_in_slices(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, steps, real = await start("users"), Steps(), command_id_for

    def slowly(lane: str, key: str) -> str:
        steps.done()
        sleep(0.006)
        return real(lane, key)

    monkeypatch.setattr(command_ids, "command_id_for", slowly)
    assert await most_in_one_step(steps, gateway, 9, **{"Idempotency-Key": "pack"}) == 1


@pytest.mark.parametrize("is_between", [True, False], ids=["between two turns", "after the last turn"])
async def test_a_request_that_is_ended_leaves_none_of_its_commands_behind(
    is_between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "TURN_S", 60.0)
    ended, begun = list[int](), list[int]()

    async def issue(number: int) -> None:
        begun.append(number)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    number = TURN_COMMANDS * (5 if is_between else 2)
    running = asyncio.create_task(in_turns(range(number), issue))
    await until(lambda: len(begun) == 2 * TURN_COMMANDS)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: len(ended) == len(begun))
    assert begun == list(range(2 * TURN_COMMANDS))
