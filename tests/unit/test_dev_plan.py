"""A run is planned from what services say of themselves, and its ports are checked before anything starts."""

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from coordinator.dev.plan import PlannedPort, check_ports, kept_names, plan_of, plan_of_one, server_ports, wanted_of
from coordinator.dev.servers.ports import free_port
from coordinator.dev.services import DevService, Helper
from coordinator.dev.settings import DevSettings, load_settings
from coordinator.registry import App, Registry, registry
from coordinator.service.errors import ConfigurationError

DEV_PORTS = [port.setting for port in plan_of(registry(), DevSettings(), Path(), {}).ports]


def all_ports(given: Mapping[str, str], *, servers: bool = True) -> list[PlannedPort]:
    plan = plan_of(registry(), DevSettings(), Path(), given)
    return [*(server_ports(load_settings(), plan.wanted) if servers else []), *plan.ports]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every port a free one; that of one gateway is of another run."""
    for name in DevSettings.model_fields:
        if name.endswith("_port") and name != "gateway_port":
            monkeypatch.setenv(f"DEV_{name.upper()}", str(free_port()))
    return {setting: str(free_port()) for setting in DEV_PORTS}


def test_the_ports_of_the_reference_system_are_those_that_its_services_say() -> None:
    assert {port.setting: port.number for port in plan_of(registry(), DevSettings(), Path(), {}).ports} == {
        "DEV_OPERATIONS_PORT": 8080,
        "DEV_USERS_PORT": 8081,
        "DEV_ITEMS_PORT": 8082,
        "DEV_PAYMENTS_PORT": 8083,
        "DEV_USERS_METRICS_PORT": 9101,
        "DEV_ITEMS_METRICS_PORT": 9102,
        "DEV_PAYMENTS_METRICS_PORT": 9103,
        "DEV_PAYMENTS_EFFECTS_PORT": 9113,
        "DEV_SANDBOX_PORT": 8090,
    }


def test_free_ports_pass(given: dict[str, str]) -> None:
    check_ports(all_ports(given))


def test_with_redis_as_the_broker_rabbitmq_has_no_port(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_BROKER", "redis")
    plan = plan_of(registry(), load_settings(), Path(), given)
    titles = {port.title for port in server_ports(load_settings(), plan.wanted)}
    assert titles == {"The Redis that is the broker", "PostgreSQL", "MySQL or MariaDB", "MongoDB", "Redis"}


@pytest.mark.parametrize(
    ("setting", "title"),
    [
        ("DEV_POSTGRESQL_PORT", "PostgreSQL"),
        ("DEV_AMQP_DIST_PORT", "RabbitMQ's Erlang distribution"),
        ("DEV_ITEMS_PORT", "the gateway of items"),
        ("DEV_USERS_METRICS_PORT", "the coordinator of users"),
        ("DEV_PAYMENTS_EFFECTS_PORT", "the effect worker of payments"),
        ("DEV_SANDBOX_PORT", "the sandbox payment provider"),
    ],
)
def test_a_port_in_use_is_named_with_its_setting(given: dict[str, str], setting: str, title: str) -> None:
    [port] = [port.number for port in all_ports(given) if port.setting == setting]
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ConfigurationError) as caught:
            check_ports(all_ports(given))
        assert str(caught.value) == f"port {port} is in use ({title}); set {setting} to a free one"


def test_the_sandbox_needs_no_port_where_payments_go_elsewhere(given: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(given["DEV_SANDBOX_PORT"]))):
        check_ports(all_ports(given | {"STRIPE_API_KEY": "sk_test_of_the_user"}))


def test_a_port_given_twice_is_named(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_REDIS_PORT", str(load_settings().mysql_port))
    with pytest.raises(ConfigurationError, match="given to both DEV_MYSQL_PORT and DEV_REDIS_PORT"):
        check_ports(all_ports(given))


def test_a_host_that_is_none_of_this_machine_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"DEV_HOST: 'nowhere\.invalid' is not an address"):
        check_ports([PlannedPort("DEV_ORDERS_PORT", free_port(), "the gateway of orders", "nowhere.invalid")])


@pytest.mark.parametrize("value", ["many", "0", "65536", "-1", "²"])
def test_a_setting_that_is_no_port_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match="DEV_USERS_PORT must be a port, from 1 to 65535"):
        plan_of(registry(), DevSettings(), Path(), {"DEV_USERS_PORT": value})


def beside(**dev: str) -> Registry:
    """The reference system and a fourth service, whose gateway here is another's."""
    app = App(
        services={"ledger": "tests.support.ledger:LEDGER", "users": "shared.users:SERVICE"},
        gateways={"ledger": "gateways.users:GATEWAY", "users": "gateways.users:GATEWAY"},
        dev={"users": "shared.users.dev:DEV", **dev},
    )
    return Registry(app)


def test_a_service_that_says_nothing_gets_the_next_ports_and_a_database_on_postgresql() -> None:
    plan = plan_of(beside(), DevSettings(), Path(), {})
    numbers = {port.setting: port.number for port in plan.ports}
    assert numbers == {
        "DEV_OPERATIONS_PORT": 8080,
        "DEV_USERS_PORT": 8081,
        "DEV_USERS_METRICS_PORT": 9101,
        "DEV_LEDGER_PORT": 8082,
        "DEV_LEDGER_METRICS_PORT": 9102,
    }
    assert plan.wanted.databases == {"ledger": "postgresql", "users": "postgresql"}
    assert plan.wanted.kinds == ("postgresql",)
    moved = plan_of(beside(), DevSettings(), Path(), {"DEV_LEDGER_PORT": "8500"})
    assert [port.number for port in moved.ports if port.setting == "DEV_LEDGER_PORT"] == [8500]


def no_settings(_: object) -> dict[str, str]:
    return {}


def command(_: object) -> list[str]:
    return ["true"]


NO_DECLARATION = object()
CACHED = DevService(database="mysql", cache="redis", gateway_port=8500)
WITH_A_FOLDER_OF_ITS_RUN = DevService(
    helpers=(Helper(name="logs", title="logs", port=1, command=command, settings=no_settings),)
)
WITH_THE_NAME_OF_A_SERVICE = DevService(
    helpers=(Helper(name="users", title="users", port=1, command=command, settings=no_settings),)
)

WITH_THE_NAME_OF_A_SERVER = DevService(
    helpers=(Helper(name="redis", title="redis", port=1, command=command, settings=no_settings),)
)


def test_a_service_gets_what_it_says() -> None:
    known = beside(ledger="tests.unit.test_dev_plan:CACHED")
    plan = plan_of(known, DevSettings(), Path(), {})
    assert wanted_of(known).kinds == ("postgresql", "mysql", "redis")
    assert {port.setting: port.number for port in plan.ports}["DEV_LEDGER_PORT"] == 8500


def test_the_port_of_the_gateway_counts_on_servers_where_there_is_one_gateway() -> None:
    settings = DevSettings(gateway_port=8600)
    alone = registry().without(["items", "payments"])
    plan = plan_of(alone, settings, Path(), {})
    assert {port.setting: port.number for port in plan.ports}["DEV_USERS_PORT"] == 8600
    assert plan_of_one(alone, settings, Path(), {}).gateway.number == 8600
    own = plan_of(alone, settings, Path(), {"DEV_USERS_PORT": "8700"})
    assert {port.setting: port.number for port in own.ports}["DEV_USERS_PORT"] == 8700


def test_the_port_of_the_gateway_is_refused_on_servers_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_GATEWAY_PORT", "8600")
    with pytest.raises(ConfigurationError, match=r"DEV_GATEWAY_PORT .*DEV_USERS_PORT, DEV_ITEMS_PORT"):
        plan_of(registry(), load_settings(), Path(), {})
    assert plan_of_one(registry(), load_settings(), Path(), {}).gateway.number == 8600


def test_a_declaration_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="service 'ledger' must be a DevService"):
        plan_of(beside(ledger="tests.unit.test_dev_plan:NO_DECLARATION"), DevSettings(), Path(), {})


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("WITH_A_FOLDER_OF_ITS_RUN", "logs"),
        ("WITH_THE_NAME_OF_A_SERVICE", "DEV_USERS_PORT"),
        ("WITH_THE_NAME_OF_A_SERVER", "DEV_REDIS_PORT"),
    ],
)
def test_nobody_takes_a_name_that_is_taken(name: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{what} is asked for twice"):
        plan_of(beside(ledger=f"tests.unit.test_dev_plan:{name}"), DevSettings(), Path(), {})


def test_what_a_run_keeps_is_known_by_its_application() -> None:
    assert kept_names(registry()) == {"sandbox", "stripe-metadata-key", "stripe-metadata-key.new"}


@pytest.mark.parametrize("module", ["supervisor", "cleaning", "docker", "servers.server_set"])
def test_a_run_loads_no_driver_before_it_knows_which_servers_it_has(module: str) -> None:
    """Its user has installed those that his services want."""
    drivers = ("psycopg", "pymysql", "pymongo", "redis")
    code = f"import sys; import coordinator.dev.{module}; print([name for name in {drivers} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "[]\n"


def test_a_run_on_redis_needs_no_driver_of_rabbitmq(tmp_path: Path) -> None:
    """Whoever has installed the extras of a project on Redis alone has none."""
    program = f"""
import sys
sys.modules["pika"] = None
from pathlib import Path
from coordinator.dev import supervisor
from coordinator.dev.servers.addresses import Wanted
from coordinator.dev.servers.server_set import ServerSet
print(*(each.name for each in ServerSet.native(Path({str(tmp_path)!r}), Wanted({{}}, broker="redis")).servers))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "redis-broker\n"), ran.stderr
