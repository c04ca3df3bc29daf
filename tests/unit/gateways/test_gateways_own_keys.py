"""Idempotency keys belong to whoever asks."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from coordinator.access.authenticator import NotAuthentic
from coordinator.client.command_log import open_command_log
from coordinator.client.database import open_database
from coordinator.client.idempotency_secrets import LaneSecrets
from coordinator.http import app
from coordinator.http.app import ServedGateway
from coordinator.http.command_ids import OWN_KEYS
from coordinator.http.found_commands import PRIMARY_LOGS
from coordinator.http.waiting_requests import WAITING_REQUESTS
from coordinator.registry import registry
from coordinator.runtime.settings import GatewaySettings
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.ids import command_id_for, new_command_id, scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import IdempotencySecret, LogEntry
from coordinator.stores.outcomes import forgotten_entry
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import FakeWrites
from tests.unit.gateways.test_gateways_connections import until

SECRET = "5" * 64
PAYMENT = {"user_id": 7, "amount": 100, "currency": "EUR"}
MANY = [{"type": "payments.open", "args": PAYMENT}] * 2


class ByName:
    """The credential is the subject, and the tenant behind a tilde."""

    knows_anybody = True

    def known(self, _authorization: str, /) -> Principal | None:
        return None

    async def principal_of(self, credential: str) -> Principal:
        subject, _, tenant = credential.partition("~")
        if not subject:
            raise NotAuthentic("nobody")
        return Principal(subject=subject, tenant=tenant or None)

    async def problem(self) -> str | None:
        return None

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Secrets:
    """What the lane's database has."""

    def __init__(self) -> None:
        self.rows = [IdempotencySecret(id=1, secret=SECRET, made_at=datetime.now(UTC))]
        self.is_away = False

    async def read(self, _database: Any) -> LaneSecrets:
        if self.is_away:
            raise DatabaseUnavailable("away")
        return LaneSecrets(self.rows)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    known = Secrets()
    monkeypatch.setattr(app, "read_idempotency_secrets", known.read)
    return known


@pytest.fixture
async def payments(start: Start, secrets: Secrets) -> RunningGateway:
    return await start("payments", authenticator=ByName())


async def ids(gateway: RunningGateway, credential: str, body: Any = PAYMENT, path: str = "/payments") -> list[str]:
    before = len(gateway.writes.issued)
    headers = {"Authorization": f"Bearer {credential}", "Idempotency-Key": "order-1"}
    await gateway.call("POST", path, json=body, headers=headers)
    return [str(message.command_id) for _, message, _ in gateway.writes.issued[before:]]


async def test_the_same_key_of_two_clients_names_two_commands(payments: RunningGateway) -> None:
    (ada,) = await ids(payments, "ada")
    assert ada == scoped_command_id_for(SECRET, "payments", "order-1", subject="ada")
    assert await ids(payments, "ada") == [ada]
    (bob,) = await ids(payments, "bob")
    (of_a_tenant,) = await ids(payments, "ada~acme")
    assert len({ada, bob, of_a_tenant, command_id_for("payments", "order-1")}) == 4


async def test_so_do_the_keys_of_many_commands(payments: RunningGateway) -> None:
    ada, bob = await ids(payments, "ada", MANY, "/commands"), await ids(payments, "bob", MANY, "/commands")
    assert len({*ada, *bob, *(await ids(payments, "ada"))}) == 5
    assert await ids(payments, "ada", MANY, "/commands") == ada


def settle(payments: RunningGateway, command_id: str, subject: str | None, at: datetime) -> None:
    payments.log.entries[command_id] = LogEntry(
        command_id=command_id,
        sequence=1,
        epoch=1,
        type="payments.authorize",
        fingerprint="",
        status="applied",
        result="{}",
        error_code=None,
        error_message=None,
        settled_at=at,
        actor=None if subject is None else Principal(subject=subject).as_logged,
    )


UNKEYED = command_id_for("payments", "order-1")


@pytest.fixture
async def open_before(start: Start, secrets: Secrets) -> RunningGateway:
    """A gateway that asks who asks, of a lane where everybody might ask."""
    secrets.rows.append(IdempotencySecret(id=0, secret="", made_at=datetime.now(UTC)))
    return await start("payments", authenticator=ByName())


async def test_what_the_log_has_from_before_keeps_its_id(open_before: RunningGateway) -> None:
    (own,) = await ids(open_before, "ada")
    assert own != UNKEYED
    settle(open_before, UNKEYED, None, datetime.now(UTC))
    assert await ids(open_before, "ada") == [UNKEYED]
    open_before.log.error = DatabaseUnavailable("away")
    assert await ids(open_before, "ada") == []


async def test_an_id_without_a_secret_takes_no_key_of_another(open_before: RunningGateway) -> None:
    """Anybody who is known can compute it, and give it to a command of his (`Command-Id`)."""
    (own,) = await ids(open_before, "ada")
    for subject in ("eve", "ada", "amqp:gateway"):
        settle(open_before, UNKEYED, subject, datetime.now(UTC))
        assert await ids(open_before, "ada") == [own]


async def test_a_key_that_was_used_is_nobody_elses_where_everybody_may_ask_meanwhile(
    open_before: RunningGateway,
) -> None:
    (own,) = await ids(open_before, "ada")
    settle(open_before, own, "ada", datetime.now(UTC))
    settle(open_before, UNKEYED, None, datetime.now(UTC))
    assert await ids(open_before, "ada") == [own]


async def test_who_has_read_a_secret_takes_no_key_after_the_change(start: Start, secrets: Secrets) -> None:
    changed_at = datetime.now(UTC) - timedelta(hours=1)
    secrets.rows.insert(0, IdempotencySecret(id=2, secret="6" * 64, made_at=changed_at))
    payments = await start("payments", authenticator=ByName())
    former = scoped_command_id_for(SECRET, "payments", "order-1", subject="ada")
    (own,) = await ids(payments, "ada")
    for subject, at in (
        ("eve", changed_at - timedelta(days=1)),
        ("ada", datetime.now(UTC)),
        (None, changed_at - timedelta(days=1)),
    ):
        settle(payments, former, subject, at)
        assert await ids(payments, "ada") == [own]
    # Her own, of before; and what a lane that believes no gateway has of it.
    for subject in ("ada", "amqp:gateway"):
        settle(payments, former, subject, changed_at - timedelta(days=1))
        assert await ids(payments, "ada") == [former]


async def test_a_forgotten_command_keeps_its_key_after_the_secret_has_changed(start: Start, secrets: Secrets) -> None:
    """It has lost whoever asked for it; under another id it would be applied once more."""
    changed_at = datetime.now(UTC) - timedelta(hours=1)
    secrets.rows.insert(0, IdempotencySecret(id=2, secret="6" * 64, made_at=changed_at))
    payments = await start("payments", authenticator=ByName())
    former = scoped_command_id_for(SECRET, "payments", "order-1", subject="ada")
    settle(payments, former, "ada", changed_at - timedelta(days=1))
    for without_actor in (False, True):
        payments.log.entries[former] = forgotten_entry(payments.log.entries[former], without_actor=without_actor)
        assert await ids(payments, "ada") == [former]
    (bobs,) = await ids(payments, "bob")
    assert bobs != former


async def test_the_key_of_somebody_who_is_not_known_keeps_its_command_after_the_secret_has_changed(
    start: Start, secrets: Secrets
) -> None:
    changed_at = datetime.now(UTC) - timedelta(hours=1)
    secrets.rows.insert(0, IdempotencySecret(id=2, secret="6" * 64, made_at=changed_at))
    payments = await start("payments", authenticator=ByName())
    keys = [("payments", "order-1")]
    former = scoped_command_id_for(SECRET, "payments", "order-1", subject="")
    own = payments.app[OWN_KEYS]
    (now,) = await own.ids(None, keys)
    assert now == scoped_command_id_for("6" * 64, "payments", "order-1", subject="")
    for subject, at, expected in (
        (None, changed_at - timedelta(days=1), former),
        # As a lane has it that believes no gateway.
        ("amqp:gateway", changed_at - timedelta(days=1), former),
        ("ada", changed_at - timedelta(days=1), now),
        (None, datetime.now(UTC), now),
    ):
        settle(payments, former, subject, at)
        assert await own.ids(None, keys) == [expected]


async def test_all_keys_of_a_request_are_one_look_into_the_log(start: Start, secrets: Secrets) -> None:
    made_at = datetime.now(UTC) - timedelta(hours=1)
    secrets.rows[:0] = [IdempotencySecret(id=each, secret=str(each) * 64, made_at=made_at) for each in (9, 8)]
    payments = await start("payments", authenticator=ByName())
    many = [{"type": "payments.open", "args": PAYMENT}] * 200
    issued = await ids(payments, "ada", many, "/commands")
    assert len(set(issued)) == 200
    (asked,) = payments.log.asked
    assert len(asked) == 600
    assert set(issued) <= set(asked)


async def test_only_a_request_that_may_wait_looks_into_the_log(open_before: RunningGateway) -> None:
    waiting = open_before.app[WAITING_REQUESTS]
    with waiting.for_outcome(10.0, GatewaySettings().in_flight_max - 1):
        assert await ids(open_before, "ada", MANY, "/commands") == []
        assert await ids(open_before, "ada") == []
    assert open_before.log.asked == []
    open_before.log.gate.clear()
    for body, path in ((MANY, "/commands"), (PAYMENT, "/payments")):
        looking = asyncio.create_task(ids(open_before, "ada", body, path))
        async with asyncio.timeout(5):
            await until(lambda: waiting.number == 1)
        assert open_before.writes.issued == []
        open_before.log.gate.set()
        assert await looking != []
        assert waiting.number == 0
        open_before.log.gate.clear()
        open_before.writes.issued.clear()


async def test_without_the_secret_nothing_is_issued_under_a_key(start: Start, secrets: Secrets) -> None:
    secrets.is_away = True
    payments = await start("payments", authenticator=ByName())
    headers = {"Authorization": "Bearer ada"}
    response, problem = await payments.call(
        "POST", "/payments", json=PAYMENT, headers=headers | {"Idempotency-Key": "order-1"}
    )
    assert (response.status, problem["code"]) == (503, "idempotency_unavailable")
    assert payments.writes.issued == []
    # Without a key it needs no secret.
    await payments.call("POST", "/payments", json=PAYMENT, headers=headers)
    assert len(payments.writes.issued) == 1


async def test_where_everybody_may_ask_the_keys_belong_to_all(start: Start) -> None:
    payments = await start("payments")
    assert await ids(payments, "whoever") == [command_id_for("payments", "order-1")]


@pytest.mark.parametrize("follows", [True, False])
async def test_what_keys_stand_for_is_read_where_the_lane_writes(follows: bool) -> None:
    reader, own_reader, primary, own_primary = [open_database("sqlite:///nowhere.db") for _ in range(4)]
    gateway = registry().gateway("users")
    logs = {database: open_command_log(database) for database in (reader, primary)}
    served = ServedGateway(
        gateway=replace(gateway, open_log=lambda database: logs[database]),
        database=reader,
        command_log=logs[reader],
        own_database=own_reader,
        primary=primary if follows else None,
        own_primary=own_primary if follows else None,
    )
    made = app.create_joint_app(
        "users", [served], transport=cast(Any, FakeWrites()), settings=GatewaySettings(), authenticator=ByName()
    )
    assert served.secrets_from is (own_primary if follows else own_reader)
    assert made[OWN_KEYS]._logs.of("users") is logs[primary if follows else reader]
    assert (made[PRIMARY_LOGS] is None) is not follows


async def test_an_outcome_that_is_withheld_again_and_again_is_told_once_a_minute_for_each_account(
    open_before: RunningGateway,
) -> None:
    """Whoever has a key may ask as often as he likes."""
    accounts = {new_command_id(): account for account in ("amqp:gateway", "amqp:other")}
    for command_id, account in accounts.items():
        settle(open_before, command_id, account, datetime.now(UTC))
    with capture_logs() as logs:
        for command_id in (*accounts, *accounts):
            response, _ = await open_before.call(
                "GET", f"/commands/{command_id}", headers={"Authorization": "Bearer ada"}
            )
            assert response.status == 404
    told = [each["actor"] for each in logs if each["event"] == "outcome_withheld"]
    assert told == [Principal(subject=account).as_logged for account in accounts.values()]
