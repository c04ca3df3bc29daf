"""A rolling upgrade: two versions and a new type of commands are queued; processes of two releases run and die."""

import random
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import aiohttp
import msgspec
import pika
import pytest
from sqlalchemy import text

from coordinator import Command
from coordinator.migrations.migrate import migrate
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, encode_pack
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.ids import command_id_for, new_command_id
from coordinator.transports.rabbitmq.rights import gateway_account
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE
from tests.e2e.test_rest import Api
from tests.support.databases import FreshDatabases, sql_engine
from tests.support.releases import AddNote, OldAddNote, StampNote, new, newest, old
from tests.support.system import System, wait_ready, wait_until

pytestmark = pytest.mark.upgrades

OLD, NEW, NEWEST = (f"tests.support.releases:{name}" for name in ("old", "new", "newest"))
COMMANDS = 10_000
PACK = 100

Fetch = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL"], ids=["PostgreSQL", "MySQL"])
def owner(request: pytest.FixtureRequest, system: System, databases: FreshDatabases) -> str:
    url: str = databases.new(request.param)
    system.prepare_other(OLD, old, url)
    return url


@pytest.fixture
def fetch(owner: str) -> Iterator[Fetch]:
    engine = sql_engine(owner)

    def fetch_all(statement: str) -> list[tuple[Any, ...]]:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement)).all()]

    yield fetch_all
    engine.dispose()


def message(number: int, model: type[Command]) -> CommandMessage:
    name = "text" if model is OldAddNote else "title"
    version = None if model.command_version == 1 else model.command_version
    arguments = msgspec.json.encode({name: f"n{number}"})
    return CommandMessage(new_command_id(), model.type, arguments, command_version=version)


def publish(system: System, messages: Sequence[CommandMessage], *, is_strangers: bool = False) -> None:
    """As a gateway that the lane knows, or as somebody who does not say who he is."""
    user = None if is_strangers else system.account
    with system.broker() as channel:
        channel.confirm_delivery()
        for start in range(0, len(messages), PACK):
            body = encode_pack(list(messages[start : start + PACK]))
            properties = pika.BasicProperties(content_type=PACK_CONTENT, delivery_mode=2, user_id=user)
            channel.basic_publish(WRITES_EXCHANGE, "notes", body, properties, mandatory=True)


def readiness(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, OSError) as error:
        return 0, str(error)


async def test_a_rolling_upgrade_applies_two_versions_and_a_new_type_once_and_in_order(
    system: System, owner: str, fetch: Fetch
) -> None:
    chance = random.Random(11)
    before = [message(number, OldAddNote) for number in range(COMMANDS // 2)]
    # First one of the new type, so that the old release waits for it.
    mixed = [message(COMMANDS // 2, StampNote)]
    models = (OldAddNote, AddNote, StampNote)
    mixed += [message(number, chance.choice(models)) for number in range(COMMANDS // 2 + 1, COMMANDS)]
    first, first_url = system.launch_coordinator("notes", {})
    wait_ready(first_url, first)
    publish(system, before)
    migrate(newest, DatabaseSettings(database_url=owner))
    second, second_url = system.launch_coordinator("notes", {})
    wait_ready(second_url, second)
    # For this nobody waits: whoever may publish could stop the lane.
    strange = [message(COMMANDS, StampNote)]
    publish(system, strange, is_strangers=True)
    publish(system, mixed)
    wait_until(lambda: fetch("SELECT count(*) FROM notes")[0][0] > COMMANDS // 4, "some are applied", first)
    first.kill()

    def is_waiting() -> bool:
        status, reason = readiness(second_url)
        return status == 503 and "is of type notes.stamp, which a newer release has announced" in reason

    wait_until(is_waiting, "the old release waits visibly", second)
    (applied,) = fetch("SELECT count(*) FROM notes")[0]
    assert applied == COMMANDS // 2, "what comes before the first of the new type is applied"
    third, third_url = system.launch_coordinator("notes", {"COORDINATOR_APP": NEWEST})
    wait_ready(third_url, third)
    wait_until(lambda: fetch("SELECT count(*) FROM command_log") == [(COMMANDS + 1,)], "all are settled", third)
    assert fetch("SELECT command_id, code FROM dead_letters") == [(strange[0].command_id, "unknown_command_type")]
    wait_until(lambda: readiness(second_url)[0] == 200, "the old process stands by", second)

    assert fetch("SELECT title FROM notes ORDER BY id") == [(f"n{number}",) for number in range(COMMANDS)]
    assert fetch("SELECT min(sequence), max(sequence), count(DISTINCT sequence) FROM command_log") == [
        (1, COMMANDS + 1, COMMANDS + 1)
    ]
    in_order = [(each.command_id,) for each in (*before, *strange, *mixed)]
    assert fetch("SELECT command_id FROM command_log ORDER BY sequence") == in_order
    lines = second.log_tail(400).splitlines()
    suspensions = [line for line in lines if "lane_suspended" in line]
    assert len(suspensions) == 1, suspensions


async def test_gateways_of_two_releases_beside_each_other(system: System, owner: str, fetch: Fetch) -> None:
    """A client says its version, and repeats a command across the upgrade.

    Gateways that let everybody in say which account they are, too: the lane, which knows it, waits for what they send.
    """
    known = {"LANE_GATEWAY_ACCOUNTS": gateway_account("notes")}
    coordinator = system.start_coordinator("notes", **known)
    gateways = {}
    for name, app in (("old", OLD), ("new", NEW)):
        process, url = system.launch_gateway("notes", {"COORDINATOR_APP": app})
        wait_ready(url, process)
        gateways[name] = system.urls["notes"]
    async with aiohttp.ClientSession() as session:
        to_old, to_new = (Api(session, gateways[name]) for name in ("old", "new"))
        path, said = "/notes/commands/add", {"Command_Version": "1"}
        first = await to_old("POST", path, {"text": "a"}, Idempotency_Key="k", **said)
        assert (first[0], first[1]["title"]) == (200, "a")
        again = await to_new("POST", path, {"text": "a"}, Idempotency_Key="k", **said)
        assert (again[0], again[1], again[2]["Idempotent-Replayed"]) == (200, first[1], "true")
        status, problem, _ = await to_old("POST", path, {"title": "b"}, Command_Version="2")
        assert (status, problem["code"]) == (400, "unknown_command_version")
        # Nobody has announced it: the new release's gateways run before its migration.
        status, problem, _ = await to_new("POST", path, {"title": "b"})
        assert (status, problem["code"]) == (502, "unknown_command_version")
        assert fetch("SELECT count(*) FROM dead_letters") == [(1,)]

        migrate(new, DatabaseSettings(database_url=owner))
        status, _, headers = await to_new("POST", path, {"title": "c"}, Prefer="wait=1", Idempotency_Key="later")
        assert (status, headers["Command-Id"]) == (202, command_id_for("notes", "later"))
        newer, newer_url = system.launch_coordinator("notes", {"COORDINATOR_APP": NEW, **known})
        wait_ready(newer_url, newer)
        status, note, _ = await to_new("POST", path, {"title": "c"}, Prefer="wait=20", Idempotency_Key="later")
        assert (status, note["title"]) == (200, "c")
        status, note, _ = await to_old("POST", path, {"text": "d"})
        assert (status, note["title"]) == (200, "d")
        again = await to_old("POST", path, {"text": "a"}, Idempotency_Key="k", **said)
        assert (again[1], again[2]["Idempotent-Replayed"]) == (first[1], "true")
    assert coordinator.alive
    assert fetch("SELECT title FROM notes ORDER BY id") == [("a",), ("c",), ("d",)]
