"""What an operator is told where nobody has answered: that it may be done, and not that it is not (exit status 3)."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

from coordinator.lane.control import DiscardLetter
from coordinator.operate import giving_orders, send
from coordinator.service.errors import BrokerUnavailable, OutcomeUnknown
from coordinator.stores.open import open_admin
from tests.unit.test_operate_letters import World, world

__all__ = ("world",)

NOT_KNOWN = 3
GHOST = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"


@pytest.fixture
def is_lost(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Have the database commit, or not, and its connection be lost before it says so."""
    commit: Callable[..., None] = DefaultDialect.do_commit

    def lose(is_committed: bool) -> None:
        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            is_change = connection.in_transaction
            if is_committed or not is_change:
                commit(dialect, connection)
            if is_change:
                raise sqlite3.OperationalError("the connection is gone")

        monkeypatch.setattr(DefaultDialect, "do_commit", do_commit)
        monkeypatch.setattr(SQLiteDialect_pysqlite, "is_disconnect", lambda *_: True)

    return lose


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize(
    "asked",
    [
        ("pause", "users", "--reason", "moving the disk"),
        ("cancel", GHOST, "--lane", "users"),
        ("keys", "secret", "users", "--new"),
    ],
)
def test_a_change_whose_commit_nobody_answers_may_be_done(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    is_lost: Callable[[bool], None],
    asked: tuple[str, ...],
    *,
    is_committed: bool,
) -> None:
    world.run("pause", "users", "--reason", "before")
    is_lost(is_committed)
    ran = world.run(*asked, expect=NOT_KNOWN)
    monkeypatch.undo()
    assert "the change may be made: look, and repeat it" in ran.stderr
    assert ran.stdout == ""


def test_what_is_lost_before_its_commit_is_not_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise sqlite3.OperationalError("the connection is gone")

    monkeypatch.setattr(DefaultDialect, "do_execute", lost)
    ran = world.run("pause", "users", "--reason", "moving the disk", expect=1)
    monkeypatch.undo()
    assert "may be made" not in ran.stderr
    with closing(open_admin(world.environment["USERS_DATABASE_URL"], "users")) as admin:
        lease = admin.state().lease
        assert lease is not None
        assert lease.paused is None


@pytest.mark.parametrize(("error", "status"), [(OutcomeUnknown, NOT_KNOWN), (BrokerUnavailable, 1)])
def test_a_command_whose_confirm_is_lost_may_be_applied(
    world: World, monkeypatch: pytest.MonkeyPatch, error: type[BrokerUnavailable], status: int
) -> None:
    def issue(*_: object) -> None:
        raise error("the confirm is lost")

    monkeypatch.setattr(send, "issue", issue)
    ran = world.run("drain", "users", expect=status)
    assert "the confirm is lost" in ran.stderr


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_key_whose_commit_nobody_answers_may_be_made_or_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, is_lost: Callable[[bool], None], *, is_committed: bool
) -> None:
    made = world.run("keys", "create", "users", "--subject", "ada", "--json")
    key_id = json.loads(made.stdout)["id"]
    is_lost(is_committed)
    ran = world.run("keys", "create", "users", "--subject", "bob", expect=NOT_KNOWN)
    assert ran.stdout.startswith("wck_")
    assert "in users the key may be made" in ran.stderr
    ran = world.run("keys", "revoke", "users", "--id", key_id, expect=NOT_KNOWN)
    monkeypatch.undo()
    assert "the key may count on in users: repeat this for users" in ran.stderr


def test_orders_of_which_one_may_be_carried_out_are_not_called_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others were certainly not sent."""
    errors: Iterator[Exception] = iter([BrokerUnavailable("away"), OutcomeUnknown("its confirm is lost")])

    async def given(*_: object) -> None:
        raise next(errors)

    monkeypatch.setattr(giving_orders, "_require_queue", lambda _: None)
    monkeypatch.setattr(giving_orders, "_writes", lambda *_: nullcontext())
    monkeypatch.setattr(giving_orders, "_given", given)
    orders = [DiscardLetter(letter=letter, by="me", reason="") for letter in (1, 2)]
    with pytest.raises(OutcomeUnknown):
        giving_orders.give("users", orders, 1.0, lambda _: None)
