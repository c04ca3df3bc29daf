"""`coordinator broker-accounts` on a real RabbitMQ: what it prints makes the accounts, and what it applies, too."""

import asyncio
import json
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pika
import pytest
from click.testing import CliRunner, Result
from pika.exceptions import ProbableAuthenticationError

from coordinator.accounts.broker_names import broker_names
from coordinator.accounts.management import open_management
from coordinator.cli import cli
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.operate.queue_policies import open_harms
from coordinator.registry import Registry
from coordinator.runtime.settings import BrokerSettings
from coordinator.transports.rabbitmq.amqp import AmqpConnection
from coordinator.transports.rabbitmq.definitions import password_hash, rights_of
from coordinator.transports.rabbitmq.rights import NOTHING, BrokerAccount, broker_accounts
from gateways.app import APP
from tests.support.compose_file import read_compose_file
from tests.support.managed_rabbitmq import ManagedRabbitMQ
from tests.support.rabbitmqctl import control_environment, control_program, evaluate
from tests.support.servers import REFERENCE_APP
from tests.support.system import wait_until

ACCOUNTS = broker_accounts(broker_names(Registry(APP)))
NAMES = [account.name for account in ACCOUNTS]
FOR_PEOPLE = "an administrator: keep it for people"
REPLIES = r"^replies\.gateway\.users\."
VHOST = "a % b_\"'ü"
PASSWORD = "p a%s#:/@?'\"\\$`é✓"


# It has a broker of its own.
pytestmark = [pytest.mark.xdist_group("broker_accounts"), pytest.mark.doors]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedRabbitMQ]:
    directory = tmp_path_factory.mktemp("broker")
    made = ManagedRabbitMQ(directory)
    made.start()
    everything = '<<".*">>, <<".*">>, <<".*">>, <<"test">>'
    name = f"<<{json.dumps(VHOST, ensure_ascii=False)}/utf8>>"
    evaluate(
        made,
        f'rabbit_vhost:add({name}, <<"test">>), '
        f'rabbit_auth_backend_internal:set_permissions(<<"administrator">>, {name}, {everything}).',
    )
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def without_accounts(broker: ManagedRabbitMQ) -> Iterator[None]:
    yield
    delete_accounts(broker, NAMES)


def delete_accounts(broker: ManagedRabbitMQ, names: Sequence[str]) -> None:
    """Those that there are. rabbitmqctl would cost more than a second of the processor."""
    server = open_management(broker.admin_url)
    there = [name for name in names if name in server.accounts()]
    if there:
        server._call("POST", "users/bulk-delete", {"users": there})


def run(broker: ManagedRabbitMQ, *arguments: str, **environment: str) -> Result:
    given = {"COORDINATOR_APP": REFERENCE_APP, "AMQP_URL": url_of(broker), "RABBITMQ_ADMIN_URL": broker.admin_url}
    return CliRunner().invoke(cli, ["broker-accounts", *arguments], env=given | environment)


def url_of(broker: RabbitMQ) -> str:
    """With the account of somebody, which is not looked at."""
    return f"amqp://somebody:hunter2@127.0.0.1:{broker.port}/{quote(VHOST, safe='')}"


def kept(broker: ManagedRabbitMQ) -> dict[str, Any]:
    found = open_management(broker.admin_url).accounts()
    return {name: (each.rights, each.limits, each.tags) for name, each in found.items() if name in NAMES}


def as_wanted(account: BrokerAccount) -> Any:
    return ({VHOST: rights_of(account)}, account.limits, "")


def logs_in(url: str) -> bool:
    try:
        with closing(pika.BlockingConnection(pika.URLParameters(url))):
            return True
    except ProbableAuthenticationError:
        return False


@pytest.mark.timeout(300)  # as long as its script may take: each of two dozen commands starts an Erlang
def test_the_commands_that_it_prints_make_the_accounts(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir(mode=0o700)
    (folder / "operator.password").write_text(PASSWORD + "\n")
    (folder / "operator.password").chmod(0o600)
    printed = run(broker, "--passwords", str(folder))
    assert printed.exit_code == 0, printed.output
    script = printed.stdout.replace("rabbitmqctl ", f"{control_program()} --quiet ")
    environment = control_environment(broker)
    done = subprocess.run(
        ["sh", "-e"], input=script, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept(broker) == {account.name: as_wanted(account) for account in ACCOUNTS}
    for name in NAMES:
        password, address = (folder / f"{name}.{kind}" for kind in ("password", "amqp_url"))
        assert [stat.S_IMODE(path.stat().st_mode) for path in (password, address)] == [0o600, 0o600]
        assert password.read_text().strip() not in printed.output
        assert logs_in(address.read_text().strip()), name
        assert urlsplit(address.read_text().strip()).username == name
    assert (folder / "operator.password").read_text() == PASSWORD + "\n"
    again = run(broker, "--check", "--passwords", str(folder))
    assert (again.exit_code, again.stdout) == (0, "all accounts are as they should be\n")


def test_it_makes_the_accounts_itself_and_doing_it_again_changes_nothing(
    broker: ManagedRabbitMQ, tmp_path: Path
) -> None:
    folder = str(tmp_path / "made")
    first = run(broker, "--apply", "--passwords", folder)
    assert first.exit_code == 0, first.output
    assert "users_lane: changed: it is not there" in first.stdout.splitlines()
    assert kept(broker) == {account.name: as_wanted(account) for account in ACCOUNTS}
    assert all(logs_in((tmp_path / "made" / f"{name}.amqp_url").read_text().strip()) for name in NAMES)
    written = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    second = run(broker, "--apply", "--passwords", folder)
    assert (second.exit_code, second.stdout) == (0, "all accounts are as they should be\n")
    assert {path.name: path.read_text() for path in (tmp_path / "made").iterdir()} == written
    assert "has no password of" not in first.stderr + second.stderr


def test_accounts_whose_passwords_the_folder_lacks_are_named(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    assert run(broker, "--apply", "--passwords", str(tmp_path)).exit_code == 0
    (tmp_path / "operator.password").unlink()
    (tmp_path / "operator.amqp_url").unlink()
    again = run(broker, "--apply", "--passwords", str(tmp_path))
    assert (again.exit_code, again.stdout) == (0, "all accounts are as they should be\n")
    assert f"note: {tmp_path} has no password of operator, which the server has with one: put it there" in again.stderr
    assert not (tmp_path / "operator.amqp_url").exists()


def test_it_says_what_is_too_wide_and_puts_it_right(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert run(broker, "--apply", "--passwords", folder).exit_code == 0
    server = open_management(broker.admin_url)
    server.put_rights("users_gateway", VHOST, {"configure": ".*", "write": ".*", "read": ".*"})
    server.put_rights("users_gateway", "/", {"configure": ".*", "write": ".*", "read": ".*"})
    server.delete_rights("public", VHOST)
    server.put_limit("public", "max-connections", 5000)
    server.put_account("payments_lane", password_hash("hunter2"))
    tagged = {"password_hash": server.accounts()["items_lane"].password_hash, "tags": "monitoring"}
    server._call("PUT", "users/items_lane", tagged)
    said = run(broker, "--check", "--passwords", folder)
    assert said.exit_code == 1, said.output
    assert said.stdout.splitlines() == [
        "items_lane: it has the tags monitoring",
        "payments_lane: its password",
        rf"users_gateway: configure {REPLIES}, not .*; write ^writes$, not .*; read {REPLIES}, not .*",
        "users_gateway: it has rights in /, too",
        f"public: it has no rights in {VHOST}",
        "public: max-connections: 20, not 5000",
    ]
    assert run(broker, "--check", "--passwords", folder).stdout == said.stdout
    assert run(broker, "--apply", "--passwords", folder).exit_code == 0
    assert kept(broker) == {account.name: as_wanted(account) for account in ACCOUNTS}
    assert all(logs_in((tmp_path / f"{name}.amqp_url").read_text().strip()) for name in NAMES)


def test_definitions_make_the_accounts(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    printed = run(broker, "--json", "--passwords", "env", **variables(PASSWORD))
    assert printed.exit_code == 0, printed.output
    assert json.dumps(PASSWORD) not in printed.output
    file = tmp_path / "definitions.json"
    file.write_text(printed.stdout)
    command = [str(control_program()), "--quiet", "import_definitions", str(file)]
    subprocess.run(command, env=control_environment(broker), timeout=120, check=True)
    assert kept(broker) == {account.name: as_wanted(account) for account in ACCOUNTS}
    address = urlsplit(url_of(broker))
    for name in NAMES:
        user = f"{name}:{quote(PASSWORD, safe='')}"
        assert logs_in(address._replace(netloc=f"{user}@{address.hostname}:{address.port}").geturl()), name


def test_the_definitions_of_compose_make_the_accounts_too(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    """They have passwords instead of hashes, which variables may replace."""
    file = tmp_path / "definitions.json"
    file.write_text(read_compose_file()["configs"]["rabbitmq-accounts"]["content"])
    command = [str(control_program()), "--quiet", "import_definitions", str(file)]
    subprocess.run(command, env=control_environment(broker), timeout=120, check=True)
    assert kept(broker) == {account.name: ({"/": rights_of(account)}, account.limits, "") for account in ACCOUNTS}
    for name in NAMES:
        assert logs_in(f"amqp://{name}:{name}@127.0.0.1:{broker.port}/%2F"), name


def variables(password: str) -> dict[str, str]:
    return {f"BROKER_PASSWORD_{name.upper()}": password for name in NAMES}


def test_others_who_speak_as_the_system_are_named(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    server = open_management(broker.admin_url)
    server.put_account("batch", "AAAAAAAA")
    server.put_rights("batch", VHOST, {"configure": "^$", "write": "^writes", "read": "^$"})
    said = run(broker, "--apply", "--passwords", str(tmp_path)).stderr.splitlines()
    delete_accounts(broker, ["batch"])
    assert said == [
        f"note: administrator speaks as the system and may delete its exchanges in {VHOST}, {FOR_PEOPLE}",
        f"note: batch speaks as the system in {VHOST}: delete it once nothing uses it",
    ]


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--apply"], {}, "there is no account users_lane yet: --passwords says where its password is"),
        (["--apply", "--passwords", "env"], {}, "BROKER_PASSWORD_USERS_LANE is not set"),
        (["--apply", "--passwords", "env"], variables("a\nb"), "BROKER_PASSWORD_USERS_LANE has a control character"),
        (["--check"], {"RABBITMQ_ADMIN_URL": ""}, "RABBITMQ_ADMIN_URL"),
        (["--check"], {"RABBITMQ_ADMIN_URL": "http://administrator:administrator@127.0.0.1:9"}, "127.0.0.1:9 does not"),
        (["--check"], {"AMQP_URL": "amqp://127.0.0.1/nowhere"}, "AMQP_URL: RabbitMQ has no vhost 'nowhere'"),
        (["--check", "--json"], {}, "name one"),
        (["--json"], {}, "--json needs --passwords"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    broker: ManagedRabbitMQ, arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    refused = run(broker, *arguments, **environment)
    said = refused.output + str(refused.exception)
    assert refused.exit_code != 0
    assert expected in said
    assert "administrator:administrator" not in said
    assert kept(broker) == {}


@pytest.mark.parametrize(
    ("user", "password"), [("administrator", "hunter2"), ("nobody", "hunter2"), ("plain", "plain")]
)
def test_an_account_that_may_not_make_others_is_named(broker: ManagedRabbitMQ, user: str, password: str) -> None:
    open_management(broker.admin_url).put_account("plain", password_hash("plain"))
    url = f"http://{user}:{password}@127.0.0.1:{broker.management_port}"
    refused = run(broker, "--check", RABBITMQ_ADMIN_URL=url)
    delete_accounts(broker, ["plain"])
    said = str(refused.exception)
    assert f"does not let '{user}' see and change accounts" in said
    assert "hunter2" not in said


def test_an_administrator_does_not_take_its_own_rights(broker: ManagedRabbitMQ) -> None:
    url = f"http://operator:operator@127.0.0.1:{broker.management_port}"
    refused = run(broker, "--apply", RABBITMQ_ADMIN_URL=url)
    assert "operator is the name of one of these accounts" in str(refused.exception)


def test_a_password_that_others_can_read_is_refused(broker: ManagedRabbitMQ, tmp_path: Path) -> None:
    path = tmp_path / "users_lane.password"
    path.write_text("hunter2\n")
    path.chmod(0o640)
    refused = run(broker, "--passwords", str(tmp_path))
    assert f"{path} can be read by others" in str(refused.exception)
    assert [each.name for each in tmp_path.iterdir()] == ["users_lane.password"]


def test_nobody_can_log_in_as_guest(broker: ManagedRabbitMQ) -> None:
    assert not logs_in(f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F")
    assert not logs_in(f"amqp://guest:@127.0.0.1:{broker.port}/%2F")
    assert logs_in(broker.url)


async def test_an_account_that_only_looks_is_told_of_policies_by_which_a_lane_would_lose_messages(
    broker: ManagedRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, vhost = open_management(broker.admin_url), quote(VHOST, safe="")
    server._call("PUT", "users/watch", {"password": "watch", "tags": "monitoring"})
    server.put_rights("watch", VHOST, {"configure": NOTHING, "write": NOTHING, "read": NOTHING})
    monkeypatch.setenv("RABBITMQ_ADMIN_URL", f"http://watch:watch@127.0.0.1:{broker.management_port}")
    harms_of = open_harms(BrokerSettings(url=url_of(broker)))
    assert harms_of is not None
    connection = await AmqpConnection.open(
        BrokerSettings(url=f"amqp://administrator:administrator@127.0.0.1:{broker.port}/{vhost}"), "test"
    )
    channel = await connection.channel()
    await channel.declare_lane("seats", 1 << 20)
    server._call("PUT", f"policies/{vhost}/all", {"pattern": "dead$", "definition": {"message-ttl": 60_000}})
    wanted = {"seats": ["writes.seats.dead has message-ttl 60000 by the policy all"]}
    await asyncio.to_thread(wait_until, lambda: harms_of(["seats"]) == wanted, "the policy is seen")
    server._call("DELETE", f"policies/{vhost}/all")
    await asyncio.to_thread(wait_until, lambda: harms_of(["seats"]) == {"seats": []}, "there is none any more")
    await connection.close()
    delete_accounts(broker, ["watch"])
