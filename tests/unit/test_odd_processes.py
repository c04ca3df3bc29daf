"""What a process tells at its health endpoint may be anything: a stranger may have its port. It hides no lane."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress

import msgspec
import pytest
from aiohttp import web
from prometheus_client import generate_latest

from coordinator.operate.effects_conditions import effects_condition
from coordinator.operate.processes import LANES_MAX, TEXT_CHARACTERS_MAX, ask_all, away, seen
from coordinator.operate.queue_depth import EffectsDepth
from coordinator.operations.collector import LaneCollector
from coordinator.operations.coordinators import Coordinators
from coordinator.operations.lane_routes import COLLECTOR
from coordinator.worker.lane_gauges import SUSPENDED
from tests.unit.test_operations_doors import LANE, Start, start

__all__ = ("start",)

OK = b"HTTP/1.1 200 OK\r\n"
READY = b'{"status": "ready", "lane": "seats"}'
WORKS = b'{"status": "ready", "effects": "effects.seats"}'
URL = "http://127.0.0.1:9101"
NO_COUNTS = ("1e999", "..", "NaN", "Inf", "-1", "1e300", "9" * 400, "0x10", "é")
NO_ANSWERS = (
    b"",
    b"null",
    b'{"status": 7}',
    b'{"status": "\xff"}',
    b'{"status": "ready", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
)
Odd = Callable[..., Awaitable[str]]


def metrics(name: str, value: str) -> bytes:
    label = "lane" if name.startswith("lane") else "service"
    return f'coordinator_{name}{{{label}="seats"}} {value}\n'.encode()


@pytest.mark.parametrize("value", NO_COUNTS)
@pytest.mark.parametrize(
    ("said", "name"),
    [
        (READY, "lane_epoch"),
        (READY, "lane_unacknowledged"),
        (WORKS, "effects_under_way"),
        (WORKS, "effects_in_turn"),
        (WORKS, "effects_held_back"),
        (WORKS, "effects_oldest_seconds"),
        (WORKS, "effects_breaker_open"),
    ],
)
def test_what_is_no_count_is_no_answer(said: bytes, name: str, value: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        seen(URL, said, metrics(name, value))


async def test_a_watch_that_ends_by_an_error_leaves_no_connection() -> None:
    collector = LaneCollector((), ["http://127.0.0.1:1"], 1.0)

    async def watch() -> None:
        async with asynccontextmanager(collector.running)(web.Application()):
            await collector.next(0)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await watch()
    session = collector._coordinators._session
    assert session is not None
    assert session.closed


@pytest.mark.parametrize("said", NO_ANSWERS)
def test_what_is_no_state_is_no_answer(said: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        seen(URL, said, b"")


def test_what_a_process_says_is_cut() -> None:
    """It goes to all who watch, again and again."""
    long = msgspec.json.encode({"status": "unready", "lane": "a" * 10_000, "reason": "\x00" * 1_000_000})
    (found,) = seen(URL, long, b"")
    assert found.reason == "\ufffd" * TEXT_CHARACTERS_MAX
    assert found.lane == "a" * TEXT_CHARACTERS_MAX


def test_counts_are_read() -> None:
    told = metrics("lane_epoch", "7.0") + metrics("lane_unacknowledged", "1e+03")
    (lane,) = seen(URL, READY, told)
    assert (lane.epoch, lane.held) == (7, 1000)
    (worker,) = seen(URL, WORKS, metrics("effects_oldest_seconds", "2.5"))
    assert worker.oldest_s == 2.5


def test_each_lane_of_one_process_is_seen() -> None:
    said = {"status": "unready", "reason": "lane notes: no", "lanes": {"seats": {}, "notes": {"reason": "no" * 1000}}}
    told = metrics("lane_epoch", "7.0").replace(b"seats", b"notes") + metrics("lane_epoch", "3.0")
    found = seen(URL, msgspec.json.encode(said), told)
    assert [(each.lane, each.state, each.epoch) for each in found] == [("seats", "active", 3), ("notes", "unready", 7)]
    assert len(found[1].reason or "") == TEXT_CHARACTERS_MAX
    assert [(each.lane, each.state) for each in away(URL, found, TimeoutError())] == [
        ("seats", "away"),
        ("notes", "away"),
    ]


def test_a_lane_that_is_ready_may_say_what_waits_there() -> None:
    told, waits = metrics("lane_epoch", "3.0"), {"status": "ready", "reason": "a command waits"}
    (alone,) = seen(URL, msgspec.json.encode(waits | {"lane": "seats"}), told)
    (one,) = seen(URL, msgspec.json.encode({"status": "ready", "lanes": {"seats": waits}}), told)
    assert [(each.state, each.reason) for each in (alone, one)] == [("active", "a command waits")] * 2


def test_the_cause_of_a_suspension_is_read_as_coordinators_say_it() -> None:
    lanes: dict[str, dict[str, str]] = {"odd_seats": {"reason": "blocked"}, "odd_notes": {}}
    SUSPENDED.labels("odd_seats", "blocked").set(1)
    for lane in lanes:
        SUSPENDED.labels(lane, "database").set(0)
    said = msgspec.json.encode({"status": "unready", "reason": "blocked", "lanes": lanes})
    assert [each.cause for each in seen(URL, said, generate_latest())] == ["blocked", None]
    alone = b'{"status": "unready", "reason": "no", "lane": "seats"}'
    line = b'coordinator_lane_suspended{cause="%s",lane="seats"} 1.0\n'
    assert [seen(URL, alone, line % cause)[0].cause for cause in (b"database", b"of a later release")] == [
        "database",
        None,
    ]


def test_no_more_lanes_of_one_process_are_seen_than_it_may_have() -> None:
    lanes: dict[str, dict[str, str]] = {f"seats_{n}": {} for n in range(LANES_MAX + 1)}
    said = msgspec.json.encode({"status": "ready", "lanes": lanes})
    assert len(seen(URL, said, b"")) == LANES_MAX


def test_effects_that_wait_at_a_worker_are_counted_as_waiting() -> None:
    """Those between two attempts are in no queue's count: a provider that is away would have nothing that waits."""
    told = metrics("effects_in_turn", "2.0") + metrics("effects_held_back", "3.0") + metrics("effects_under_way", "1.0")
    (worker,) = seen(URL, WORKS, told)
    found = effects_condition(EffectsDepth(waiting=4, consumers=1), [worker], None)
    assert found is not None
    assert (found.waiting, found.under_way) == (9, 1)


@pytest.fixture
async def odd() -> AsyncIterator[Odd]:
    """Starts what answers with these texts; its address."""
    runners: list[web.AppRunner] = []

    async def started(readyz: bytes, told: bytes) -> str:
        app = web.Application()

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=readyz if request.path == "/readyz" else told)

        app.router.add_get("/{path}", answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield started
    for each in runners:
        await each.cleanup()


async def test_one_odd_answer_hides_neither_its_lane_nor_readiness(start: Start, odd: Odd) -> None:
    urls = [await odd(READY, metrics("lane_epoch", value)) for value in ("1e999", "..", "7")]
    urls += [await odd(said, b"") for said in NO_ANSWERS]
    door = await start(OPERATIONS_COORDINATORS=" ".join(urls), OPERATIONS_REFRESH_S="0.1")
    async with asyncio.timeout(10):
        while (await door.ask("GET", "/readyz"))[0] != 200:  # noqa: ASYNC110  # it is another's clock
            await asyncio.sleep(0.02)
    states = {each.url: each.state for each in await asyncio.to_thread(ask_all, urls)}
    assert states == {url: "active" if url == urls[2] else "away" for url in urls}


@pytest.mark.parametrize(
    ("answer", "drips"),
    [
        (OK + b"Content-Length: 100\r\n\r\n" + READY, b""),
        (OK + b"Content-Length: 100000\r\n\r\n" + READY, b" "),
        (OK + b"X: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["breaks off", "drips", "drips headers", "continues"],
)
def test_an_answer_that_does_not_end_is_none(answer: bytes, drips: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.operate.processes.TIMEOUT_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, suppress(OSError):
                        client.recv(65_536)
                        client.sendall(answer)
                        while drips:
                            client.sendall(drips)
                            gone.wait(0.02)

        gone = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        (found,) = ask_all([f"http://127.0.0.1:{server.getsockname()[1]}"])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert found.state == "away"


async def test_a_defect_of_one_part_hides_no_other(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    door = await start(OPERATIONS_REFRESH_S="0.1")
    collector = door.app[COLLECTOR]
    async with asyncio.timeout(10):
        await collector.next(0)

    def fails() -> None:
        raise OverflowError

    monkeypatch.setattr(collector._watches[LANE], "look", fails)
    for _ in range(2):
        number = collector.number
        collector.hurry()
        async with asyncio.timeout(10):
            await collector.next(number)
    assert collector.views[LANE].status.errors == [f"the database of lane {LANE} does not answer"]


async def test_a_process_whose_answer_is_a_defect_of_ours_is_away(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OverflowError("unheard of")

    monkeypatch.setattr("coordinator.operations.coordinators.seen", fails)
    processes = Coordinators([await odd(READY, b"")])
    (found,) = await processes.look()
    await processes.close()
    assert (found.state, found.reason) == ("away", "it does not answer: unheard of")


async def test_a_process_that_is_not_there_is_away_in_words_that_name_no_tls() -> None:
    processes = Coordinators(["http://127.0.0.1:9"])
    (found,) = await processes.look()
    await processes.close()
    assert found.state == "away"
    assert "127.0.0.1" in (found.reason or "")
    assert "ssl" not in (found.reason or "")
