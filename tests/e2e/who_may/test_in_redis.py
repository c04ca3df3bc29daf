"""Every cell of the table of Redis in docs/WHO_MAY.md."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from coordinator.dev.servers.addresses import ACCOUNT, CACHE_READER
from tests.e2e.who_may.table import Act, acts_of, wrong_cells
from tests.support.servers import Environment

pytestmark = pytest.mark.doors

ACTS = acts_of("In Redis")
LEASE: Final = "items:lease"
ITEM: Final = "item:1"
OTHER: Final = "other:1"
NOT_TRIED: Final = "not tried"


class Trial(NamedTuple):
    """An act, and what an administrator sees by it: None for what it returns."""

    attempt: Callable[[Any], object]
    had_effect: Callable[[Any], object] | None = None


TRIALS: Final[dict[str, Trial]] = {
    "read an item": Trial(lambda client: client.hget(ITEM, "row")),
    "write an item": Trial(
        lambda client: client.hset(ITEM, "row", "mine"), lambda admin: admin.hget(ITEM, "row") == b"mine"
    ),
    "remove an item": Trial(lambda client: client.delete(ITEM), lambda admin: not admin.exists(ITEM)),
    "take the lease": Trial(
        lambda client: client.hset(LEASE, "generation", "mine"),
        lambda admin: admin.hget(LEASE, "generation") == b"mine",
    ),
    "read any other key": Trial(lambda client: client.hget(OTHER, "row")),
    "write any other key": Trial(
        lambda client: client.hset(OTHER, "row", "mine"), lambda admin: admin.hget(OTHER, "row") == b"mine"
    ),
    "remove any other key": Trial(lambda client: client.delete(OTHER), lambda admin: not admin.exists(OTHER)),
    "list keys": Trial(lambda client: client.keys("*")),
    "run a script of its own": Trial(
        lambda client: client.evalsha(client.script_load("return redis.call('HSET', KEYS[1], 'row', 'mine')"), 1, ITEM),
        lambda admin: admin.hget(ITEM, "row") == b"mine",
    ),
    "reach another key by a script of its own": Trial(
        lambda client: client.evalsha(client.script_load("return redis.call('HSET', 'other:1', 'row', 'mine')"), 0),
        lambda admin: admin.hget(OTHER, "row") == b"mine",
    ),
    "remove all keys": Trial(lambda client: client.flushdb(), lambda admin: admin.dbsize() == 0),
    "read the server's settings": Trial(lambda client: client.config_get("maxmemory")),
    "change the server's settings": Trial(
        lambda client: client.config_set("slowlog-max-len", 77),
        lambda admin: admin.config_get("slowlog-max-len") == {"slowlog-max-len": "77"},
    ),
    "list accounts": Trial(lambda client: client.acl_list()),
    "make an account": Trial(
        lambda client: client.execute_command("ACL", "SETUSER", "mine", "on"), lambda admin: "mine" in admin.acl_users()
    ),
    "see who is connected": Trial(lambda client: client.client_list()),
    "save the data": Trial(lambda client: client.execute_command("SAVE")),
    "stop the server": Trial(lambda client: client.execute_command("SHUTDOWN", "NOSAVE")),
}


@pytest.fixture
def admin(administrators: Environment) -> Iterator[Any]:
    with redis.Redis.from_url(administrators["REDIS_URL"]) as client:
        client.flushdb()
        yield client
        client.execute_command("ACL", "DELUSER", "mine")
        client.config_set("slowlog-max-len", 128)
        client.flushdb()


def test_each_act_is_tried() -> None:
    assert [act.name for act in ACTS] == list(TRIALS)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_who_may(act: Act, admin: Any, server_environment: Environment, administrators: Environment) -> None:
    parts = urlsplit(server_environment["REDIS_URL"])
    urls = {
        name: parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}").geturl()
        for name in ("stranger", CACHE_READER)
    }
    urls |= {ACCOUNT: parts.geturl(), "administrator": administrators["REDIS_URL"]}
    got = {
        role: expected if expected == NOT_TRIED else _got(TRIALS[act.name], urls[role], admin)
        for role, expected in act.gets.items()
    }
    assert wrong_cells(act, got) == []


def _got(trial: Trial, url: str, admin: Any) -> str:
    admin.execute_command("ACL", "DELUSER", "mine")
    admin.config_set("slowlog-max-len", 128)
    for key in (ITEM, OTHER):
        admin.hset(key, "row", "theirs")
    admin.hset(LEASE, "generation", "theirs")
    answer: object = None
    refusal = None
    with redis.Redis.from_url(url) as client:
        try:
            answer = trial.attempt(client)
        except AuthenticationError:
            refusal = "no login"
        except NoPermissionError:
            refusal = "denied"
        except redis.ResponseError as error:
            # Of what a script tried.
            if "can't access at least one of the keys" not in str(error):
                raise
            refusal = "denied"
    effect = bool(answer) if trial.had_effect is None else bool(trial.had_effect(admin))
    if effect:
        return "yes" if refusal is None else f"{refusal}, and yet with an effect"
    return refusal or "without effect"
