"""API keys on each kind of database: made and ended by operators, and read by gateways."""

import asyncio
import json
import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.access.api_keys import KeyRing, KeysUnknown
from coordinator.access.authenticator import NotAuthentic
from coordinator.access.opening import open_authenticator
from coordinator.access.settings import AccessSettings
from coordinator.cli import cli
from coordinator.client.api_keys import ApiKeysReader, read_api_keys
from coordinator.client.command_log import IDS_AT_ONCE, Asked, open_command_log
from coordinator.client.database import close_database, open_database
from coordinator.client.idempotency_secrets import read_idempotency_secrets
from coordinator.migrations.migrate import migrate
from coordinator.operate import output
from coordinator.operate.output import now
from coordinator.protocol.fingerprints import UNKEYED, Fingerprints
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.ids import new_command_id
from coordinator.service.principal import Principal
from coordinator.stores.api_keys import SECRETS_MAX, KeyCounts
from coordinator.stores.audit import ActQuery
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.idempotency import counts_from, new_secret
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import IdempotencySecret, LogEntry, metadata
from coordinator.stores.mongodb.client import open_client
from coordinator.stores.mongodb.documents import document_of
from coordinator.stores.mongodb.driver_arguments import connection_of
from coordinator.stores.open import open_store
from coordinator.stores.operator_acts import made_act
from coordinator.stores.port import Changes
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.store_contract import entry

LANES = {"users": "postgresql", "payments": "mysql", "items": "mongodb"}


class Keys:
    """The commands, on the database of one lane."""

    def __init__(self, lane: str, url: str) -> None:
        self.lane = lane
        self.url = url

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["keys", *arguments], env={f"{self.lane.upper()}_DATABASE_URL": self.url})

    def create(self, *options: str) -> dict[str, Any]:
        ran = self.run("create", self.lane, "--subject", "ada", *options, "--json")
        assert ran.exit_code == 0, ran.output
        return dict(json.loads(ran.stdout))

    def of_gateway(self, credential: str) -> Principal:
        """What a gateway makes of a credential."""

        async def ask() -> Principal:
            database = open_database(self.url)
            ring = KeyRing(lambda: read_api_keys(database), 60)
            await ring.start()
            try:
                return await ring.principal_of(credential)
            finally:
                await ring.close()
                await close_database(database)

        return asyncio.run(ask())


@pytest.fixture(params=[*LANES, "sqlite"])
def keys(request: pytest.FixtureRequest, databases: FreshDatabases, tmp_path: Path) -> Keys:
    lane = "users" if request.param == "sqlite" else request.param
    url = f"sqlite:///{tmp_path}/users.db"
    if request.param != "sqlite":
        url = databases.new(f"{lane.upper()}_DATABASE_URL")
    migrate(registry().service(lane), DatabaseSettings(database_url=url))
    return Keys(lane, url)


def test_a_key_names_a_principal_until_it_is_revoked(keys: Keys) -> None:
    made = keys.create("--tenant", "Acme Ltd", "--scope", "write", "--scope", "read")
    assert re.fullmatch(r"wck_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", made["key"])
    assert keys.of_gateway(made["key"]) == Principal(
        subject="ada", tenant="Acme Ltd", scopes=frozenset({"read", "write"})
    )
    listed = json.loads(keys.run("list", keys.lane, "--json").stdout)
    assert [(each["id"], each["subject"], each["scopes"]) for each in listed] == [
        (made["id"], "ada", ["read", "write"])
    ]
    shown = keys.run("list", keys.lane).stdout
    assert made["key"][-43:] not in shown + json.dumps(listed)
    for _ in range(2):
        ran = keys.run("revoke", keys.lane, "--id", made["id"], "--json")
        assert ran.exit_code == 0, ran.output
        (revoked,) = json.loads(ran.stdout)
        assert revoked["revoked_by"].count("@") == 1
    with pytest.raises(NotAuthentic, match="revoked"):
        keys.of_gateway(made["key"])
    again = json.loads(keys.run("list", keys.lane, "--json").stdout)
    assert again[0]["revoked_at"] == revoked["revoked_at"]


def test_the_keys_of_a_forgotten_person_go_once_they_have_ended(keys: Keys) -> None:
    """Also out of the acts by which they were made; those of another tenant's person of that name stay."""
    ended, other = keys.create(), keys.create("--tenant", "Acme Ltd")
    address = parse_address(keys.url)
    with closing(kind_of(address).open_api_keys(address, keys.lane)) as opened:
        with pytest.raises(KeyCounts, match=ended["id"]):
            opened.forget("ada", None, now())
        assert keys.run("revoke", keys.lane, "--id", ended["id"]).exit_code == 0
        act = made_act(now(), "ops", "keys forget", {}, reason="asked for")
        assert [opened.forget("ada", None, now(), each) for each in (act, None)] == [1, 0]
        assert [key.id for key in opened.every()] == [other["id"]]
    with closing(kind_of(address).open_admin(address, keys.lane)) as admin:
        acts = admin.acts(ActQuery(), None, 10)
    made = {(found := json.loads(each.details))["id"]: found for each in acts if each.act == "keys create"}
    assert (made[ended["id"]]["subject"], made[ended["id"]]["tenant"]) == (None, None)
    assert (made[other["id"]]["subject"], made[other["id"]]["tenant"]) == ("ada", "Acme Ltd")
    assert sorted(each.act for each in acts) == ["keys create", "keys create", "keys forget", "keys revoke"]


def test_keys_are_read_while_reads_hold_all_connections_of_a_gateway(keys: Keys) -> None:
    """One connection stands for all: a revoked key counts no longer, however many reads wait."""
    if keys.lane == "items" or keys.url.startswith("sqlite"):
        pytest.skip("this reader's connections are not taken for a statement each, or not held by other reads")
    made = keys.create()
    settings = AccessSettings(methods="keys", keys_refresh_s=60)

    async def asked() -> None:
        database = open_database(keys.url, pool_max=1)
        assert isinstance(database, AsyncEngine)
        async with database.connect():
            ring = open_authenticator(settings, "127.0.0.1", database, ApiKeysReader(keys.url))
            assert isinstance(ring, KeyRing)
            await ring.start()
            try:
                assert (await ring.principal_of(made["key"])).subject == "ada"
                assert await asyncio.to_thread(keys.run, "revoke", keys.lane, "--id", made["id"])
                await ring._refresh()
                with pytest.raises(NotAuthentic, match="revoked"):
                    await ring.principal_of(made["key"])
            finally:
                await ring.close()
        await close_database(database)

    asyncio.run(asked())


def test_what_is_kept_is_not_the_key(keys: Keys) -> None:
    made = keys.create()
    address = parse_address(keys.url)
    opened = kind_of(address).open_api_keys(address, keys.lane)
    (kept,) = opened.every()
    opened.close()
    secret = made["key"][-43:]
    assert secret not in repr(kept)
    for credential in (kept.digest, f"wck_{kept.id}_{kept.digest[:43]}", f"wck_{kept.id}_{'A' * 43}", secret):
        with pytest.raises(NotAuthentic):
            keys.of_gateway(credential)
    assert keys.of_gateway(made["key"]).subject == "ada"


def test_a_key_ends_at_its_time(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keys.create("--expires", "1h")
    assert keys.of_gateway(made["key"]).subject == "ada"
    past = keys.run("create", keys.lane, "--subject", "ada", "--expires", "2020-01-01")
    assert past.exit_code == 2
    assert "is over" in past.output
    address = parse_address(keys.url)
    opened = kind_of(address).open_api_keys(address, keys.lane)
    (kept,) = opened.every()
    opened.close()
    assert kept.expires_at is not None

    async def read() -> list[Any]:
        return [kept.replace(expires_at=now() - timedelta(milliseconds=1))]

    async def ask() -> None:
        ring = KeyRing(read, 60)
        await ring.start()
        with pytest.raises(NotAuthentic, match="expired"):
            await ring.principal_of(made["key"])
        await ring.close()

    asyncio.run(ask())


@pytest.mark.parametrize("apart", [timedelta(days=-30), timedelta(minutes=2)])
def test_no_key_ends_by_a_clock_that_is_wrong(keys: Keys, monkeypatch: pytest.MonkeyPatch, apart: timedelta) -> None:
    """To a machine that was a month behind, a key for a week had ended when it was made."""
    monkeypatch.setattr(output, "now", lambda: now() + apart)
    ran = keys.run("create", keys.lane, "--subject", "ada", "--expires", "1h")
    address = parse_address(keys.url)
    with closing(kind_of(address).open_api_keys(address, keys.lane)) as opened:
        if opened.clock() is None:
            assert ran.exit_code == 0
            return
        assert ran.exit_code == 1
        assert "correct the one that is wrong; nothing was made" in ran.output
        assert opened.every() == []
    keys.create()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--subject", ""], "subject"),
        (["--subject", "a\u200bda"], "subject"),
        (["--subject", "a" * 201], "subject"),
        (["--subject", "ada", "--tenant", " "], "tenant"),
        (["--subject", "ada", "--scope", "a b"], "scopes"),
        (["--subject", "ada", "--scope", "\u00e9"], "scopes"),
        (["--subject", "ada", "--expires", "soon"], "--expires"),
    ],
)
def test_what_no_key_can_have(tmp_path: Path, options: list[str], named: str) -> None:
    ran = Keys("users", f"sqlite:///{tmp_path}/users.db").run("create", "users", *options)
    assert ran.exit_code == 2
    assert named in ran.output


def test_a_key_that_is_not_there_is_not_revoked(keys: Keys) -> None:
    for key_id in ("0123456789abcdef", "nothing", "\x1b[2J"):
        ran = keys.run("revoke", keys.lane, "--id", key_id)
        assert ran.exit_code == 1
        assert "there is no key" in ran.output
        assert "\x1b" not in ran.output


def test_a_database_is_reached_before_anything_is_done(keys: Keys) -> None:
    address = parse_address(keys.url)
    opened = kind_of(address).open_api_keys(address, keys.lane)
    opened.connect()
    opened.close()
    opened = kind_of(address).open_api_keys(address, "another")
    with pytest.raises(ConfigurationError):
        opened.connect()
    opened.close()


def test_there_is_an_end_to_keys(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("sql", "mongodb"):
        monkeypatch.setattr(f"coordinator.stores.{kind}.api_keys.KEYS_MAX", 2)
    keys.create()
    keys.create()
    ran = keys.run("create", keys.lane, "--subject", "ada")
    assert ran.exit_code == 1
    assert "nothing was made" in ran.output


def secrets_of(keys: Keys) -> list[IdempotencySecret]:
    """As a gateway reads them."""

    async def read() -> list[IdempotencySecret]:
        database = open_database(keys.url)
        try:
            return list((await read_idempotency_secrets(database)).rows)
        finally:
            await close_database(database)

    return asyncio.run(read())


def test_a_lane_has_one_secret_until_another_is_made(keys: Keys) -> None:
    (first,) = secrets_of(keys)
    assert re.fullmatch(r"[0-9a-f]{64}", first.secret)
    # Who migrates again finds it there.
    migrate(registry().service(keys.lane), DatabaseSettings(database_url=keys.url))
    assert secrets_of(keys) == [first]
    assert keys.run("secret", keys.lane).stdout.strip() == first.secret
    made = json.loads(keys.run("secret", keys.lane, "--new", "--json").stdout)
    second, *former = secrets_of(keys)
    assert former == [first]
    assert (second.id, second.secret) == (made["id"], made["secret"]) != (first.id, first.secret)
    assert made["former"] == 1
    assert json.loads(keys.run("secret", keys.lane, "--forget-former", "--json").stdout)["forgotten"] == 1
    migrate(registry().service(keys.lane), DatabaseSettings(database_url=keys.url))
    assert secrets_of(keys) == [second]


def test_a_new_lane_has_a_key_of_fingerprints_and_an_older_one_gets_it_from_an_operator(keys: Keys) -> None:
    service, sent = registry().service(keys.lane), CommandMessage(command_id=None, type="a.b", arguments=b"{}")

    async def as_a_gateway() -> Fingerprints:
        database = open_database(keys.url)
        try:
            return await open_command_log(database).fingerprints()
        finally:
            await close_database(database)

    def known() -> list[int]:
        migrate(service, DatabaseSettings(database_url=keys.url))
        return [each["id"] for each in json.loads(keys.run("fingerprints", keys.lane, "--json").stdout)]

    assert known() == [1]
    with closing(open_store(keys.url, service)) as store:
        lease = store.take_over("a process of an earlier release, which compares without", now())
        transaction = store.begin()
        transaction.commit(lease, lease.sequence, Changes([transaction.scan(FingerprintKey, 9)], [], []))
        assert known() == []
        assert asyncio.run(as_a_gateway()).of(sent) == UNKEYED.of(sent)
        made = keys.run("fingerprints", keys.lane, "--new")
        current = store.current()
    assert current is not None
    assert current.revision > lease.revision, "so the lane reads it before its next commit"
    (secret,) = (each.secret for each in fingerprint_keys_of(keys))
    assert secret not in made.output
    assert (made.exit_code, known()) == (0, [2]), "a first one would make other commands of what is applied once more"
    assert asyncio.run(as_a_gateway()).of(sent) == Fingerprints({2: secret}).of(sent)


def fingerprint_keys_of(keys: Keys) -> list[FingerprintKey]:
    address = parse_address(keys.url)
    with closing(kind_of(address).open_api_keys(address, keys.lane)) as opened:
        return opened.fingerprint_keys()


def test_ids_that_everybody_can_make_count_where_there_were_commands_before_there_was_a_secret(keys: Keys) -> None:
    address = parse_address(keys.url)
    with closing(kind_of(address).open_api_keys(address, keys.lane)) as opened:
        opened.remove_secrets(10)
    settle(keys, entry(1))
    migrate(registry().service(keys.lane), DatabaseSettings(database_url=keys.url))
    first, none = secrets_of(keys)
    assert ((first.id, len(first.secret)), (none.id, none.secret)) == ((1, 64), (0, ""))


def test_an_operator_says_whether_ids_count_that_everybody_can_make(keys: Keys) -> None:
    (first,) = secrets_of(keys)
    for _ in range(2):
        remembered = json.loads(keys.run("secret", keys.lane, "--remember-open", "--json").stdout)
        assert (remembered["secret"], remembered["former"]) == (first.secret, 1)
        assert [(each.id, each.secret) for each in secrets_of(keys)] == [(1, first.secret), (0, "")]
    assert json.loads(keys.run("secret", keys.lane, "--forget-former", "--json").stdout)["forgotten"] == 1
    assert secrets_of(keys) == [first]
    ran = keys.run("secret", keys.lane, "--remember-open", "--forget-former")
    assert (ran.exit_code, "exclude each other" in ran.output) == (2, True)


def test_a_new_secret_counts_later_by_a_clock_that_is_right(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that starts meanwhile goes by the time at which it was made."""
    before = secrets_of(keys)
    first = json.loads(keys.run("secret", keys.lane, "--json").stdout)
    assert first["counts_from"] == first["made_at"]
    with monkeypatch.context() as patched:
        patched.setattr(output, "now", lambda: now() + timedelta(minutes=2))
        ran = keys.run("secret", keys.lane, "--new")
        if not keys.url.startswith("sqlite"):
            assert ran.exit_code == 1
            assert "correct the one that is wrong; nothing was made" in ran.output
            assert secrets_of(keys) == before
    ran = keys.run("secret", keys.lane, "--new")
    assert ran.exit_code == 0
    assert "they refuse idempotency keys" in ran.stderr
    newest = secrets_of(keys)[0]
    assert f"gateways use it from {counts_from(newest):%Y-%m-%dT%H:%M:%SZ} on" in ran.stderr
    assert counts_from(newest) - newest.made_at == timedelta(minutes=10, seconds=30)


def test_of_two_who_make_a_secret_at_once_one_is_told_so(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    address = parse_address(keys.url)
    with closing(kind_of(address).open_api_keys(address, keys.lane)) as opened:
        known = opened.secrets()
        opened.add_secret(new_secret(2))
    monkeypatch.setattr(type(opened), "secrets", lambda _: list(known))
    ran = keys.run("secret", keys.lane, "--new")
    assert ran.exit_code == 1
    assert f"somebody else has just made another secret of lane {keys.lane}" in ran.stderr
    assert "DETAIL" not in ran.output


def test_a_lane_that_has_none_is_told_to_migrate(keys: Keys) -> None:
    address = parse_address(keys.url)
    opened = kind_of(address).open_api_keys(address, keys.lane)
    opened.remove_secrets(10)
    opened.close()
    ran = keys.run("secret", keys.lane)
    assert (ran.exit_code, "coordinator migrate" in ran.output) == (1, True)


def test_there_are_no_more_secrets_than_gateways_read(keys: Keys) -> None:
    assert keys.run("secret", keys.lane, "--remember-open").exit_code == 0
    for _ in range(SECRETS_MAX - 2):
        assert keys.run("secret", keys.lane, "--new").exit_code == 0
    assert (len(secrets_of(keys)), secrets_of(keys)[-1].secret) == (SECRETS_MAX, "")
    ran = keys.run("secret", keys.lane, "--new")
    assert (ran.exit_code, "--forget-former" in ran.output) == (1, True)
    assert len(secrets_of(keys)) == SECRETS_MAX
    assert keys.run("secret", keys.lane, "--new", "--forget-former").exit_code == 0
    assert len(secrets_of(keys)) == 1
    for _ in range(SECRETS_MAX - 1):
        assert keys.run("secret", keys.lane, "--new").exit_code == 0
    ran = keys.run("secret", keys.lane, "--remember-open")
    assert (ran.exit_code, "--forget-former first" in ran.output) == (1, True)


def settle(keys: Keys, *entries: LogEntry) -> None:
    address = parse_address(keys.url)
    if keys.lane == "items":
        with open_client(connection_of(address), "operator") as client:
            client[address.database][LogEntry.table].insert_many([document_of(entry) for entry in entries])
        return
    engine = sql_engine(keys.url)
    with engine.begin() as connection:
        connection.execute(insert(metadata.tables[LogEntry.table]), [msgspec.structs.asdict(each) for each in entries])
    engine.dispose()


def test_the_log_tells_of_many_commands_at_once_who_asked(keys: Keys) -> None:
    ids = [new_command_id() for _ in range(2 * IDS_AT_ONCE + 10)]
    there = {number: ids[number] for number in (0, 1, IDS_AT_ONCE - 1, IDS_AT_ONCE, len(ids) - 1)}
    at, actor = now(), Principal(subject="ada", tenant="Acme Ltd").as_logged
    settle(
        keys,
        *(
            entry(number + 1).replace(command_id=command_id, settled_at=at, actor=actor if number else None)
            for number, command_id in there.items()
        ),
    )

    async def ask(*command_ids: str) -> dict[str, Asked]:
        database = open_database(keys.url)
        try:
            return await open_command_log(database).who_asked(command_ids)
        finally:
            await close_database(database)

    assert asyncio.run(ask(*ids)) == {
        command_id: Asked(
            command_id=command_id,
            settled_at=at,
            actor=actor if number else None,
            status="applied",
            sequence=number + 1,
        )
        for number, command_id in there.items()
    }
    assert asyncio.run(ask()) == {}

    async def entries(*command_ids: str) -> dict[str, int]:
        database = open_database(keys.url)
        try:
            found = await open_command_log(database).find_all(command_ids)
        finally:
            await close_database(database)
        assert all(each.command_id == command_id for command_id, each in found.items())
        return {command_id: each.sequence for command_id, each in found.items()}

    assert asyncio.run(entries(*ids)) == {command_id: number + 1 for number, command_id in there.items()}
    assert asyncio.run(entries()) == {}

    async def passages(first: int, last: int) -> list[int]:
        database = open_database(keys.url)
        try:
            found = await open_command_log(database).passages(first, last)
        finally:
            await close_database(database)
        assert [(each.command_id, each.settled_at) for each in found] == [
            (there[each.sequence - 1], at) for each in found
        ]
        return [each.sequence for each in found]

    assert asyncio.run(passages(2, IDS_AT_ONCE)) == [2, IDS_AT_ONCE]


async def test_keys_that_were_never_read_are_not_said_to_be_wrong() -> None:
    database = open_database("postgresql://nobody@127.0.0.1:9/users")
    ring = KeyRing(lambda: read_api_keys(database), 60)
    await ring.start()
    assert await ring.problem() == "the API keys cannot be read"
    with pytest.raises(KeysUnknown):
        await ring.principal_of(f"wck_{'0' * 16}_{'A' * 43}")
    await ring.close()
    await close_database(database)
