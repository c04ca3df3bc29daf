"""Idempotency keys belong to whoever asks."""

from datetime import UTC, datetime
from typing import Any

import pytest

from coordinator.access.authenticator import NotAuthentic
from coordinator.http import app
from coordinator.service.errors import DatabaseUnavailable
from coordinator.service.ids import command_id_for, scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.lane_tables import IdempotencySecret, LogEntry
from tests.unit.gateways.conftest import RunningGateway, Start

SECRET = "5" * 64
PAYMENT = {"user_id": 7, "amount": 100, "currency": "EUR"}
MANY = [{"type": "payments.open", "args": PAYMENT}] * 2


class ByName:
    """The credential is the subject, and the tenant behind a tilde."""

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

    async def read(self, _database: Any) -> list[IdempotencySecret]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        return self.rows


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


async def test_what_the_log_has_from_before_keeps_its_id(start: Start, secrets: Secrets) -> None:
    secrets.rows.append(IdempotencySecret(id=0, secret="", made_at=datetime.now(UTC)))
    payments = await start("payments", authenticator=ByName())
    former = command_id_for("payments", "order-1")
    (before,) = await ids(payments, "ada")
    assert before != former
    payments.log.entries[former] = LogEntry(
        command_id=former,
        sequence=1,
        epoch=1,
        type="payments.authorize",
        fingerprint="",
        status="applied",
        result="{}",
        error_code=None,
        error_message=None,
        settled_at=datetime.now(UTC),
    )
    assert await ids(payments, "ada") == [former]
    payments.log.error = DatabaseUnavailable("away")
    assert await ids(payments, "ada") == []


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
