"""compose.yaml and the Dockerfile, as far as they can be checked without an engine: against the Compose
Specification, and against the settings, ports and command lines of the code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from pydantic_settings import BaseSettings

from coordinator.access.opening import check_access
from coordinator.access.settings import AccessSettings
from coordinator.accounts.broker_names import broker_names
from coordinator.cache import scripts
from coordinator.cache.rights import COMMANDS, acl_rules, reader_acl_rules
from coordinator.cli import cli
from coordinator.cli import gateway as gateway_command
from coordinator.dev import docker
from coordinator.dev.plan import plan_of, wanted_of
from coordinator.dev.servers.addresses import ServerPorts, environment, migration_environment
from coordinator.dev.servers.rabbitmq import RabbitMQ
from coordinator.dev.settings import DevSettings
from coordinator.http.server import STOP_MARGIN_S
from coordinator.registry import registry
from coordinator.runtime.addresses import scheme_of
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.settings import (
    BrokerSettings,
    DatabaseSettings,
    EffectSettings,
    GatewaySettings,
    IngressSettings,
    LaneSettings,
    ReaderSettings,
    TelemetrySettings,
    load,
)
from coordinator.stores.open import open_store
from coordinator.transports.rabbitmq.definitions import rights_of
from coordinator.transports.rabbitmq.rights import OPERATOR, PUBLISHER, broker_accounts, gateway_account, lane_account
from shared.items.cache import LEASE_KEY, cache_key
from shared.payments.sandbox.__main__ import main as sandbox_command
from shared.payments.settings import StripeSettings
from tests.support.compose_file import COMPOSE_FILE, VARIABLE, interpolated

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "schemas" / "compose-spec.json"
NAMES = tuple(service.name for service in registry().services)
COORDINATORS = tuple(f"{name}-coordinator" for name in NAMES)
GATEWAYS = tuple(f"{name}-gateway" for name in NAMES)
WORKERS = tuple(f"{service.name}-effects" for service in registry().services if service.effects is not None)
ONCE = ("migrate", "database-accounts")
INGRESS = "ingress"
OURS = (*ONCE, *COORDINATORS, *WORKERS, INGRESS, *GATEWAYS)
OF_OUR_IMAGE = (*OURS, "operations", "operator", "sandbox")
PER_SERVICE = {f"{name.upper()}_{field.upper()}" for name in NAMES for field in DatabaseSettings.model_fields}


TEXT = COMPOSE_FILE.read_text()
WRITTEN: dict[str, Any] = yaml.safe_load(TEXT)
COMPOSE: dict[str, Any] = interpolated(WRITTEN)
COMPOSE_SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OUTSIDE = "partner"


@pytest.fixture(autouse=True)
def _outside_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of compose.yaml."""
    monkeypatch.setenv("INGRESS_ACCOUNTS", OUTSIDE)


OPERATING = (ROOT / "docs" / "OPERATING.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def settings_of(group: type[BaseSettings]) -> set[str]:
    return {f"{group.model_config.get('env_prefix', '')}{field.upper()}" for field in group.model_fields}


def urls() -> Iterator[tuple[str, str, str]]:
    """Every URL that is passed to a process of ours: the process, the setting, the URL."""
    for name in OURS:
        for setting, value in COMPOSE_SERVICES[name]["environment"].items():
            if setting.endswith("_URL"):
                yield name, setting, value


def seconds(duration: str) -> float:
    number, unit = duration[:-1], duration[-1]
    return float(number) * {"s": 1, "m": 60}[unit]


def test_it_is_valid_by_the_compose_specification() -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(WRITTEN)
    assert "version" not in WRITTEN
    assert WRITTEN["name"] == "write-coordinator"


def test_every_variable_has_a_default() -> None:
    assert [
        found for found in re.findall(r"(?<!\$)\$\{?[A-Z_]+[^}\n]*\}?", TEXT) if not VARIABLE.fullmatch(found)
    ] == []


@pytest.mark.parametrize("name", OURS)
def test_every_variable_that_is_passed_is_a_setting(name: str) -> None:
    common = settings_of(TelemetrySettings) | PER_SERVICE | settings_of(CacheSettings)
    known = {
        "migrate": common,
        "accounts": common,
        "coordinator": common | settings_of(BrokerSettings) | settings_of(LaneSettings),
        "effects": common | settings_of(BrokerSettings) | settings_of(EffectSettings) | settings_of(StripeSettings),
        "ingress": common | settings_of(BrokerSettings) | settings_of(IngressSettings),
        "gateway": common
        | settings_of(BrokerSettings)
        | settings_of(GatewaySettings)
        | settings_of(AccessSettings)
        | settings_of(StripeSettings),
    }[name.rpartition("-")[2]]
    assert set(COMPOSE_SERVICES[name]["environment"]) <= known


@pytest.mark.parametrize("name", OURS)
def test_every_setting_that_a_process_needs_is_passed_and_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in COMPOSE_SERVICES[name]["environment"].items():
        monkeypatch.setenv(setting, value)
    for service in NAMES if name in ONCE else [name.partition("-")[0]]:
        if name in WORKERS:
            assert load(StripeSettings).api_key is not None
        elif name in GATEWAYS:
            assert load(ReaderSettings, prefix=f"{service.upper()}_").url(service)
        elif name == INGRESS:
            assert load(IngressSettings).named == (OUTSIDE,)
        else:
            database = load(DatabaseSettings, prefix=f"{service.upper()}_")
            assert database.reader_url is not None or name in COORDINATORS
    for group in (BrokerSettings, LaneSettings, EffectSettings, CacheSettings, GatewaySettings, TelemetrySettings):
        load(group)
    if name in GATEWAYS:
        # It listens for other containers.
        check_access(load(AccessSettings), "0.0.0.0")


def test_what_another_container_serves_is_not_left_at_its_default_address() -> None:
    for name in (*COORDINATORS, *WORKERS, INGRESS, *GATEWAYS):
        assert "AMQP_URL" in COMPOSE_SERVICES[name]["environment"]
    for name in ("items-coordinator", "items-gateway"):
        assert "REDIS_URL" in COMPOSE_SERVICES[name]["environment"]


def test_gateways_are_given_no_address_that_may_write() -> None:
    writing = {
        value
        for name, setting, value in urls()
        if name not in GATEWAYS and setting.endswith(("_DATABASE_URL", "_MIGRATION_URL"))
    }
    given = {(setting, value) for name, setting, value in urls() if name in GATEWAYS and setting != "AMQP_URL"}
    shared_by_both = {setting for setting, value in given if value in writing}
    # compose.yaml's MongoDB has no accounts.
    assert shared_by_both == {"ITEMS_READER_URL"}
    assert "@" not in COMPOSE_SERVICES["items-gateway"]["environment"]["ITEMS_READER_URL"]


def test_the_owner_of_a_database_is_for_migrations_alone() -> None:
    owners = {setting: value for name, setting, value in urls() if setting.endswith("_MIGRATION_URL")}
    assert set(owners) == {"USERS_MIGRATION_URL", "PAYMENTS_MIGRATION_URL"}
    for name, setting, value in urls():
        assert value not in owners.values() or (name in ONCE and setting in owners)


def test_the_cache_s_user_has_the_rights_that_it_needs_and_no_others() -> None:
    [users] = [
        COMPOSE["configs"][config["source"]]["content"].splitlines() for config in COMPOSE_SERVICES["redis"]["configs"]
    ]
    given = {name: urlsplit(value) for name, setting, value in urls() if setting == "REDIS_URL"}
    assert given.keys() == {"items-coordinator", "items-gateway"}
    lane, reader = given["items-coordinator"], given["items-gateway"]
    keys = (cache_key("*"), LEASE_KEY)
    assert users[0] == "user default off"
    assert users[1] == f"user {lane.username} on >{lane.password} {acl_rules(keys)}"
    assert users[2] == f"user {reader.username} on >{reader.password} {reader_acl_rules(keys)}"
    assert [user.split()[1] for user in users[1:]] == ["coordinator", "coordinator_reader", "administrator"]


def test_operating_has_the_accounts_of_the_broker() -> None:
    printed = CliRunner().invoke(cli, ["broker-accounts"], env={"AMQP_URL": "amqp://127.0.0.1"}).stdout.splitlines()
    block = OPERATING.partition("<!-- accounts: the lines of `coordinator broker-accounts` -->\n```sh\n")[2]
    given = ("rabbitmqctl set_permissions ", "rabbitmqctl set_user_limits ")
    assert block.partition("```")[0].splitlines() == [line for line in printed if line.startswith(given)]


def test_operating_has_the_rights_of_the_cache_s_user_as_one_line() -> None:
    [line] = re.findall(r"^ACL SETUSER coordinator reset on >PASSWORD (.+)$", OPERATING, re.MULTILINE)
    [of_readers] = re.findall(r"^ACL SETUSER coordinator_reader reset on >PASSWORD (.+)$", OPERATING, re.MULTILINE)
    assert of_readers == reader_acl_rules((cache_key("*"), LEASE_KEY))
    assert line == acl_rules((cache_key("*"), LEASE_KEY))


def test_the_cache_s_user_may_call_what_the_scripts_call_and_what_calls_the_scripts() -> None:
    called = re.findall(r"redis\.call\('(\w+)'", Path(scripts.__file__).read_text())
    assert {*COMMANDS} == {"select", "evalsha", "script|load", *(command.lower() for command in called)}


def test_a_coordinator_is_given_its_own_database_and_no_other() -> None:
    for name in COORDINATORS:
        own = f"{name.partition('-')[0].upper()}_DATABASE_URL"
        assert PER_SERVICE & set(COMPOSE_SERVICES[name]["environment"]) == {own}


def test_every_process_has_the_address_that_migrate_prepares() -> None:
    prepared = COMPOSE_SERVICES["migrate"]["environment"]
    for name, setting, value in urls():
        if setting in PER_SERVICE:
            expected = setting.replace("DATABASE", "READER") if name in GATEWAYS else setting
            assert value == prepared[expected], f"{name} {setting}"


def test_urls_name_services_and_the_ports_they_listen_on() -> None:
    for name, setting, value in urls():
        address = urlsplit(value)
        assert address.hostname in COMPOSE_SERVICES, f"{name} {setting}"
        published = [port.rsplit(":", 1)[1] for port in COMPOSE_SERVICES[address.hostname]["ports"]]
        assert str(address.port or 27017) in published, f"{name} {setting}"


def test_database_urls_are_taken_by_the_stores() -> None:
    kinds = {"users": "postgresql", "items": "mongodb", "payments": "mysql"}
    for name, setting, value in urls():
        if setting in PER_SERVICE:
            service = registry().service(setting.partition("_")[0].lower())
            assert scheme_of(value) == kinds[service.name], f"{name} {setting}"
            open_store(value, service)


def test_accounts_and_databases_are_those_that_the_servers_are_made_with() -> None:
    prepared = {setting: urlsplit(value) for name, setting, value in urls() if name == "migrate"}
    users, payments = prepared["USERS_MIGRATION_URL"], prepared["PAYMENTS_MIGRATION_URL"]
    postgres, mysql = (COMPOSE_SERVICES[name]["environment"] for name in ("postgres", "mysql"))
    assert [postgres[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB")] == [
        users.username,
        users.password,
        users.path[1:],
    ]
    assert [mysql[f"MYSQL_{part}"] for part in ("USER", "PASSWORD", "DATABASE")] == [
        payments.username,
        payments.password,
        payments.path[1:],
    ]


def test_every_process_has_its_own_account_of_the_broker_with_the_rights_that_the_product_says() -> None:
    accounts = broker_accounts(broker_names(registry()))
    made = json.loads(COMPOSE["configs"]["rabbitmq-accounts"]["content"])
    rights = {each.pop("user"): each for each in made["permissions"]}
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    wanted = {each.name: rights_of(each) for each in accounts} | {"administrator": everything}
    assert rights == {name: {"vhost": "/", **each} for name, each in wanted.items()}
    by_name = {each["name"]: each for each in made["users"]}
    assert [name for name, each in by_name.items() if each["tags"]] == ["administrator"]
    assert by_name["guest"]["password_hash"] == ""
    assert {name: each["limits"] for name, each in by_name.items() if "limits" in each} == {
        each.name: each.limits for each in accounts if each.limits
    }
    given = {name: urlsplit(value) for name, setting, value in urls() if setting == "AMQP_URL"}
    kinds = {"coordinator": "lane", "effects": "effects", "gateway": "gateway"}
    for name, address in given.items():
        service, _, kind = name.partition("-")
        assert address.username == (f"{service}_{kinds[kind]}" if kind else name)
        assert address.password == by_name[address.username]["password"]
    others = {OPERATOR, PUBLISHER, OUTSIDE}
    assert {address.username for address in given.values()} == {each.name for each in accounts} - others
    assert urlsplit(COMPOSE_SERVICES["operator"]["environment"]["AMQP_URL"]).username == OPERATOR
    believed = {COMPOSE_SERVICES[name]["environment"]["LANE_GATEWAY_ACCOUNTS"] for name in COORDINATORS}
    assert believed == {" ".join(broker_names(registry()).gateway_accounts)}


def test_coordinator_dev_finds_the_servers_with_the_accounts_that_it_expects() -> None:
    wanted, ports = wanted_of(registry()), ServerPorts(amqp=1, postgresql=2, mysql=3, mongodb=4, redis=5)
    expected = environment(wanted, ports) | migration_environment(wanted, ports)
    inside = {setting: value for _, setting, value in urls()} | dict(COMPOSE_SERVICES["migrate"]["environment"])
    inside["AMQP_URL"] = COMPOSE_SERVICES["operator"]["environment"]["AMQP_URL"]
    expected["REDIS_URL"] = environment(wanted, ports, lane_account("items"))["REDIS_URL"]
    inside["REDIS_URL"] = COMPOSE_SERVICES["items-coordinator"]["environment"]["REDIS_URL"]
    expected["reader's"] = environment(wanted, ports, gateway_account("items"))["REDIS_URL"]
    inside["reader's"] = COMPOSE_SERVICES["items-gateway"]["environment"]["REDIS_URL"]
    for setting, outside in expected.items():
        ours, theirs = urlsplit(inside[setting]), urlsplit(outside)
        assert (ours.scheme, ours.username, ours.password, ours.path) == (
            theirs.scheme,
            theirs.username,
            theirs.password,
            theirs.path,
        ), setting
    assert {"rabbitmq", *docker.SERVICES.values()} <= set(COMPOSE_SERVICES)


def test_ports_are_published_on_loopback_under_the_numbers_of_coordinator_dev() -> None:
    variables = {}
    for service in WRITTEN["services"].values():
        for published in service.get("ports", []):
            [(variable, default)] = re.findall(r"^127\.0\.0\.1:\$\{([A-Z_]+):-(\d+)\}:\d+$", published)
            variables[variable] = int(default)
    assert variables.pop("RABBITMQ_MANAGEMENT_PORT") == 15672
    assert (variables.pop("PROMETHEUS_PORT"), variables.pop("GRAFANA_PORT")) == (9090, 3000)
    defaults = {f"DEV_{name.upper()}": field.default for name, field in DevSettings.model_fields.items()}
    defaults |= {port.setting: port.number for port in plan_of(registry(), DevSettings(), ROOT, {}).ports}
    assert variables == {name: defaults[name] for name in variables}
    assert {f"DEV_{server}_PORT" for server in ("AMQP", "POSTGRESQL", "MYSQL", "MONGODB", "REDIS")} <= set(variables)
    assert [variables[f"DEV_{name.upper()}_PORT"] for name in NAMES] == [8081, 8082, 8083]


def test_the_proxy_has_the_port_of_every_gateway() -> None:
    content = COMPOSE["configs"]["proxy"]["content"]
    listens = dict(re.findall(r"bind :(\d+)\n  http-request .*\n  server-template gateway \S+ (\S+)", content))
    for position, name in enumerate(GATEWAYS):
        command = COMPOSE_SERVICES[name]["command"]
        assert listens[str(8081 + position)] == f"{name}:{command[command.index('--port') + 1]}"
    assert {port.rsplit(":", 1)[1] for port in COMPOSE_SERVICES["proxy"]["ports"]} == set(listens)
    slowest_s = min(float(limit) for limit in re.findall(r"timeout (?:client|server) (\d+)s", content))
    assert slowest_s > GatewaySettings.model_fields["wait_s"].default + STOP_MARGIN_S


@pytest.mark.parametrize("name", [*COORDINATORS, *WORKERS, INGRESS, *GATEWAYS])
def test_what_is_scaled_publishes_no_port_and_has_no_fixed_name(name: str) -> None:
    assert not {"ports", "container_name", "hostname"} & set(COMPOSE_SERVICES[name])


@pytest.mark.parametrize("name", COORDINATORS)
def test_every_lane_has_a_standby(name: str) -> None:
    assert COMPOSE_SERVICES[name]["deploy"]["replicas"] >= 2


@pytest.mark.parametrize("name", OURS)
def test_commands_are_taken_by_the_command_lines(name: str) -> None:
    first, *rest = COMPOSE_SERVICES[name]["command"]
    if name in GATEWAYS:
        assert COMPOSE_SERVICES[name]["entrypoint"] == ["python", "-m", "gateways"]
        gateway_command.make_context(name, [first, *rest])
        assert first == name.partition("-")[0]
    else:
        assert "entrypoint" not in COMPOSE_SERVICES[name]
        command = cli.get_command(click.Context(cli), first)
        assert command is not None
        command.make_context(name, list(rest))
        assert name in (*ONCE, INGRESS) or rest[0] == name.partition("-")[0]


@pytest.mark.parametrize("name", sorted(set(COMPOSE_SERVICES) - {*ONCE, "operator"}))
def test_every_service_has_a_health_check_that_speaks_to_it(name: str) -> None:
    health = COMPOSE_SERVICES[name]["healthcheck"]
    assert {"test", "interval", "timeout", "retries", "start_period", "start_interval"} <= set(health)
    asked = {
        "rabbitmq": "rabbitmq-diagnostics",
        "postgres": "SELECT 1",
        "mysql": "SELECT 1",
        "mongodb": "isWritablePrimary",
        "redis": "PONG",
        "proxy": "/healthz",
        "prometheus": "/-/ready",
        "grafana": "/api/health",
    }
    assert asked.get(name, "/readyz") in " ".join(health["test"])


@pytest.mark.parametrize("name", [*COORDINATORS, *WORKERS, INGRESS, *GATEWAYS])
def test_health_checks_ask_the_port_that_the_process_listens_on(name: str) -> None:
    service = COMPOSE_SERVICES[name]
    option = "--port" if name in GATEWAYS else "--metrics-port"
    assert service["healthcheck"]["test"][-1] == service["command"][service["command"].index(option) + 1]
    compile(service["healthcheck"]["test"][3], "healthcheck", "exec")


def test_the_replica_set_has_its_member_under_the_service_name() -> None:
    assert 'host: "mongodb:27017"' in " ".join(COMPOSE_SERVICES["mongodb"]["healthcheck"]["test"])
    assert "rs0" in COMPOSE_SERVICES["mongodb"]["command"]
    assert COMPOSE_SERVICES["migrate"]["environment"]["ITEMS_DATABASE_URL"].endswith("replicaSet=rs0")


def test_dependencies_wait_for_health_and_for_the_migrations() -> None:
    for name, service in COMPOSE_SERVICES.items():
        for dependency, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if dependency in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} on {dependency}"
    for name in OURS:
        hosts = {urlsplit(value).hostname for process, _, value in urls() if process == name}
        waited_for = set(COMPOSE_SERVICES[name]["depends_on"])
        if name not in ONCE:
            assert "database-accounts" in waited_for, name
        if name != "migrate":
            waited_for |= set(COMPOSE_SERVICES["migrate"]["depends_on"])
        assert hosts <= waited_for, name


def test_the_roles_of_each_database_that_has_roles_are_confined() -> None:
    confined = COMPOSE_SERVICES["database-accounts"]
    assert tuple(confined["command"][1:-1]) == wanted_of(registry()).with_roles
    assert {f"{name.upper()}_MIGRATION_URL" for name in confined["command"][1:-1]} <= set(confined["environment"])


def test_a_stop_is_given_the_time_that_it_may_take() -> None:
    stop_s = LaneSettings.model_fields["stop_timeout_s"].default
    wait_s = GatewaySettings.model_fields["wait_s"].default
    for name in COORDINATORS:
        # Once for the lane's thread, once for the broker's.
        assert seconds(COMPOSE_SERVICES[name]["stop_grace_period"]) > 2 * stop_s
    for name in GATEWAYS:
        assert seconds(COMPOSE_SERVICES[name]["stop_grace_period"]) > wait_s + STOP_MARGIN_S
    for name in WORKERS:
        least_s = EffectSettings.model_fields["stop_timeout_s"].default
        assert seconds(COMPOSE_SERVICES[name]["stop_grace_period"]) > least_s


def test_the_sandbox_is_where_the_payments_processes_look_for_it_and_tells_the_gateway() -> None:
    command = COMPOSE_SERVICES["sandbox"]["command"]
    options = dict(option.removeprefix("--").split("=", 1) for option in command)
    address = urlsplit(COMPOSE_SERVICES["payments-effects"]["environment"]["STRIPE_API_BASE"])
    assert (address.hostname, str(address.port)) == ("sandbox", options["port"])
    gateway = urlsplit(options["webhook-url"])
    assert gateway.hostname is not None
    _, arguments = " ".join(COMPOSE_SERVICES[gateway.hostname]["command"]).split(" --port ")
    assert arguments.split()[0] == str(gateway.port)
    secret = COMPOSE_SERVICES[gateway.hostname]["environment"]["STRIPE_WEBHOOK_SECRET"]
    assert COMPOSE_SERVICES["sandbox"]["environment"] == {"STRIPE_WEBHOOK_SECRET": secret}
    sandbox_command.make_context("sandbox", list(command))


def test_who_marks_payments_and_who_takes_events_have_the_same_key() -> None:
    keys = {
        COMPOSE_SERVICES[name]["environment"]["STRIPE_METADATA_KEY"]
        for name in ("payments-effects", "payments-gateway")
    }
    assert len(keys) == 1


def test_everything_starts_again_but_the_migrations() -> None:
    once = {name for name, service in COMPOSE_SERVICES.items() if service["restart"] != "unless-stopped"}
    assert once == {*ONCE, "operator"}


def test_the_operator_has_every_address_and_waits_for_nothing() -> None:
    operator = COMPOSE_SERVICES["operator"]
    elsewhere = {
        setting: value
        for name in (*COORDINATORS, *WORKERS, INGRESS)
        for setting, value in COMPOSE_SERVICES[name]["environment"].items()
    } | dict(COMPOSE_SERVICES["migrate"]["environment"])
    elsewhere.pop("TELEMETRY_METRICS_HOST")
    elsewhere.pop("LANE_GATEWAY_ACCOUNTS")  # it runs no lane
    elsewhere.pop("AMQP_URL")  # of another account
    elsewhere.pop("REDIS_URL")  # it does not ask the cache
    elsewhere = {setting: value for setting, value in elsewhere.items() if not setting.endswith("_MIGRATION_URL")}
    assert elsewhere.items() <= operator["environment"].items()
    # Not started by `up`. Its command line is a whole one: `docker compose run --rm operator coordinator status`.
    assert operator["profiles"] == ["operator"]
    assert operator["entrypoint"] == []
    assert "depends_on" not in operator


@pytest.mark.parametrize("name", sorted(COMPOSE_SERVICES))
def test_no_container_may_take_all_of_the_machine(name: str) -> None:
    service = COMPOSE_SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert re.fullmatch(r"\d+[mg]", limits["memory"])
    assert limits["pids"] > 0
    # A process of ours has one core's worth of work, and Docker refuses more than there are.
    assert limits.get("cpus") == ("1" if name in OF_OUR_IMAGE else None)
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])


def test_volumes_are_declared_and_used() -> None:
    used = [volume.partition(":")[0] for service in COMPOSE_SERVICES.values() for volume in service.get("volumes", [])]
    assert sorted(used) == sorted(COMPOSE["volumes"])
    for name in {"rabbitmq", *docker.SERVICES.values()} - {"redis"}:
        assert COMPOSE_SERVICES[name]["volumes"], name


def test_images_are_pinned_to_versions_that_are_known_to_be_right() -> None:
    least = {
        "rabbitmq": (4, 2, 6),  # before it a reorder bug, docs/ARCHITECTURE.md
        "postgres": (17,),
        "mysql": (8, 4),
        "mongodb": (8, 0),
        "redis": (7,),
        "proxy": (3, 0),
        "prometheus": (3, 5),
        "grafana": (12,),
    }
    for name, service in COMPOSE_SERVICES.items():
        if name in OF_OUR_IMAGE:
            assert service["image"] == "write-coordinator:local"
            continue
        _, _, tag = service["image"].partition(":")
        [numbers] = re.findall(r"^v?(\d+(?:\.\d+)*)", tag)
        version = tuple(int(part) for part in numbers.split("."))
        assert least[name] <= version < (least[name][0] + 1,), name


def test_one_service_builds_the_image_and_the_others_wait_for_it() -> None:
    assert [name for name in OURS if "build" in COMPOSE_SERVICES[name]] == ["migrate"]
    for name in (*COORDINATORS, *WORKERS, INGRESS, *GATEWAYS):
        assert COMPOSE_SERVICES[name]["pull_policy"] == "never"
        assert "database-accounts" in COMPOSE_SERVICES[name]["depends_on"]
    assert "migrate" in COMPOSE_SERVICES["database-accounts"]["depends_on"]


def test_configurations_are_used_and_declared_and_not_put_into_a_read_only_container() -> None:
    used = [
        (name, config["source"]) for name, service in COMPOSE_SERVICES.items() for config in service.get("configs", [])
    ]
    assert sorted(source for _, source in used) == sorted(COMPOSE["configs"])
    # Compose copies their content into the container, which Docker refuses there.
    assert not any(COMPOSE_SERVICES[name].get("read_only") for name, _ in used)


def test_a_changed_configuration_makes_a_new_container() -> None:
    for name, service in COMPOSE_SERVICES.items():
        for config in service.get("configs", []):
            if "file" in COMPOSE["configs"][config["source"]]:
                continue  # the container has the file itself, and reads it at its next start
            if config["source"] != "mysql-rights":  # read once, by an empty volume
                assert COMPOSE["configs"][config["source"]]["content"] in service["labels"].values(), name


def test_the_proxy_repeats_only_what_may_be_repeated() -> None:
    proxies = COMPOSE["configs"]["proxy"]["content"].split("\nlisten ")[1:]
    assert len(proxies) == len(GATEWAYS)
    for proxy in proxies:
        assert "disable-l7-retry if !{ method GET HEAD } !{ req.hdr(idempotency-key) -m found }" in proxy


def last_stage() -> str:
    return DOCKERFILE.rpartition("\nFROM ")[2]


def test_the_image_runs_the_coordinator_as_another_user_than_root() -> None:
    users = re.findall(r"^USER (\S+)$", last_stage(), re.MULTILINE)
    assert users, "no USER in the last stage"
    assert users[-1].partition(":")[0] not in ("0", "root")
    assert re.search(r"--uid " + users[-1], last_stage())
    assert 'ENTRYPOINT ["coordinator"]' in last_stage()
    assert "PYTHONUNBUFFERED=1" in last_stage()


def test_the_image_has_no_build_tools_and_only_what_the_locks_pin() -> None:
    assert not re.search(r"\b(apt-get|pip|gcc|build-essential)\b", last_stage())
    for line in DOCKERFILE.replace("\\\n", " ").splitlines():
        for install in re.findall(r"pip \S+ \S+ install ([^&]*)", line):
            assert "--require-hashes" in install or "--no-index" in install, line


def test_the_build_backend_is_taken_from_the_lock() -> None:
    [pattern] = re.findall(r"wanted = /(\S+)/\}", DOCKERFILE)
    pinned = [
        line.partition("=")[0]
        for line in (ROOT / "requirements-dev.lock").read_text().splitlines()
        if line[:1].isalpha()
    ]
    [alternatives] = re.findall(r"\(([^)]*)\)", pattern)
    names = alternatives.split("|")
    assert "hatchling" in names
    assert set(names) <= set(pinned)


def test_all_that_the_image_copies_is_let_through_by_dockerignore() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)


def test_the_readme_has_the_ports() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [port for port in ("8081", "8082", "8083") if port not in readme] == []


def test_the_broker_s_limits_are_those_of_make_run_and_of_operating() -> None:
    """All options of a listener, since one of them takes the place of all that RabbitMQ has by itself."""
    option = re.compile(r"^ *(max_message_size|frame_max|tcp_listen_options\.\S+) = (\S+)$", re.MULTILINE)
    in_compose = option.findall(WRITTEN["configs"]["rabbitmq-limits"]["content"])
    assert [name.removeprefix("tcp_listen_options.") for name, _ in in_compose] == [
        *("max_message_size", "frame_max", "backlog", "nodelay", "linger.on", "linger.timeout", "exit_on_close"),
        *("send_timeout", "send_timeout_close"),
    ]
    with TemporaryDirectory() as directory:
        server = RabbitMQ(Path(directory), 5672, dist_port=1, epmd_port=2)
        server.write_configuration()
        assert option.findall((Path(directory) / "rabbitmq.conf").read_text()) == in_compose
    operating = (ROOT / "docs" / "OPERATING.md").read_text()
    assert option.findall(operating) == in_compose[2:]
    for name, value in in_compose[:2]:
        assert f"`{name} = {value}`" in operating
