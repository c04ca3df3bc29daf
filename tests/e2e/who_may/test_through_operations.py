"""Every cell of the table of the operations gateway in docs/WHO_MAY.md, by its HTTP interface."""

import json
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener
from uuid import uuid4

import pika
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from coordinator.cli import cli
from tests.e2e.who_may.conftest import ISSUER_KEY, TOKENS
from tests.e2e.who_may.table import Act, acts_of, wrong_cells
from tests.support.callers import ACCESS, key_of
from tests.support.databases import sql_engine
from tests.support.system import System, wait_until

# Of the two processes of a run, one starts the whole system.
pytestmark = [pytest.mark.xdist_group("who_may"), pytest.mark.doors]

ACTS = acts_of("Through the operations gateway")
LANE: Final = "users"
LANES: Final = (LANE, "items")
SECRET: Final = "told to nobody"
NOBODYS: Final = ["pause the lane from another site's page"]
NO_HEADERS: Mapping[str, str] = {}


class Browser:
    """Somebody's, who signs in with a credential, if he has one. Where that does not count he goes on without."""

    def __init__(self, url: str, credential: str | None) -> None:
        self._url = url
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self._mark = ""
        if credential is not None and self.ask("POST", "/api/session", {"key": credential})[0] == 204:
            self._mark = self.ask("GET", "/api/session")[1]["mark"]

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = NO_HEADERS) -> tuple[int, Any]:
        """The status, and what the answer holds."""
        sent = {"Content-Type": "application/json", "Operations-Mark": self._mark, **headers}
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._opener.open(Request(self._url + path, data, sent, method=method), timeout=30) as response:
                raw = response.read()
                return response.status, json.loads(raw) if raw else None
        except HTTPError as error:
            return error.code, json.loads(error.read())

    def act(self, act: str, headers: Mapping[str, str] = NO_HEADERS, **body: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/api/lanes/{LANE}/{act}", {"reason": "to try it", **body}, headers)


class Stage:
    """A lane with a settled command, and dead letters as they are wanted; and who looks at it."""

    def __init__(self, system: System, url: str) -> None:
        self._system = system
        self._engine = sql_engine(system.owner(LANE))
        owners = {lane: system.owner(lane) for lane in LANES}
        in_lane = {LANE: owners[LANE]}
        credentials: dict[str, str | None] = {
            "no key": None,
            "Ada": key_of("ada", owners),
            "viewer": key_of("vic", in_lane, "viewer"),
            "operator": key_of("otto", in_lane, "operator"),
            "operator of items": key_of("ida", {"items": owners["items"]}, "operator"),
            "old token": ISSUER_KEY.token(sub="otto", scope="operator", exp=1),
            "Ada's token": ISSUER_KEY.token(sub="ada", scope="cashier staff"),
            "viewer's token": ISSUER_KEY.token(sub="vic", scope="viewer"),
            "operator's token": ISSUER_KEY.token(sub="otto", scope="operator cashier"),
        }
        wait_until(
            lambda: Browser(url, credentials["operator of items"]).ask("GET", "/api/session")[0] == 200, "keys count"
        )
        self.browsers = {role: Browser(url, credential) for role, credential in credentials.items()}
        self.command_id = self.publish("users.create", {"name": "Ada", "email": f"{uuid4().hex}@example.org"})
        self.operate("pause", LANE, "--reason", "there is an act")
        self.operate("resume", LANE)

    def close(self) -> None:
        self._engine.dispose()

    def value(self, statement: str) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    def publish(self, command_type: str, arguments: Mapping[str, str], priority: int | None = None) -> str:
        """The id of a command that is settled by now."""
        command_id = str(uuid4())
        with self._system.broker() as channel:
            properties = pika.BasicProperties(
                message_id=command_id, type=command_type, delivery_mode=2, priority=priority
            )
            channel.basic_publish("writes", LANE, json.dumps(arguments), properties, mandatory=True)
        wait_until(lambda: self.value(f"SELECT count(*) FROM command_log WHERE command_id = '{command_id}'"), "settled")
        return command_id

    def letter(self) -> int:
        """Another dead letter, whose arguments are not for everybody."""
        # Of a priority that no lane takes, with nothing else wrong: it may be replayed.
        arguments = {"name": SECRET, "email": f"{uuid4().hex}@example.org"}
        command_id = self.publish("users.create", arguments, priority=5)
        return int(self.value(f"SELECT id FROM dead_letters WHERE command_id = '{command_id}'"))

    def is_there(self, letter: int) -> bool:
        return bool(self.value(f"SELECT count(*) FROM dead_letters WHERE id = {letter}"))

    def paused(self) -> Any:
        return self.value("SELECT paused FROM lane_lease")

    def operate(self, *arguments: str) -> None:
        ran = CliRunner().invoke(cli, arguments, env=self._system.environment)
        assert ran.exit_code == 0, (ran.output, ran.exception)


Answer = tuple[int, Any]
Trial = tuple[Callable[[Browser], Answer], Callable[[Answer], object]]
"""Tries an act as somebody; and asks whether it had its effect, or brought what it is for."""


def read(path: str, has: Callable[[Stage, Any], object]) -> Callable[[Stage], Trial]:
    def prepare(stage: Stage) -> Trial:
        found = path.format(command_id=stage.command_id)
        return lambda browser: browser.ask("GET", found), lambda answer: answer[0] == 200 and has(stage, answer[1])

    return prepare


def listed(stage: Stage) -> Trial:
    letter = stage.letter()
    path = f"/api/lanes/{LANE}/letters?after={letter - 1}"
    return (
        lambda browser: browser.ask("GET", path),
        lambda answer: answer[0] == 200 and [each["id"] for each in answer[1]["letters"]] == [letter],
    )


def searched(stage: Stage) -> Trial:
    letter = stage.letter()
    path = f"/api/lanes/{LANE}/letters?after={letter - 1}&contains=nobody"
    return (
        lambda browser: browser.ask("GET", path),
        lambda answer: answer[0] == 200 and [each["id"] for each in answer[1]["letters"]] == [letter],
    )


def letter_seen(has: Callable[[Any], object]) -> Callable[[Stage], Trial]:
    def prepare(stage: Stage) -> Trial:
        letter = stage.letter()
        return (
            lambda browser: browser.ask("GET", f"/api/lanes/{LANE}/letters/{letter}"),
            lambda answer: answer[0] == 200 and has(answer[1]),
        )

    return prepare


def paused(stage: Stage) -> Trial:
    stage.operate("resume", LANE)
    return lambda browser: browser.act("pause"), lambda _: stage.paused() is not None


def paused_from_elsewhere(stage: Stage) -> Trial:
    stage.operate("resume", LANE)
    without_mark = {"Operations-Mark": ""}
    return lambda browser: browser.act("pause", without_mark), lambda _: stage.paused() is not None


def resumed(stage: Stage) -> Trial:
    stage.operate("pause", LANE, "--reason", "to be resumed")
    return lambda browser: browser.act("resume"), lambda _: stage.paused() is None


def drained(stage: Stage) -> Trial:
    stage.operate("resume", LANE)
    counted = "SELECT count(*) FROM operator_acts WHERE act = 'drain'"
    before = stage.value(counted)
    return lambda browser: browser.act("drain"), lambda _: stage.value(counted) != before


def cancelled(stage: Stage) -> Trial:
    command_id = str(uuid4())
    counted = f"SELECT count(*) FROM cancellations WHERE command_id = '{command_id}'"
    return lambda browser: browser.act("cancel", command_id=command_id), lambda _: stage.value(counted)


def of_letter(act: str, **body: Any) -> Callable[[Stage], Trial]:
    def prepare(stage: Stage) -> Trial:
        stage.operate("resume", LANE)
        letter = stage.letter()
        return (
            lambda browser: browser.act(f"letters/{act}", letters=[letter], **body),
            lambda _: not stage.is_there(letter),
        )

    return prepare


TRIALS: Final[dict[str, Callable[[Stage], Trial]]] = {
    "see the lane": read("/api/session", lambda _, found: LANE in [each["name"] for each in found["lanes"]]),
    "list dead letters": listed,
    "see why a command is one": letter_seen(lambda found: found["code"] == "priority_not_taken"),
    "see its arguments": letter_seen(lambda found: SECRET in (found["text"] or "")),
    "search in arguments": searched,
    "list parked keys": read(f"/api/lanes/{LANE}/parked", lambda _, found: found["keys"] == []),
    "list commands": read(
        f"/api/lanes/{LANE}/commands?limit=200",
        lambda stage, found: stage.command_id in json.dumps(found),
    ),
    "see what became of a command": read(
        "/api/commands/{command_id}", lambda _, found: [each["lane"] for each in found["found"]] == [LANE]
    ),
    "see its result": read("/api/commands/{command_id}", lambda _, found: "@example.org" in json.dumps(found)),
    "see what operators did": read(
        f"/api/lanes/{LANE}/acts?limit=200", lambda _, found: "there is an act" in json.dumps(found)
    ),
    "pause the lane": paused,
    "pause the lane from another site's page": paused_from_elsewhere,
    "resume the lane": resumed,
    "drain the lane": drained,
    "cancel a command": cancelled,
    "replay a dead letter": of_letter("replay"),
    "edit and replay a dead letter": of_letter("replay", args={"name": "Ada", "email": "edited@example.org"}),
    "discard a dead letter": of_letter("discard"),
}


@pytest.fixture(scope="module")
def stage(running: System) -> Iterator[Stage]:
    running.start_operations(*LANES, **ACCESS | TOKENS)
    made = Stage(running, running.urls["operations"])
    yield made
    made.operate("resume", LANE)
    made.close()


def test_each_act_is_tried() -> None:
    assert [act.name for act in ACTS] == list(TRIALS)
    assert [act.name for act in ACTS if "yes" not in act.gets.values()] == NOBODYS


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_who_may(act: Act, stage: Stage) -> None:
    got = {}
    for role in act.gets:
        attempt, had_effect = TRIALS[act.name](stage)
        answer = attempt(stage.browsers[role])
        refusal = None if answer[0] < 400 else str(answer[0])
        if had_effect(answer):
            got[role] = "yes" if refusal is None else f"{refusal}, and yet with an effect"
        else:
            got[role] = refusal or "hidden"
    assert wrong_cells(act, got) == []
