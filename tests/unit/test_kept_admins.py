"""The databases that pages ask stay connected between two questions, and are connected anew where that has ended."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coordinator.operations.kept_admins import KEPT_MAX, KEPT_S, SILENCE_S, KeptAdmins
from coordinator.service.errors import DatabaseUnavailable


class Admin:
    """A connection."""

    is_away = False
    is_closed = False

    def sequence(self) -> int:
        if self.is_away:
            raise DatabaseUnavailable("it has ended")
        return 7


class Connecting:
    """Counts what it opens, with a clock that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[Admin] = []
        self.now_s = 0.0
        monkeypatch.setattr("coordinator.operations.kept_admins.lane_admin", self.open)
        self.admins = KeptAdmins(lambda: self.now_s)

    @contextmanager
    def open(self, _: str, *, silence_s: float) -> Iterator[Admin]:
        assert silence_s == SILENCE_S
        admin = Admin()
        self.opened.append(admin)
        yield admin
        admin.is_closed = True

    def used(self, lane: str = "seats") -> object:
        with self.admins.opened(lane) as admin:
            return admin

    @property
    def open_now(self) -> int:
        return sum(not each.is_closed for each in self.opened)


@pytest.fixture
def connecting(monkeypatch: pytest.MonkeyPatch) -> Connecting:
    return Connecting(monkeypatch)


def test_the_next_question_has_the_connection_of_the_one_before(connecting: Connecting) -> None:
    assert connecting.used() is connecting.used() is connecting.used()
    assert connecting.used("orders") is not connecting.used()
    assert len(connecting.opened) == 2


def test_no_two_have_one_and_few_are_kept(connecting: Connecting) -> None:
    admins = connecting.admins
    with admins.opened("seats") as one, admins.opened("seats") as two, admins.opened("seats") as three:
        assert len({id(one), id(two), id(three)}) == 3
    assert connecting.open_now == KEPT_MAX < 3


@pytest.mark.parametrize("has_ended", [True, False])
def test_what_has_ended_or_waited_for_long_is_connected_anew(connecting: Connecting, has_ended: bool) -> None:
    first = connecting.used()
    if has_ended:
        connecting.opened[0].is_away = True
    else:
        connecting.now_s = KEPT_S + 1
    assert connecting.used() is not first
    assert (connecting.open_now, connecting.opened[0].is_closed) == (1, True)


def test_after_an_error_nothing_is_kept(connecting: Connecting) -> None:
    with pytest.raises(DatabaseUnavailable), connecting.admins.opened("seats"):
        raise DatabaseUnavailable("it went")
    assert connecting.open_now == 0


def test_what_is_in_use_at_the_end_is_closed_when_it_is_done(connecting: Connecting) -> None:
    connecting.used()
    with connecting.admins.opened("seats"), connecting.admins.opened("seats"):
        connecting.admins.close()
    assert (len(connecting.opened), connecting.open_now) == (2, 0)
