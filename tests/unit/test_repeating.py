"""What is shown again and again: on a terminal, in a file, for a program."""

import io
import os
from contextlib import AbstractContextManager, redirect_stdout
from functools import partial

import click
import pytest
from msgspec.structs import replace

from coordinator.operate.lane_status import LaneLooks, LaneStatus
from coordinator.operate.open import lane_admin
from coordinator.operate.repeating import Screen, numbered, until_interrupted
from coordinator.operations.top import lane_row, rated
from coordinator.operations.views import KindOfCommand, LanePoint, LaneView
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.admin import LaneAdmin
from tests.unit.test_hostile_arguments import environment

__all__ = ("environment",)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def frames(terminal: io.StringIO, *, is_plain: bool = False) -> str:
    with redirect_stdout(terminal):
        screen = Screen(is_plain=is_plain)
        for number in numbered(2):
            screen.show("every 1 s", partial(click.echo, f"line {number}\n" + "x" * 100))
    return terminal.getvalue()


def test_on_a_terminal_each_frame_takes_the_place_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.operate.repeating.get_terminal_size", lambda: os.terminal_size((40, 24)))
    first, second = frames(Terminal()).split("\x1b[H")[1:]
    assert "line 0" in first
    assert "line 1" in second
    for each in (first, second):
        assert each.rstrip().endswith("\x1b[J") or each.endswith("\x1b[J")
        assert all(len(line.partition("\x1b")[0]) <= 40 for line in each.splitlines())
    assert "x" * 39 + "…" in first


def test_what_a_terminal_has_no_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.operate.repeating.get_terminal_size", lambda: os.terminal_size((200, 4)))
    shown = frames(Terminal())
    assert "… 2 more lines" in shown
    assert "line 0" not in shown


def test_elsewhere_frames_follow_each_other_and_a_program_gets_them_alone() -> None:
    shown = frames(io.StringIO())
    assert "\x1b" not in shown
    assert shown.index("line 0") < shown.index("line 1")
    assert shown.count("every 1 s") == 2
    assert frames(io.StringIO(), is_plain=True) == "".join(f"line {n}\n{'x' * 100}\n" for n in range(2))


def test_ctrl_c_ends_it_and_is_no_failure() -> None:
    seen = []
    with until_interrupted():
        for number in numbered(None):
            seen.append(number)
            if number == 3:
                raise KeyboardInterrupt
    assert seen == [0, 1, 2, 3]


def test_a_database_that_was_away_is_connected_again(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opened: list[str] = []

    def open_it(lane: str) -> AbstractContextManager[LaneAdmin]:
        opened.append(lane)
        return lane_admin(lane)

    def is_away(*_: object) -> None:
        raise DatabaseUnavailable("it is away")

    monkeypatch.setattr("coordinator.operate.lane_status.lane_admin", open_it)
    with LaneLooks(["users"]) as looks:
        assert looks.look(0.01)[0].sequence == 0
        assert looks.look(0.01)[0].sequence == 0
        assert opened == ["users"], "the connection is kept"
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr("coordinator.operate.lane_status.take_state", is_away)
            assert "it is away" in looks.look(0.01)[0].errors[0]
        assert looks.look(0.01)[0].sequence == 0
        assert opened == ["users", "users"]


def view(rate: float | None, *kinds: KindOfCommand) -> LaneView:
    return LaneView(
        state="running",
        why=None,
        status=LaneStatus(lane="seats", rate=rate),
        backlog=0,
        is_least=False,
        oldest_s=None,
        latency=None,
        kinds=list(kinds),
        full=None,
        effects=None,
        processes=[],
        point=LanePoint(0.0, 0, rate, None),
        recent=[],
    )


def kind(status: str, commands: int) -> KindOfCommand:
    return KindOfCommand(type="seats.book", status=status, commands=commands, p50_ms=1.0, p95_ms=2.0)


def test_a_kind_s_rate_is_its_share_of_its_lane_s() -> None:
    applied, rejected = kind("applied", 30), kind("rejected", 10)
    assert rated({"seats": view(200.0, rejected, applied), "idle": view(0.0)}) == [(150.0, applied), (50.0, rejected)]
    assert rated({"seats": view(None, applied)}) == [(None, applied)]
    assert rated({"seats": view(None)}) == []


def test_how_long_the_oldest_has_waited_is_said_to_be_the_least() -> None:
    """Somebody looks for the first time at a lane in which something has waited for long."""
    waits = replace(view(0.0), backlog=1, oldest_s=0.9)
    assert lane_row("seats", waits)[2:4] == (1, "0.9+")
    assert lane_row("seats", view(0.0))[3] is None
