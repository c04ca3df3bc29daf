"""Every cell of the table of the `coordinator` commands in docs/WHO_MAY.md: whoever has which addresses may do what."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from coordinator.cli import cli
from tests.e2e.who_may.table import Act, acts_of, wrong_cells
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

pytestmark = pytest.mark.doors

ACTS = acts_of("By the commands")
_names = itertools.count(1)

Words = Sequence[str]


class Stage:
    """The lane of users, which runs, and what an administrator sees of it."""

    def __init__(self, system: System) -> None:
        self._system = system

    def query(self, statement: str) -> list[tuple[object, ...]]:
        engine = sql_engine(self._system.owner("users"))
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(statement)).all()]
        finally:
            engine.dispose()

    def done(self) -> int:
        """How many things operators have done, and commands been sent as the system: that one tried to is kept, too."""
        sent = "SELECT count(*) FROM command_log WHERE type = 'users.create'"
        return sum(
            int(str(self.query(each)[0][0]))
            for each in ("SELECT count(*) FROM operator_acts WHERE act NOT IN ('send', 'forget asked')", sent)
        )

    def letter(self) -> str:
        """The number of a new dead letter."""
        command_id = str(uuid4())
        with self._system.broker() as channel:
            properties = pika.BasicProperties(message_id=command_id, type="users.credit", delivery_mode=2)
            channel.basic_publish("writes", "users", b"[]", properties, mandatory=True)
        found = f"SELECT id FROM dead_letters WHERE command_id = '{command_id}'"
        wait_until(lambda: bool(self.query(found)), "the letter")
        return str(self.query(found)[0][0])

    def paused_first(self, *words: str) -> Words:
        """These words, once the lane is paused."""
        self.operate("pause", "users", "--reason", "test")
        return words

    def operate(self, *words: str) -> None:
        """As an operator who may."""
        ran = CliRunner().invoke(cli, list(words), env=self._system.environment)
        assert ran.exit_code == 0, ran.output


def created() -> str:
    number = next(_names)
    return json.dumps({"name": "Ada", "email": f"{number}@by.example"})


COMMANDS: Final[dict[str, Callable[[Stage], Words]]] = {
    "see the state of a lane": lambda stage: ("status", "users", "--sample-s", "0"),
    "see dead letters": lambda stage: ("dead", "list", "users"),
    "see who did what": lambda stage: ("audit", "users", "--operators"),
    "pause a lane": lambda stage: ("pause", "users", "--reason", "test"),
    "let it go on": lambda stage: stage.paused_first("resume", "users"),
    "cancel a command": lambda stage: ("cancel", str(uuid4()), "--lane", "users"),
    "send a command as the system": lambda stage: ("send", "users.create", created(), "--wait", "20"),
    "replay a dead letter": lambda stage: (
        ("dead", "replay", "--letter", stage.letter(), "--lane", "users", "--args", '{"id": 1, "amount": 1}')
    ),
    "discard a dead letter": lambda stage: ("dead", "discard", "--letter", stage.letter(), "--lane", "users"),
    "forget a person": lambda stage: ("forget", "users", "999"),
    "make an API key": lambda stage: ("keys", "create", "users", "--subject", "ada"),
    "prune the log": lambda stage: ("log", "prune", "users", "--older-than", "400d"),
}
SEEN: Final = ("see the state of a lane", "see dead letters", "see who did what")


def test_each_act_is_tried() -> None:
    assert [act.name for act in ACTS] == list(COMMANDS)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_who_may(act: Act, running: System, accounts: dict[str, str], tmp_path: Path) -> None:
    lane, reader = running.environment["USERS_DATABASE_URL"], running.environment["USERS_READER_URL"]
    addresses = {
        "public": {"AMQP_URL": accounts["public"]},
        "gateway": {"AMQP_URL": accounts["gateway"], "USERS_DATABASE_URL": reader},
        "lane": {"AMQP_URL": accounts["another lane"], "USERS_DATABASE_URL": lane},
        "operator": {"AMQP_URL": accounts["operator"], "USERS_DATABASE_URL": lane},
    }
    stage = Stage(running)
    got = {role: _got(act.name, stage, addresses[role], running) for role in act.gets}
    assert wrong_cells(act, got) == []


def _got(name: str, stage: Stage, addresses: dict[str, str], system: System) -> str:
    words = COMMANDS[name](stage)
    before = stage.done()
    kept = {each: None for each in system.environment if each.endswith("_URL")}
    ran = CliRunner().invoke(cli, list(words), env={**system.environment, **kept, **addresses})
    has_effect = name in SEEN or stage.done() > before
    if name in ("pause a lane", "let it go on"):
        stage.operate("resume", "users")
    if ran.exit_code == 0:
        return "yes" if has_effect else "without effect"
    assert ran.exit_code in (1, 2), (words, ran.exit_code, ran.output, ran.exception)
    return "refused" if name in SEEN or not has_effect else "refused, and yet with an effect"
