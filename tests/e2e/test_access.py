"""Who asks, on the running system: API keys that are made, used and revoked, and tokens of an issuer."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from coordinator import command_id_for, scoped_command_id_for
from coordinator.stores.lane_tables import IdempotencySecret, LogEntry
from coordinator.transports.rabbitmq.rights import gateway_account
from tests.support.databases import sql_engine
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.support.operated import operated
from tests.support.system import System, wait_until

pytestmark = pytest.mark.doors

NO_HEADERS: Mapping[str, str] = {}
ADA = {"name": "Ada", "email": "ada@example.org"}


def call(
    system: System,
    path: str,
    credential: str | None = None,
    body: Any = None,
    others: Mapping[str, str] = NO_HEADERS,
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json", **others}
    if credential is not None:
        headers["Authorization"] = f"Bearer {credential}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(system.urls["users"] + path, data, headers), timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def keys(system: System, *arguments: str) -> Any:
    printed = operated(system, "keys", *arguments)
    assert printed is not None, arguments
    return printed


def test_a_key_is_made_used_and_revoked(system: System) -> None:
    """With the rights that the lane's role has for operators, and the reader's for gateways."""
    system.prepare("users")
    system.start_coordinator("users")
    shown = {"TELEMETRY_LOG_PERSONAL": "true", "GATEWAY_HOST": "0.0.0.0"}
    system.start_gateway("users", ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.2", **shown)
    assert call(system, "/users", body=ADA)[0] == 401
    made = keys(system, "create", "users", "--subject", "mobile-app")
    wait_until(lambda: call(system, "/users", made["key"])[0] == 200, "the key counts")
    status, user = call(system, "/users", made["key"], ADA)
    assert status == 201, user
    assert call(system, f"/users/{user['id']}", made["key"])[1]["name"] == "Ada"
    assert call(system, "/users", f"{made['key'][:-1]}{'A' if made['key'][-1] != 'A' else 'B'}")[0] == 401
    # A lane that is down or paused keeps nobody in.
    system.processes[0].kill()
    keys(system, "revoke", "users", "--id", made["id"])
    wait_until(lambda: call(system, "/users", made["key"])[0] == 401, "the key counts no longer")
    logs = "".join(process.log_tail(500) for process in system.processes)
    assert '"user.id": "mobile-app"' in logs or '"user.id":"mobile-app"' in logs
    assert made["key"][-43:] not in logs


def test_the_same_idempotency_key_of_two_clients_names_two_commands(system: System) -> None:
    """Nobody meets another's command by its key, or by an id that he computes from it."""
    system.prepare("users")
    account = gateway_account("users")
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=account)
    system.start_gateway("users", ACCESS_METHODS="keys", ACCESS_KEYS_REFRESH_S="0.2")
    ada, bob = (keys(system, "create", "users", "--subject", name)["key"] for name in ("ada", "bob"))
    wait_until(lambda: {call(system, "/users", each)[0] for each in (ada, bob)} == {200}, "the keys count")
    key = {"Idempotency-Key": "order-1"}
    assert call(system, "/users", ada, ADA, key)[0] == 201
    assert call(system, "/users", ada, ADA, key)[0] == 201
    status, other = call(system, "/users", bob, {"name": "Bob", "email": "bob@example.org"}, key)
    assert (status, other["name"]) == (201, "Bob")
    assert call(system, f"/commands/{command_id_for('users', 'order-1')}", bob)[0] == 404
    secret = keys(system, "secret", "users")["secret"]
    own = scoped_command_id_for(secret, "users", "order-1", subject="bob")
    assert call(system, f"/commands/{own}", bob)[1]["status"] == "applied"
    assert call(system, f"/commands/{own}", ada)[0] == 404
    operator = keys(system, "create", "users", "--subject", "olga", "--scope", "operator")["key"]
    wait_until(lambda: call(system, f"/commands/{own}", operator)[0] == 200, "an operator sees it")


def an_hour_passes(system: System) -> None:
    """For the secrets and for what is settled: gateways that start use the last one."""
    engine = sql_engine(system.owner("users"))
    with engine.begin() as connection:
        for model, moment in ((IdempotencySecret, "made_at"), (LogEntry, "settled_at")):
            connection.exec_driver_sql(f"UPDATE {model.table} SET {moment} = {moment} - INTERVAL '1 hour'")
    engine.dispose()


def test_a_key_counts_on_when_its_gateway_begins_to_ask_and_nobody_takes_one_by_a_former_id(system: System) -> None:
    system.prepare("users")
    account = gateway_account("users")
    system.start_coordinator("users", LANE_GATEWAY_ACCOUNTS=account)
    gateway = system.start_gateway("users", ACCESS_METHODS="none")
    asked = {"ACCESS_METHODS": "keys", "ACCESS_KEYS_REFRESH_S": "0.2"}

    def post(credential: str | None, name: str, **headers: str) -> tuple[int, dict[str, Any]]:
        named = {header.replace("_", "-"): value for header, value in headers.items()}
        return call(system, "/users", credential, {"name": name, "email": f"{name}@example.org"}, named)

    before = post(None, "first", Idempotency_Key="order-1")
    assert before[0] == 201
    # The account is nobody's, and so not for Ada to see.
    again = (201, {"id": before[1]["id"]})
    gateway.stop(signal.SIGTERM, 20)
    keys(system, "secret", "users", "--remember-open")
    gateway = system.start_gateway("users", **asked)
    ada, eve = (keys(system, "create", "users", "--subject", name)["key"] for name in ("ada", "eve"))
    wait_until(lambda: {call(system, "/users", each)[0] for each in (ada, eve)} == {200}, "the keys count")
    assert post(ada, "first", Idempotency_Key="order-1") == again
    # Eve can make ids without a secret, as anybody can.
    assert post(eve, "second", Command_Id=command_id_for("users", "order-2"))[0] == 201
    status, own = post(ada, "third", Idempotency_Key="order-2")
    assert (status, own["name"]) == (201, "third")
    # And she has read the secret.
    settled = post(ada, "fourth", Idempotency_Key="order-3")
    secret = keys(system, "secret", "users")["secret"]
    gateway.stop(signal.SIGTERM, 20)
    keys(system, "secret", "users", "--new")
    an_hour_passes(system)
    system.start_gateway("users", **asked)
    wait_until(lambda: {call(system, "/users", each)[0] for each in (ada, eve)} == {200}, "the keys count")
    assert post(ada, "fourth", Idempotency_Key="order-3") == settled
    former = scoped_command_id_for(secret, "users", "order-4", subject="ada")
    assert post(eve, "fifth", Command_Id=former)[0] == 201
    status, own = post(ada, "sixth", Idempotency_Key="order-4")
    assert (status, own["name"]) == (201, "sixth")
    assert post(ada, "first", Idempotency_Key="order-1") == again


def test_tokens_of_an_issuer(system: System, tmp_path: Path) -> None:
    key = SigningKey("one")
    (tmp_path / "keys.json").write_bytes(key_set(key))
    system.prepare("users")
    system.start_coordinator("users")
    settings = {"ACCESS_TOKEN_ISSUER": ISSUER, "ACCESS_TOKEN_AUDIENCE": AUDIENCE}
    system.start_gateway(
        "users", ACCESS_METHODS="keys tokens", ACCESS_TOKEN_KEYS=str(tmp_path / "keys.json"), **settings
    )
    assert call(system, "/users", key.token(), ADA)[0] == 201
    assert call(system, "/users", key.token(aud="other"), ADA)[0] == 401
    assert call(system, "/users", body=ADA)[0] == 401


def test_where_others_reach_it_nothing_starts_by_itself(system: System, tmp_path: Path) -> None:
    system.prepare("users")
    process = system.run(["coordinator", "gateway", "users", "--host", "0.0.0.0"], tmp_path / "refused.log", {})
    assert process.wait(30)
    assert process.exit_status == 2
    assert "ACCESS_METHODS is not set" in process.log_tail(5)


def test_keys_need_the_schema_of_this_release(system: System, tmp_path: Path) -> None:
    system.prepare("users")
    engine = sql_engine(system.owner("users"))
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE api_keys")
    engine.dispose()
    process = system.run(
        ["coordinator", "gateway", "users", "--port", "0"], tmp_path / "refused.log", {"ACCESS_METHODS": "keys"}
    )
    assert process.wait(30)
    assert process.exit_status == 2
    assert (
        "api_keys is not there, or the gateway's role has no USAGE of its schema: run `coordinator migrate`"
        in process.log_tail(5)
    )
