"""`coordinator broker-accounts` on a Redis: what its users have otherwise is named, and mended."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from coordinator.accounts.broker_names import broker_names
from coordinator.cli import cli
from coordinator.dev.servers.redis_broker import RedisBroker
from coordinator.registry import Registry
from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.redis.connection import RedisConnection
from coordinator.transports.redis.rights import redis_accounts
from gateways.app import APP

pytestmark = pytest.mark.doors

NAMES = [account.name for account in redis_accounts(broker_names(Registry(APP)))]
CLEAN = "all accounts are as they should be\n"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBroker]:
    server = RedisBroker(tmp_path_factory.mktemp("redis-users"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(started: RedisBroker) -> Iterator[redis.Redis]:
    """With the users of no test before this one."""
    with redis.Redis.from_url(started.url) as client:
        for name in set(client.acl_users()) - {"administrator", "default"}:
            client.acl_deluser(name)
        yield client


def run(server: RedisBroker, *arguments: str, **environment: str | None) -> Result:
    given: dict[str, str | None] = {
        "BROKER_URL": f"redis://127.0.0.1:{server.port}/0",
        "AMQP_URL": None,
        "BROKER_ADMIN_URL": server.url,
    }
    return CliRunner().invoke(cli, ["broker-accounts", *arguments], env=given | environment)


def set_user(client: redis.Redis, *rules: str) -> None:
    client.execute_command("ACL", "SETUSER", *rules)  # type: ignore[no-untyped-call]


@pytest.fixture
def applied(started: RedisBroker, client: redis.Redis, tmp_path: Path) -> Path:
    """The folder of the passwords of users as they should be."""
    done = run(started, "--apply", "--passwords", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == NAMES
    assert "has no aclfile" in done.stderr
    return tmp_path


async def test_what_is_applied_lets_each_process_in_and_doing_it_again_changes_nothing(
    started: RedisBroker, client: redis.Redis, applied: Path
) -> None:
    for arguments in (("--check",), ("--check", "--passwords", str(applied)), ("--apply", "--passwords", str(applied))):
        again = run(started, *arguments)
        assert (again.exit_code, again.stdout) == (0, CLEAN)
    url = (applied / "users_lane.amqp_url").read_text().strip()
    await (await RedisConnection.open(BrokerSettings(url=url), "test")).close()


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (["-xdel"], "users_lane: it lacks +xdel"),
        (["resetkeys", "~writes.public.users"], "users_lane: it lacks ~writes.lease.users ~writes.kept.users "),
        (["+flushall"], "users_lane: it has +flushall too much"),
        (["+@all"], "users_lane: it lacks +ping"),
        (["~*"], "users_lane: it lacks ~writes.public.users"),
        (["allchannels"], "users_lane: it lacks &replies.*; it has &* too much"),
        (["(~writes.public.items +xadd)"], "users_lane: it has (~writes.public.items "),
        (["off"], "users_lane: it is off"),
        (["nopass"], "users_lane: it lets anybody in without a password"),
        (["resetpass"], "users_lane: it has no password"),
        (["resetpass", ">another"], "users_lane: its password"),
        (["reset"], "users_lane: it is off; it lacks "),
        (None, "users_lane: it is not there"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_what_differs_is_named_with_the_line_that_mends_it(
    started: RedisBroker, client: redis.Redis, applied: Path, rules: list[str] | None, says: str
) -> None:
    if rules is None:
        client.acl_deluser("users_lane")
    else:
        set_user(client, "users_lane", *rules)
    passwords = ("--passwords", str(applied))
    checked = run(started, "--check", *passwords)
    said, line = checked.stdout.splitlines()
    assert line.startswith("ACL SETUSER users_lane ")
    assert checked.exit_code == 1
    assert said.startswith(says)
    assert not client.acl_getuser("users_lane") or rules, "nothing is changed"
    set_user(client, *line.split()[2:])
    assert run(started, "--check", *passwords).stdout == CLEAN
    url = (applied / "users_lane.amqp_url").read_text().strip()
    with redis.Redis.from_url(url) as of_lane:
        assert of_lane.ping()


def test_without_passwords_rights_are_mended_and_passwords_stay(
    started: RedisBroker, client: redis.Redis, applied: Path
) -> None:
    set_user(client, "operator", "+flushall")
    done = run(started, "--apply")
    assert done.stdout == "operator: changed: it has +flushall too much\n"
    assert run(started, "--check", "--passwords", str(applied)).stdout == CLEAN
    client.acl_deluser("operator")
    refused = run(started, "--apply")
    assert "operator has no password yet: --passwords says" in str(refused.exception) + refused.stderr
    assert ">PASSWORD" in run(started, "--check").stdout


def test_others_who_speak_as_the_system_are_named(started: RedisBroker, client: redis.Redis, applied: Path) -> None:
    set_user(client, "batch", "on", ">x", "~writes.*", "+xadd")
    set_user(client, "reader", "on", ">x", "%R~*", "+@all")
    try:
        set_user(client, "default", "on", "nopass")
        said = run(started, "--check").stderr.splitlines()
    finally:
        set_user(client, "default", "off", "resetpass")
    assert said == [
        "note: administrator speaks as the system, an administrator: keep it for people",
        "note: batch speaks as the system: ACL DELUSER batch, once nothing uses it",
        "note: anybody speaks as the system, without a name: ACL SETUSER default off",
    ]


def test_a_password_in_the_configuration_that_every_account_can_read_is_named(
    started: RedisBroker, client: redis.Redis, applied: Path
) -> None:
    """By it a gateway would be an administrator."""
    set_user(client, "replica", "on", ">secret", "+psync", "+replconf", "+ping")
    password = (applied / "users_gateway.password").read_text().strip()
    gateway = redis.Redis(port=started.port, username="users_gateway", password=password, decode_responses=True)
    told = "every account can read {} (CONFIG GET), and speak as the system with it, as default"
    try:
        # It takes and gives the default user its password.
        client.config_set("requirepass", "hunter2")
        client.config_set("masterauth", "hunter2")
        set_user(client, "default", "on")
        assert gateway.config_get("requirepass") == {"requirepass": "hunter2"}
        said = run(started, "--check").stderr
        assert [name for name in ("requirepass", "masterauth") if told.format(name) in said] == [
            "requirepass",
            "masterauth",
        ]
        client.config_set("masterauth", "secret")
        client.config_set("masteruser", "replica")
        assert "masterauth" not in run(started, "--check").stderr
        set_user(client, "default", "off")
        assert "CONFIG GET" not in run(started, "--check").stderr
    finally:
        gateway.close()
        for setting in ("requirepass", "masterauth", "masteruser"):
            client.config_set(setting, "")
        set_user(client, "default", "off", "resetpass")


def test_json_has_lines_for_a_file_of_users(started: RedisBroker, client: redis.Redis, tmp_path: Path) -> None:
    printed = run(started, "--json", "--passwords", str(tmp_path / "passwords"))
    users = json.loads(printed.stdout)
    assert [user["name"] for user in users] == NAMES
    by_file = {name: (tmp_path / "passwords" / f"{name}.password").read_text().strip() for name in NAMES}
    for user in users:
        set_user(client, *user["acl"].split()[1:])
        with redis.Redis(port=started.port, username=user["name"], password=by_file[user["name"]]) as of_user:
            assert of_user.ping()
    assert run(started, "--check", "--passwords", str(tmp_path / "passwords")).stdout == CLEAN


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--apply"], {}, "users_lane has no password yet"),
        (["--check"], {"BROKER_ADMIN_URL": None}, "BROKER_ADMIN_URL is not set"),
        (["--check"], {"BROKER_ADMIN_URL": "redis://127.0.0.1:9/0"}, "Redis at 127.0.0.1:9"),
        (["--check"], {"BROKER_ADMIN_URL": "redis+sentinel://127.0.0.1/m"}, "BROKER_ADMIN_URL"),
        (["--json"], {}, "--json needs --passwords"),
        (["--check", "--apply"], {}, "name one"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    started: RedisBroker, client: redis.Redis, arguments: list[str], environment: dict[str, str | None], expected: str
) -> None:
    refused = run(started, *arguments, **environment)
    assert refused.exit_code != 0
    assert expected in refused.output + str(refused.exception)
    assert client.acl_users() == ["administrator", "default"]


class _WithFile(RedisBroker):
    """Has its users in an aclfile."""

    def _prepare(self) -> None:
        super()._prepare()
        users = self.data.with_name("users.acl")
        if not users.exists():
            users.write_text(self._acl.read_text())
        self._acl.write_text(f"aclfile {users}\n")


@pytest.fixture
def with_file(tmp_path: Path) -> Iterator[_WithFile]:
    server = _WithFile(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_what_a_run_that_was_killed_has_not_saved_the_next_one_saves(with_file: _WithFile, tmp_path: Path) -> None:
    passwords = ("--passwords", str(tmp_path / "passwords"))
    run(with_file, "--apply", *passwords)
    with redis.Redis.from_url(with_file.url) as client:
        client.execute_command("ACL", "LOAD")
        assert set(NAMES) < set(client.acl_users())
        client.acl_deluser("operator")
        client.execute_command("ACL", "SAVE")
        rules = run(with_file, "--check", *passwords).stdout.splitlines()[1].split()[2:]
        set_user(client, *rules)
    again = run(with_file, "--apply", *passwords)
    assert (again.exit_code, again.stdout, again.stderr.count("aclfile")) == (0, CLEAN, 0)
    with_file.kill()
    with_file.start()
    assert run(with_file, "--check", *passwords).stdout == CLEAN


def test_users_that_cannot_be_saved_are_an_error(with_file: _WithFile, tmp_path: Path) -> None:
    passwords = ("--passwords", str(tmp_path / "passwords"))
    users = with_file.data.with_name("users.acl")
    users.unlink()
    users.mkdir()
    for _ in "12":
        refused = run(with_file, "--apply", *passwords)
        assert refused.exit_code != 0
        assert f"cannot write its aclfile, {users}" in str(refused.exception) + refused.stderr
    users.rmdir()
    assert run(with_file, "--apply", *passwords).exit_code == 0
    assert "user operator on" in users.read_text()


def test_an_account_that_may_not_make_others_is_named(started: RedisBroker, client: redis.Redis, applied: Path) -> None:
    password = (applied / "operator.password").read_text().strip()
    for user, given in (("operator", password), ("nobody", "hunter2")):
        url = f"redis://{user}:{given}@127.0.0.1:{started.port}/0"
        refused = run(started, "--check", BROKER_ADMIN_URL=url)
        assert "does not let this user see and change accounts" in str(refused.exception)
        assert given not in str(refused.exception)
