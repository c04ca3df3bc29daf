"""Whoever asks for metrics again and again takes a tenth of the event loop's time at most."""

import asyncio
import time

from coordinator.runtime.metrics_text import REST_TIMES, MetricsText

MAKING_S = 0.01
ASKING = 50


class Made:
    """Counts the texts that are made, each of which takes the event loop for a while."""

    def __init__(self) -> None:
        self.began_s: list[float] = []

    def __call__(self) -> bytes:
        self.began_s.append(time.monotonic())
        time.sleep(MAKING_S)
        return b"%d" % len(self.began_s)


async def test_who_asks_alone_is_answered_at_once() -> None:
    made = Made()
    assert await asyncio.wait_for(MetricsText(made).latest(), timeout=10) == b"1"


async def test_those_who_ask_at_a_time_share_a_text() -> None:
    made = Made()
    text = MetricsText(made)
    answers = await asyncio.gather(*(text.latest() for _ in range(ASKING)))
    assert len(made.began_s) == 2, "one for the first who asks, and one for those who came meanwhile"
    assert sorted(answers) == [b"1", *[b"2"] * (ASKING - 1)]


async def test_the_event_loop_has_most_of_the_time_for_others() -> None:
    made = Made()
    text = MetricsText(made)
    for _ in range(3):
        await text.latest()
    pauses_s = [after - before for before, after in zip(made.began_s, made.began_s[1:], strict=False)]
    assert min(pauses_s) >= (REST_TIMES + 1) * MAKING_S


async def test_no_text_is_older_than_the_question() -> None:
    made = Made()
    text = MetricsText(made)
    for _ in range(3):
        asked_s = time.monotonic()
        await text.latest()
        assert made.began_s[-1] >= asked_s


async def test_one_who_leaves_keeps_nobody_from_his_text() -> None:
    made = Made()
    text = MetricsText(made)
    await text.latest()
    gone, stays = asyncio.create_task(text.latest()), asyncio.create_task(text.latest())
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.wait_for(stays, timeout=10) == b"2"
