"""The timeline of a command at the gateway that has issued it: by what the gateway remembers, and by the log."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.client.command_log import Passed
from coordinator.http import receipts
from coordinator.http.receipts import Receipts
from coordinator.protocol.actors import Logged
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import LaneSettings
from coordinator.runtime.telemetry import Stages
from coordinator.service.ids import new_command_id
from coordinator.service.outcome import Outcome
from coordinator.service.principal import Principal
from coordinator.stores.passages import passage_text
from tests.unit.gateways.conftest import RunningGateway
from tests.unit.gateways.gateway_fakes import applied, refused
from tests.unit.gateways.test_gateways_operations import settled

ADA = {"name": "Ada", "email": "ada@example.org"}
ONE = {"type": "users.create", "args": ADA}


def names(timeline: dict[str, Any]) -> list[str]:
    return [moment["name"] for moment in timeline["moments"]]


async def test_the_gateway_that_issued_a_command_tells_when_it_came_and_was_answered(users: RunningGateway) -> None:
    response, _ = await users.call("POST", "/users", json=ADA)
    command_id = response.headers["Command-Id"]
    users.log.entries[command_id] = settled(command_id=command_id, settled_at=datetime.now(UTC))
    _, body = await users.call("GET", f"/commands/{command_id}")
    timeline = body["timeline"]
    assert names(timeline) == ["received", "published", "applied", "committed", "answered"]
    by_name = {moment["name"]: moment for moment in timeline["moments"]}
    assert by_name["received"]["ms"] == 0
    assert not by_name["received"]["at_latest"]
    assert 0 <= by_name["published"]["ms"] <= by_name["committed"]["ms"] <= by_name["answered"]["ms"]
    assert {moment["name"] for moment in timeline["moments"] if moment["clock"] == "lane"} == {"applied"}


async def test_each_command_of_a_request_has_its_own_times(users: RunningGateway) -> None:
    response, answers = await users.call("POST", "/commands", json=[ONE, ONE])
    assert response.status == 200
    for answer in answers:
        command_id = answer["command_id"]
        users.log.entries[command_id] = settled(command_id=command_id, settled_at=datetime.now(UTC))
        _, body = await users.call("GET", f"/commands/{command_id}")
        assert names(body["timeline"]) == ["received", "published", "applied", "committed", "answered"]


async def test_another_gateway_knows_what_the_id_and_the_log_say(users: RunningGateway) -> None:
    command_id = settled().command_id
    users.log.entries[command_id] = settled()
    _, body = await users.call("GET", f"/commands/{command_id}")
    assert [(each["name"], each["at_latest"]) for each in body["timeline"]["moments"]] == [
        ("received", True),
        ("applied", False),
    ]


async def test_a_command_that_waits_says_how_many_are_before_it_at_most(users: RunningGateway) -> None:
    command_id = settled().command_id
    users.writes.in_flight.add(command_id)
    users.writes.waiting_by_lane["users"] = 7
    response, body = await users.call("GET", f"/commands/{command_id}")
    assert response.status == 202
    # The coordinator may hold as many as it prefetches.
    assert body["timeline"]["waiting_before"] == 7 + LaneSettings().prefetch
    assert (body["timeline"]["standing"], names(body["timeline"])) == ("queued", ["received"])


async def test_the_log_tells_when_the_transaction_was_committed_and_which_commands_it_had(
    users: RunningGateway,
) -> None:
    began, then = datetime.now(UTC), datetime.now(UTC) + timedelta(milliseconds=40)
    ids = [new_command_id() for _ in range(4)]
    passages = ("[5,7]", "3", "2", "[1,2,11]")
    for number, (command_id, passage) in enumerate(zip(ids, passages, strict=True)):
        at = then if number == 3 else began
        users.log.entries[command_id] = settled(
            command_id=command_id, sequence=number + 1, settled_at=at, passage=passage
        )
    _, body = await users.call("GET", f"/commands/{ids[1]}")
    timeline = body["timeline"]
    assert (timeline["place"], timeline["batch_size"]) == (2, 3)
    of_lane = {
        each["name"]: datetime.fromisoformat(each["at"]) for each in timeline["moments"] if each["clock"] == "lane"
    }
    assert of_lane == {
        "delivered": began - timedelta(milliseconds=3),
        "applied": began,
        "committing": began + timedelta(milliseconds=7),
        "committed": began + timedelta(milliseconds=11),
    }
    assert not any(each["at_latest"] for each in timeline["moments"] if each["name"] == "committed")


async def test_a_gateway_reads_no_more_of_the_log_for_a_large_transaction(
    users: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, read = datetime.now(UTC), []
    ids = [new_command_id() for _ in range(150)]
    for number, command_id in enumerate(ids):
        users.log.entries[command_id] = settled(command_id=command_id, sequence=number + 1, settled_at=began)
    passages = users.log.passages

    async def counted(first: int, last: int) -> list[Passed]:
        read.append(last - first + 1)
        return await passages(first, last)

    monkeypatch.setattr(users.log, "passages", counted)
    response, body = await users.call("GET", f"/commands/{ids[75]}")
    assert response.status == 200
    assert (body["timeline"]["place"], body["timeline"]["batch_size"]) == (None, None)
    assert sum(read) <= 201


async def test_what_a_command_led_to_has_its_standing(users: RunningGateway) -> None:
    command_id, done, late, elsewhere = (new_command_id() for _ in range(4))
    children = [f"users.create {done}", f"users.create {late}", f"items.reserve {elsewhere}"]
    passage = passage_text(1, children=children)
    users.log.entries[command_id] = settled(command_id=command_id, passage=passage)
    users.log.entries[done] = settled(command_id=done, sequence=13, status="rejected")
    _, body = await users.call("GET", f"/commands/{command_id}")
    shown = {each["command_id"]: each["standing"] for each in body["timeline"]["children"]}
    assert shown == {done: "rejected", late: "unknown", elsewhere: None}


def test_a_gateway_forgets_the_oldest_of_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "RECEIPTS_MAX", 2)
    kept, stages = Receipts(), Stages()
    for command_id in ("a", "b", "c"):
        kept.keep(command_id, "users", None, stages, stages)
    assert [kept.times_of(command_id, None) is None for command_id in ("a", "b", "c")] == [True, False, False]


def test_each_has_receipts_of_his_own() -> None:
    """Whoever knows an id may send a command with it, and ask for it while it waits."""
    kept, hers, his = Receipts(), Stages(), Stages()
    hers.began_s -= 100
    kept.keep("a", "users", Principal(subject="mallory"), his, his)
    kept.keep("a", "users", Principal(subject="alice", scopes=frozenset({"staff"})), hers, hers)
    times = kept.times_of("a", Logged("alice"))
    assert times is not None
    assert datetime.now(UTC) - times.received_at > timedelta(seconds=90)
    assert [kept.times_of("a", each) for each in (None, Logged("eve"), Logged("alice", "their tenant"))] == [None] * 3
    kept.withdraw("a", Principal(subject="mallory"), hers)
    assert kept.times_of("a", Logged("mallory")) is not None
    kept.withdraw("a", Principal(subject="mallory"), his)
    assert kept.times_of("a", Logged("mallory")) is None
    assert kept.times_of("a", Logged("alice")) is not None


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: applied(message, replayed=True),
        refused("rejected", "email_taken", replayed=True),
        refused("failed", "handler_error", replayed=True),
        refused("rejected", "idempotency_mismatch"),
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
async def test_the_times_of_a_repetition_are_not_the_command_s(
    users: RunningGateway, answer: Callable[[CommandMessage], Outcome], *, is_alone: bool
) -> None:
    """As of one that comes after the gateway was started anew: the command was applied long before."""
    users.writes.answer = answer
    command_id = settled().command_id
    users.log.entries[command_id] = settled()
    if is_alone:
        await users.call("POST", "/users", json=ADA, headers={"Command-Id": command_id})
    else:
        await users.call("POST", "/commands", json=[ONE | {"id": command_id}])
    _, body = await users.call("GET", f"/commands/{command_id}")
    assert [(each["name"], each["at_latest"]) for each in body["timeline"]["moments"]] == [
        ("received", True),
        ("applied", False),
    ]
    assert body["timeline"]["clocks"] is None


def test_the_first_request_of_a_command_counts() -> None:
    kept, first, again = Receipts(), Stages(), Stages()
    first.began_s = again.began_s - 5
    kept.keep("a", "users", None, first, first)
    kept.keep("a", "users", None, again, again)
    times = kept.times_of("a", None)
    assert times is not None
    assert timedelta(seconds=4) < datetime.now(UTC) - times.received_at < timedelta(seconds=60)


def test_the_end_of_a_wait_is_no_outcome() -> None:
    kept, stages = Receipts(), Stages()
    stages.spent_ms = {"validate": 1.0, "publish": 2.0, "apply": 3.0}
    kept.keep("a", "users", None, stages, stages)
    times = kept.times_of("a", None)
    assert times is not None
    assert (times.published_at, times.outcome_at) == (times.received_at + timedelta(milliseconds=3), None)
    stages.sequence = 1
    times = kept.times_of("a", None)
    assert times is not None
    assert times.outcome_at == times.received_at + timedelta(milliseconds=6)
