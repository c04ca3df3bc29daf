"""Every cell of the tables of HTTP in docs/WHO_MAY.md, on the reference system."""

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from click.testing import CliRunner
from pydantic import SecretStr
from sqlalchemy import text

from coordinator.cli import cli
from coordinator.service.ids import system_command_id
from shared.payments.sandbox.webhooks import signature
from shared.payments.settings import StripeSettings
from shared.payments.stripe_metadata import MetadataKey
from tests.e2e.who_may.conftest import ISSUER_KEY, LANES, TOKENS
from tests.e2e.who_may.table import Act, acts_of, wrong_cells
from tests.support.callers import HEADERS
from tests.support.databases import sql_engine
from tests.support.issuer import key_set
from tests.support.monolith import Monolith
from tests.support.system import STOP_TIMEOUT_S, System, wait_until

# Of the two processes of a run, one starts the whole system.
pytestmark = [pytest.mark.xdist_group("who_may"), pytest.mark.doors]

ACTS = acts_of("Through HTTP")
EVENTS = acts_of("Events of the provider")
ITEM: Final = {"name": "Lamp", "price": 250, "currency": "EUR", "stock": 1000}
NOBODYS: Final = ["see the user in the answer to a credit", "send a command that only the system may"]
CODES: Final = {"forbidden": "403", "internal_command": "403", "user_not_found": "404", "idempotency_mismatch": "422"}
_numbers = itertools.count(1)


class Answer:
    """What a gateway said."""

    def __init__(self, status: int, raw: bytes) -> None:
        self.status = status
        self.text = raw.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def refusal(self) -> str | None:
        """The status; of a command in a list that of its outcome. None: it is done."""
        if self.status >= 400:
            return str(self.status)
        if self.text.startswith('[{"command_id"') and (error := self.json[0]["error"]) is not None:
            return CODES[error["code"]]
        return None


Body = Callable[["Stage", int], Any]
"""A body, with a number that no other one has."""
Call = Callable[..., Answer]
Trial = tuple[Callable[[Call], Answer], Callable[[Answer], object]]
"""Tries an act as a role; and asks whether it had its effect, or brought what it is for."""


class Stage:
    """Who is there, and what is theirs: Ada has bought, and so has a user, a purchase, a payment and a reservation."""

    def __init__(self, system: System | Monolith) -> None:
        self.system = system
        self._engines = {lane: sql_engine(system.owner(lane)) for lane in ("users", "payments")}
        self.keys: dict[str, str | None] = {"no key": None}
        for role, subject, *options in (
            ("Ada", "ada"),
            ("Bob", "bob"),
            ("other Ada", "ada", "--tenant", "acme"),
            *(
                (scope, f"of-{scope}", "--scope", scope)
                for scope in ("cashier", "stock", "payments", "staff", "operator")
            ),
            ("old key", "ada", "--expires", "1s"),
            ("revoked", "ada"),
        ):
            self.keys[role] = self._operate("create", *LANES, "--subject", subject, *options)["key"]
        # The same people and scopes, as an issuer of tokens says.
        lasts: dict[str, Any] = {"exp": int(time.time()) + 3600}
        self.tokens: dict[str, str | None] = {
            "no key": None,
            "old key": ISSUER_KEY.token(sub="ada", exp=1),
            "Ada": ISSUER_KEY.token(sub="ada", **lasts),
            "Bob": ISSUER_KEY.token(sub="bob", **lasts),
            "other Ada": ISSUER_KEY.token(sub="ada", tenant="acme", **lasts),
            **{
                scope: ISSUER_KEY.token(sub=f"of-{scope}", scope=scope, **lasts)
                for scope in ("cashier", "stock", "payments", "staff", "operator")
            },
        }
        self._operate("revoke", *LANES, "--id", str(self.keys.pop("revoked")).split("_")[1])
        self.all = self.caller(HEADERS["Authorization"].removeprefix("Bearer "))
        for role, key in self.keys.items():
            if key is not None:
                expected = 401 if role == "old key" else 404
                wait_until(lambda key=key, is_=expected: self._counts(key) == is_, f"the key of {role}")  # type: ignore[misc]
        self.ada, self.bob = self.caller(self.keys["Ada"]), self.caller(self.keys["Bob"])
        self.command_id = str(uuid4())
        self.signed_up = {"name": "Ada", "email": "ada@example.org"}
        self.user = self.ada("POST", "users", "/users", self.signed_up, Command_Id=self.command_id).json["id"]
        self.bobs = self.bob("POST", "users", "/users", {"name": "Bob", "email": "bob@example.org"}).json["id"]
        self.all("POST", "users", f"/users/{self.user}/credit", {"amount": 10_000})
        self.item = self.all("POST", "items", "/items", ITEM).json["id"]
        self.order = {"item_id": self.item, "quantity": 1, "payment_method": "pm_card_visa"}
        bought = self.ada("POST", "users", f"/users/{self.user}/purchases", self.order, Prefer="wait=20").json
        assert bought["status"] == "completed", bought
        self.purchase, self.payment = bought["id"], bought["payment_id"]
        self.refund = self.all("POST", "payments", f"/payments/{self.payment}/refunds", {"amount": 1}).json["id"]
        self._settled(self.payment)
        self._authorized: int | None = None

    def close(self) -> None:
        for engine in self._engines.values():
            engine.dispose()

    def caller(self, key: str | None) -> Call:
        def call(method: str, service: str, path: str, body: Any = None, **headers: str) -> Answer:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if key is not None:
                sent["Authorization"] = f"Bearer {key}"
            data = None
            if body is not None:
                sent["Content-Type"] = "application/json"
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
            url = self.system.urls[service] + path
            try:
                with urlopen(Request(url, data, sent, method=method), timeout=30) as response:
                    return Answer(response.status, response.read())
            except HTTPError as error:
                return Answer(error.code, error.read())

        return call

    def value(self, lane: str, statement: str) -> Any:
        with self._engines[lane].connect() as connection:
            return connection.execute(text(statement)).scalar()

    def fresh_user(self) -> int:
        """Another one of Ada's."""
        made = self.ada("POST", "users", "/users", {"name": "Ada", "email": f"a{next(_numbers)}@example.org"})
        return int(made.json["id"])

    def authorized(self) -> int:
        """A payment whose money is held, and not taken yet."""
        if self._authorized is not None and self.is_held(self._authorized):
            return self._authorized
        body = {"user_id": self.user, "amount": 100, "currency": "EUR", "payment_method": "pm_card_visa"}
        self._authorized = int(self.all("POST", "payments", "/payments", body).json["id"])
        self._settled(self._authorized)
        return self._authorized

    def is_held(self, payment: int) -> bool:
        """Whether a payment's money is held, and nothing is asked of the provider.

        In one read: he may answer between two.
        """
        held = (
            f"SELECT count(*) FROM payments WHERE id = {payment} AND status = 'authorized' AND pending_action IS NULL"
        )
        return bool(self.value("payments", held))

    def _settled(self, payment: int) -> None:
        pending = f"SELECT pending_action FROM payments WHERE id = {payment}"
        wait_until(lambda: self.value("payments", pending) is None, "the provider has answered")

    def _counts(self, key: str) -> int:
        path = "/commands/" + str(uuid4())
        found = {self.caller(key)("GET", lane, path).status for lane in LANES}
        return found.pop() if len(found) == 1 else 0

    def _operate(self, *arguments: str) -> Any:
        ran = CliRunner().invoke(cli, ["keys", *arguments, "--json"], env=self.system.environment)
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return json.loads(ran.stdout)


def asked(method: str, service: str, path: str, contains: str) -> Callable[[Stage], Trial]:
    """A read, whose answer has such a text; both with the stage's names."""

    def prepare(stage: Stage) -> Trial:
        names = vars(stage)
        return (
            lambda call: call(method, service, path.format(**names)),
            lambda answer: answer.status < 400 and contains.format(**names) in answer.text,
        )

    return prepare


def changed(method: str, service: str, path: str, body: Body, watched: str) -> Callable[[Stage], Trial]:
    """A write, after which a value of the database is another one."""

    def prepare(stage: Stage) -> Trial:
        names = vars(stage)
        before = stage.value(service, watched.format(**names))
        return (
            lambda call: call(method, service, path.format(**names), body(stage, next(_numbers))),
            lambda _: stage.value(service, watched.format(**names)) != before,
        )

    return prepare


def closed(stage: Stage) -> Trial:
    user = stage.fresh_user()
    return (
        lambda call: call("DELETE", "users", f"/users/{user}"),
        lambda _: stage.value("users", f"SELECT count(*) FROM users WHERE id = {user}") == 0,
    )


def bought(stage: Stage) -> Trial:
    before = stage.value("users", "SELECT count(*) FROM purchases")
    return (
        lambda call: call("POST", "users", f"/users/{stage.user}/purchases", stage.order),
        lambda _: stage.value("users", "SELECT count(*) FROM purchases") != before,
    )


def repeated(stage: Stage) -> Trial:
    return (
        lambda call: call("POST", "users", "/users", stage.signed_up, Command_Id=stage.command_id),
        lambda answer: answer.status < 400 and answer.json["id"] == stage.user,
    )


def credited(stage: Stage) -> Trial:
    """A credit of nothing, to see whose account it is."""
    return (
        lambda call: call("POST", "users", f"/users/{stage.user}/credit", {"amount": 0}),
        lambda answer: "ada@example.org" in answer.text,
    )


def of_the_system(stage: Stage) -> Trial:
    counted = "SELECT count(*) FROM command_log WHERE type = 'users.continue_purchase'"
    before = stage.value("users", counted)
    arguments = {"command_id": stage.command_id, "lane": "items", "status": "applied", "sequence": 1}
    return (
        lambda call: call("POST", "users", "/commands", [{"type": "users.continue_purchase", "args": arguments}]),
        lambda _: (
            stage.value("users", "SELECT count(*) FROM command_log WHERE type = 'users.continue_purchase'") != before
        ),
    )


def of_the_item(method: str, path: str, body: Any) -> Callable[[Stage], Trial]:
    def prepare(stage: Stage) -> Trial:
        def seen() -> list[str]:
            return [stage.all("GET", "items", each).text for each in ("/items?limit=200", f"/items/{stage.item}")]

        before = seen()
        sent = {"price": 250 + next(_numbers)} if method == "PATCH" else body
        return lambda call: call(method, "items", path.format(**vars(stage)), sent), lambda _: seen() != before

    return prepare


def released(stage: Stage) -> Trial:
    reserved = stage.all("POST", "items", f"/items/{stage.item}/reservations", {"quantity": 1}).json["id"]
    before = stage.all("GET", "items", f"/items/{stage.item}").json["stock"]
    return (
        lambda call: call("DELETE", "items", f"/items/{stage.item}/reservations/{reserved}"),
        lambda _: stage.all("GET", "items", f"/items/{stage.item}").json["stock"] == before + 1,
    )


def priced(stage: Stage) -> Trial:
    command = {"type": "items.quote", "args": {"id": stage.item}}
    return (
        lambda call: call("POST", "items", "/commands", [command]),
        lambda answer: answer.status < 400 and answer.json[0]["status"] == "applied",
    )


def of_the_money(path: str) -> Callable[[Stage], Trial]:
    def prepare(stage: Stage) -> Trial:
        payment = stage.authorized()
        return (
            lambda call: call("POST", "payments", f"/payments/{payment}/{path}"),
            lambda _: not stage.is_held(payment),
        )

    return prepare


CREDIT: Final = "SELECT credit FROM users WHERE id = {user}"
NAME: Final = "SELECT name FROM users WHERE id = {user}"


def _sign_up(_: Stage, number: int) -> Any:
    return {"name": "N", "email": f"n{number}@example.org"}


def _rename(_: Stage, number: int) -> Any:
    return {"name": f"Ada{number}"}


def _rename_command(stage: Stage, number: int) -> Any:
    return [{"type": "users.update", "args": {"id": stage.user, "name": f"Ada{number}"}}]


def _transfer(stage: Stage, _: int) -> Any:
    return {"from": stage.user, "to": stage.bobs, "amount": 1}


def _payment(stage: Stage, _: int) -> Any:
    return {"user_id": stage.user, "amount": 5, "currency": "EUR"}


def _amount(_: Stage, __: int) -> Any:
    return {"amount": 1}


TRIALS: Final[dict[str, Callable[[Stage], Trial]]] = {
    "ask whether a gateway runs": asked("GET", "users", "/healthz", "ok"),
    "ask whether a gateway is ready": asked("GET", "users", "/readyz", "ready"),
    "read a gateway's metrics": asked("GET", "users", "/metrics", "coordinator_"),
    "come to the page that shows a gateway's routes": asked("GET", "users", "/", "/docs/assets/docs.js"),
    "read the page that shows a gateway's routes": asked("GET", "users", "/docs", "/docs/assets/docs.js"),
    "load its script": asked("GET", "users", "/docs/assets/docs.js", "fetch("),
    "read what a problem means": asked("GET", "users", "/problems/unauthenticated", "no credential"),
    "read the OpenAPI document of a gateway": asked("GET", "users", "/openapi.json", '"openapi":"3.1'),
    "list the types of commands": asked("GET", "users", "/schemas", '"users.create"'),
    "read the JSON Schema of a command": asked("GET", "users", "/schemas/users.create/1", '"email"'),
    "sign up": changed("POST", "users", "/users", _sign_up, "SELECT count(*) FROM users"),
    "see the user": asked("GET", "users", "/users/{user}", "ada@example.org"),
    "list users": asked("GET", "users", "/users?limit=200", "ada@example.org"),
    "rename the user": changed("PATCH", "users", "/users/{user}", _rename, NAME),
    "rename the user by `POST /commands`": changed("POST", "users", "/commands", _rename_command, NAME),
    "close the user's account": closed,
    "credit the user": changed("POST", "users", "/users/{user}/credit", _amount, CREDIT),
    "give the user's credit to Bob": changed("POST", "users", "/transfers", _transfer, CREDIT),
    "buy for the user": bought,
    "see the purchase": asked("GET", "users", "/purchases/{purchase}", '"status":"completed"'),
    "list the user's purchases": asked("GET", "users", "/users/{user}/purchases", '"status":"completed"'),
    "see the totals of the user's purchases": asked("GET", "users", "/users/{user}/purchases/totals", '"EUR"'),
    "see the user in the answer to a credit": credited,
    "see the outcome of a command of the user's": asked("GET", "users", "/commands/{command_id}", '"applied"'),
    "see the user in that outcome": asked("GET", "users", "/commands/{command_id}", "ada@example.org"),
    "get it by sending the command again": repeated,
    "send a command that only the system may": of_the_system,
    "see an item": asked("GET", "items", "/items/{item}", "Lamp"),
    "list items": asked("GET", "items", "/items", "Lamp"),
    "ask for a price": priced,
    "make an item": of_the_item("POST", "/items", ITEM),
    "change an item's price": of_the_item("PATCH", "/items/{item}", None),
    "reserve an item": of_the_item("POST", "/items/{item}/reservations", {"quantity": 1}),
    "release the purchase's reservation": released,
    "open a payment": changed("POST", "payments", "/payments", _payment, "SELECT count(*) FROM payments"),
    "see the payment": asked("GET", "payments", "/payments/{payment}", '"user_id"'),
    "list payments": asked("GET", "payments", "/payments?limit=200", '"id":{payment},'),
    "refund the payment": changed(
        "POST", "payments", "/payments/{payment}/refunds", _amount, "SELECT count(*) FROM refunds"
    ),
    "list the payment's refunds": asked("GET", "payments", "/payments/{payment}/refunds", '"id":{refund},'),
    "see a refund": asked("GET", "payments", "/payments/{payment}/refunds/{refund}", '"id":{refund},'),
    "take a payment's money": of_the_money("capture"),
    "give a payment's money back": of_the_money("reversal"),
}


@pytest.fixture(scope="module", params=["servers", "one process"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if request.param == "one process":
        yield from _of_one_process(tmp_path_factory.mktemp("who_may_monolith"))
        return
    running: System = request.getfixturevalue("running")
    worker = running.start_effects("payments")
    made = Stage(running)
    yield made
    made.close()
    # The queue of effects is for others to try.
    worker.stop(signal.SIGTERM, STOP_TIMEOUT_S)
    assert worker.exit_status == 0, worker.status


def _of_one_process(folder: Path) -> Iterator[Stage]:
    (folder / "issuer.json").write_bytes(key_set(ISSUER_KEY))
    told = TOKENS | {"ACCESS_TOKEN_KEYS": str(folder / "issuer.json"), "ACCESS_KEYS_REFRESH_S": "0.2"}
    monolith = Monolith(folder, **told)
    try:
        monolith.start()
        monolith.admit_caller()
        made = Stage(monolith)
        yield made
        made.close()
        assert monolith.stop() == 0
    finally:
        if monolith.process is not None:
            monolith.process.kill()


def test_each_act_is_tried() -> None:
    assert [act.name for act in ACTS] == list(TRIALS)
    assert [act.name for act in ACTS if "yes" not in act.gets.values()] == NOBODYS


@pytest.mark.parametrize("credentials", ["keys", "tokens"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_who_may(act: Act, stage: Stage, credentials: str) -> None:
    given: dict[str, str | None] = getattr(stage, credentials)
    got = {}
    for role in act.gets:
        attempt, had_effect = TRIALS[act.name](stage)
        answer = attempt(_by_its_route(act, stage.caller(given[role])))
        effect = had_effect(answer)
        if effect:
            got[role] = "yes" if answer.refusal is None else f"{answer.refusal}, and yet with an effect"
        else:
            got[role] = answer.refusal or _less(act, answer, stage)
    assert wrong_cells(act, got) == []


def _by_its_route(act: Act, call: Call) -> Call:
    def checked(method: str, service: str, path: str, body: Any = None, **headers: str) -> Answer:
        assert act.is_by(method, path), (method, path)
        return call(method, service, path, body, **headers)

    return checked


def _less(act: Act, answer: Answer, stage: Stage) -> str:
    """How an answer is told in the table that is no refusal, and has not what it was asked for."""
    if act.name.startswith("list"):
        return "own"
    of_outcome = {"result": {"id": stage.user}}
    is_key = answer.json == of_outcome["result"] or answer.json | of_outcome == answer.json
    return "key" if is_key else f"without effect: {answer.text}"


@pytest.mark.parametrize("act", EVENTS, ids=lambda act: act.name)
def test_who_may_report_an_event(act: Act, stage: Stage) -> None:
    environment = stage.system.environment
    secret, now = environment["STRIPE_WEBHOOK_SECRET"], int(time.time())
    settings = StripeSettings(metadata_key=SecretStr(environment["STRIPE_METADATA_KEY"]))
    provider_id = stage.value("payments", f"SELECT provider_id FROM payments WHERE id = {stage.payment}")
    thing = {
        "id": provider_id,
        "object": "payment_intent",
        **dict.fromkeys(("amount", "amount_received"), 250),
        "currency": "eur",
        "status": "succeeded",
        "metadata": MetadataKey(settings).metadata(stage.payment, "k"),
    }
    answers: dict[str, Answer] = {}
    ids: dict[str, str] = {}
    for role, key, at in (
        ("unsigned", None, now),
        ("signed with another secret", "whsec_other", now),
        ("signed a day ago", secret, now - 86_400),
        ("provider", secret, now),
    ):
        event_id = f"evt_{uuid4().hex}"
        ids[role] = system_command_id("payments", "stripe", event_id)
        event = {"id": event_id, "created": now, "type": "payment_intent.succeeded", "data": {"object": thing}}
        body = json.dumps(event).encode()
        headers = {} if key is None else {"Stripe_Signature": signature(body, key, at)}
        answers[role] = stage.caller(None)("POST", "payments", "/webhooks/stripe", body, **headers)
    counted = "SELECT count(*) FROM command_log WHERE command_id = '{}'"
    # The provider's came last: what came before it is settled, too.
    wait_until(lambda: stage.value("payments", counted.format(ids["provider"])) == 1, "the event is settled")
    taken = {role for role, command_id in ids.items() if stage.value("payments", counted.format(command_id))}
    assert taken == {"provider"}
    assert wrong_cells(act, {role: answer.refusal or "yes" for role, answer in answers.items()}) == []
