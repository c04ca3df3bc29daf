"""Every cell of the table of the operations gateway in docs/WHO_MAY.md, by its HTTP interface."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen
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
        self.url, self.credential = url, credential
        self.asked: list[tuple[str, str]] = []
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self._mark = ""
        self.signed_in = self.ask("POST", "/api/session", {"key": credential or "none"})
        if self.signed_in[0] == 204:
            self._mark = self.ask("GET", "/api/session")[1]["mark"]

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = NO_HEADERS) -> tuple[int, Any]:
        """The status, and what the answer holds: JSON as an object, anything else as text, of events the first."""
        self.asked.append((method, path))
        sent = {"Content-Type": "application/json", "Operations-Mark": self._mark, **headers}
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._opener.open(Request(self.url + path, data, sent, method=method), timeout=30) as response:
                kind = response.headers.get_content_type()
                if kind == "text/event-stream":
                    return response.status, next(line.decode() for line in response if line.startswith(b"data:"))
                raw = response.read()
                return response.status, json.loads(raw) if kind == "application/json" else raw.decode()
        except HTTPError as error:
            return error.code, json.loads(error.read())

    def act(self, act: str, headers: Mapping[str, str] = NO_HEADERS, **body: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/api/lanes/{LANE}/{act}", {"reason": "to try it", **body}, headers)


def _is_signed_in(url: str, credential: str | None) -> bool:
    return Browser(url, credential).signed_in[0] == 204


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
        for last in ("operator", "operator of items"):
            # The keys of each lane are read by themselves.
            wait_until(partial(_is_signed_in, url, credentials[last]), f"the key of {last} counts")
        self.browsers = {role: Browser(url, credential) for role, credential in credentials.items()}
        wait_until(
            lambda: self._counts(credentials["Ada"], system.urls[LANE]), "Ada's key counts at the lane's gateway"
        )
        self.key = uuid4().hex
        self.keyed = self._asked_for(credentials["Ada"], system.urls[LANE])
        self.command_id = self.publish("users.create", {"name": "Ada", "email": f"{uuid4().hex}@example.org"})
        self.operate("pause", LANE, "--reason", "there is an act")
        self.operate("resume", LANE)

    def close(self) -> None:
        self._engine.dispose()

    def value(self, statement: str) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    def _counts(self, key: str | None, url: str) -> bool:
        """Each gateway reads the lane's keys for itself: that one has read them tells nothing of another."""
        try:
            with urlopen(Request(f"{url}/users", headers={"Authorization": f"Bearer {key}"}), timeout=30):
                return True
        except HTTPError as error:
            if error.code == 401:
                return False
            raise

    def _asked_for(self, key: str | None, url: str) -> int:
        """A user whom Ada has made with the idempotency key."""
        sent = {"Content-Type": "application/json", "Idempotency-Key": self.key, "Authorization": f"Bearer {key}"}
        body = json.dumps({"name": SECRET, "email": f"{self.key}@example.org"}).encode()
        with urlopen(Request(f"{url}/users", body, sent), timeout=30) as response:
            return int(json.loads(response.read())["id"])

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
        found = path.format(**vars(stage))
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


def began(_: Stage) -> Trial:
    def attempt(browser: Browser) -> Answer:
        another = Browser(browser.url, browser.credential)
        browser.asked.append(another.asked[0])
        return another.signed_in

    return attempt, lambda answer: answer[0] == 204


def ended(_: Stage) -> Trial:
    """Of a session of its own, so that the other one goes on."""
    others: list[Browser] = []

    def attempt(browser: Browser) -> Answer:
        others.append(Browser(browser.url, browser.credential))
        answer = others[0].ask("DELETE", "/api/session")
        browser.asked.append(others[0].asked[-1])
        return answer

    return attempt, lambda _: others[0].ask("GET", "/api/session")[0] == 401


def has_row(stage: Stage, found: Any) -> bool:
    return (LANE, str(stage.keyed)) in [(each["lane"], each["key"]) for each in found["rows"]]


TRIALS: Final[dict[str, Callable[[Stage], Trial]]] = {
    "ask whether the gateway runs": read("/healthz", lambda _, found: found["status"] == "ok"),
    "ask whether it is ready": read("/readyz", lambda _, found: found["status"] == "ready"),
    "read its metrics": read("/metrics", lambda _, found: "coordinator_" in found),
    "read its pages, without what they show": read("/", lambda _, found: "/assets/app.js" in found),
    "load their script": read("/assets/app.js", lambda _, found: "import" in found),
    "read the page that shows its routes": read("/docs", lambda _, found: "/docs/assets/docs.js" in found),
    "load the script of that": read("/docs/assets/docs.js", lambda _, found: "fetch(" in found),
    "read its OpenAPI document": read("/openapi.json", lambda _, found: found["openapi"].startswith("3.1")),
    "read what a problem means": read("/problems/unauthenticated", lambda _, found: "no session" in found),
    "begin a session": began,
    "end it": ended,
    "see the lane": read("/api/session", lambda _, found: LANE in [each["name"] for each in found["lanes"]]),
    "follow the lane live": read("/api/events", lambda _, found: f'"{LANE}":' in found),
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
    "find a row by its key": read(f"/api/find?what={LANE}/{{keyed}}", has_row),
    "find a row by a unique value": read(f"/api/find?what={LANE}%3Femail%3D{{key}}@example.org", has_row),
    "see what it holds": read(f"/api/find?what={LANE}/{{keyed}}", lambda _, found: SECRET in json.dumps(found)),
    "find a command by its idempotency key": read(
        "/api/find?what={key}&subject=ada", lambda _, found: found["commands"]
    ),
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
        browser = stage.browsers[role]
        before = len(browser.asked)
        answer = attempt(browser)
        assert all(act.is_by(*asked) for asked in browser.asked[before:]), browser.asked[before:]
        refusal = None if answer[0] < 400 else str(answer[0])
        if had_effect(answer):
            got[role] = "yes" if refusal is None else f"{refusal}, and yet with an effect"
        else:
            got[role] = refusal or "hidden"
    assert wrong_cells(act, got) == []
