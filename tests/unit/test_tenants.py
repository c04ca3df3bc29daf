"""One service, and a lane with a database for each of its tenants: they share its code, and nothing else."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from coordinator import Command, Service
from coordinator.access.settings import AccessSettings
from coordinator.access.tokens import Tokens
from coordinator.accounts.broker_names import broker_names
from coordinator.cli import cli
from coordinator.client.writes import WriteOptions, execute
from coordinator.dev.plan import plan_of
from coordinator.dev.services import DevService
from coordinator.dev.settings import DevSettings
from coordinator.http.service_gateway import gateway_of
from coordinator.migrations.migrate import migrate
from coordinator.operate.send import checked
from coordinator.operations.lane_access import LaneAccess
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import App, Registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.allowing import OPERATOR
from coordinator.service.defects import defects_of
from coordinator.service.errors import BrokerUnavailable, CommandFailed, ConfigurationError, InvalidCommand
from coordinator.service.ids import new_command_id
from coordinator.service.lane_names import settings_prefix, tenant_of
from coordinator.service.outside_calls import Call, EffectHandler
from coordinator.service.principal import Principal
from coordinator.service.rows import R
from coordinator.service.targets import Targets
from coordinator.stores.lane_tables import DeadLetter, LogEntry, OutboxEntry
from coordinator.stores.open import open_store
from coordinator.stores.passages import Child, child_of, child_text
from coordinator.testing import LaneInMemory
from coordinator.transports.rabbitmq.rights import broker_accounts
from coordinator.worker.inprocess import InProcessWrites
from tests.support.courier import Courier, Parcel, SendParcel, TakeAway, service_of
from tests.support.halls import APP, Guest, HangUp, Invite, LetIn, LetInLater, Poster, halls, posters
from tests.support.system import wait_until

SYSTEM = replace(gateway_of(halls), is_system=True)


def system_of(folder: Path, *services: Service) -> InProcessWrites:
    """In one process, on files that are migrated."""
    stores = {}
    for service in services:
        url = f"sqlite:///{folder}/{service.lane}.sqlite"
        migrate(service, DatabaseSettings(database_url=url))
        stores[service.lane] = open_store(url, service)
    return InProcessWrites(stores, services)


def rows(folder: Path, service: Service, model: type[R]) -> list[R]:
    store = open_store(f"sqlite:///{folder}/{service.lane}.sqlite", service)
    try:
        transaction = store.begin()
        found = transaction.scan(model, 1000)
        transaction.rollback()
    finally:
        store.close()
    return found


class Bills(Courier):
    """Has a poster hung up for each parcel that it takes."""

    @property
    def handlers(self) -> tuple[EffectHandler[TakeAway], ...]:
        return tuple(replace(each, perform=self._perform) for each in super().handlers)

    async def _perform(self, effect: TakeAway, _: Call) -> Command:
        return HangUp(text=f"parcel {effect.id} is taken")


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "what the lanes do is done")


ACME, BOLT = halls.for_tenant("acme"), halls.for_tenant("bolt")


async def test_each_tenant_has_its_own_order_and_rows_and_each_command_is_applied_once(tmp_path: Path) -> None:
    async with system_of(tmp_path, ACME, BOLT) as writes:
        for tenant, names in (("acme", "abc"), ("bolt", "xy"), ("acme", "abc")):
            for name in names:
                options = WriteOptions(tenant=tenant, idempotency_key=name)
                await execute(writes, LetIn(name=name), Guest, options)
        same_key = [
            await execute(writes, LetIn(name="both"), Guest, WriteOptions(tenant=tenant, idempotency_key="one"))
            for tenant in ("acme", "bolt")
        ]
    assert [guest.name for guest in rows(tmp_path, ACME, Guest)] == ["a", "b", "c", "both"]
    assert [guest.name for guest in rows(tmp_path, BOLT, Guest)] == ["x", "y", "both"]
    assert sorted(entry.sequence for entry in rows(tmp_path, BOLT, LogEntry)) == [1, 2, 3]
    assert [each.sequence for each in same_key] == [4, 3]
    assert same_key[0].command_id != same_key[1].command_id


async def test_a_command_for_no_tenant_of_a_service_that_has_some_is_refused_by_name(tmp_path: Path) -> None:
    async with system_of(tmp_path, ACME) as writes:
        with pytest.raises(BrokerUnavailable, match="no lane 'halls'"):
            await execute(writes, LetIn(name="a"), Guest, WriteOptions())
        with pytest.raises(BrokerUnavailable, match="no lane 'halls-bolt'"):
            await execute(writes, LetIn(name="a"), Guest, WriteOptions(tenant="bolt"))


async def test_what_a_tenants_command_emits_stays_with_the_tenant(tmp_path: Path) -> None:
    bills = posters.for_tenant("acme")
    async with system_of(tmp_path, ACME, BOLT, bills, posters.for_tenant("bolt")) as writes:
        await execute(writes, LetInLater(name="a"), type(None), WriteOptions(tenant="acme"))
        await execute(writes, Invite(text="come", wants_answer=True), type(None), WriteOptions(tenant="acme"))
        await until(lambda: len(rows(tmp_path, ACME, Guest)) == 2 and not rows(tmp_path, bills, OutboxEntry))
    assert {guest.name for guest in rows(tmp_path, ACME, Guest)} == {"a", "bill-sticker"}
    assert [poster.text for poster in rows(tmp_path, bills, Poster)] == ["come"]
    assert not rows(tmp_path, BOLT, Guest)
    assert not rows(tmp_path, posters.for_tenant("bolt"), Poster)


async def test_a_lane_that_tenants_share_applies_what_each_of_them_emits(tmp_path: Path) -> None:
    """Two commands of one type and one id, in two lanes, are two commands, and so is what they emit."""
    command_id = new_command_id()
    async with system_of(tmp_path, ACME, BOLT, posters) as writes:
        for tenant in ("acme", "bolt"):
            await execute(writes, Invite(text="come"), type(None), WriteOptions(tenant=tenant, command_id=command_id))
        await until(lambda: not any(rows(tmp_path, each, OutboxEntry) for each in (ACME, BOLT)))
        with pytest.raises(CommandFailed):
            await execute(writes, Invite(text="come", wants_answer=True), type(None), WriteOptions(tenant="acme"))
    assert [poster.text for poster in rows(tmp_path, posters, Poster)] == ["come", "come"]
    (letter,) = rows(tmp_path, ACME, DeadLetter)
    assert "no answer goes between lane posters, and this one, of tenant acme" in letter.reason


async def test_each_tenants_calls_to_the_outside_have_keys_and_answers_of_their_own(tmp_path: Path) -> None:
    courier, command_id = Courier([]), new_command_id()
    tenants = [service_of(courier).for_tenant(tenant) for tenant in ("acme", "bolt")]
    async with system_of(tmp_path, *tenants) as writes:
        for each in tenants:
            await execute(writes, SendParcel(), Parcel, WriteOptions(tenant=each.tenant, command_id=command_id))
        await until(lambda: all(rows(tmp_path, each, Parcel)[0].state == "taken" for each in tenants))
    assert len(set(courier.keys)) == 2
    assert [rows(tmp_path, each, Parcel)[0].results for each in tenants] == [1, 1]


async def test_the_result_of_a_tenants_effect_stays_with_the_tenant_also_where_it_is_for_another_service(
    tmp_path: Path,
) -> None:
    tenants = [service_of(Bills([])).for_tenant("acme"), posters.for_tenant("acme"), posters.for_tenant("bolt")]
    async with system_of(tmp_path, *tenants) as writes:
        await execute(writes, SendParcel(), Parcel, WriteOptions(tenant="acme"))
        await until(lambda: len(rows(tmp_path, tenants[1], Poster)) == 1)
    assert not rows(tmp_path, tenants[2], Poster)


def test_the_file_of_one_tenant_is_refused_to_another(tmp_path: Path) -> None:
    settings = DatabaseSettings(database_url=f"sqlite:///{tmp_path}/one.sqlite")
    migrate(ACME, settings)
    migrate(ACME, settings)
    with pytest.raises(ConfigurationError, match="HALLS_BOLT_DATABASE_URL is that of lane halls-acme"):
        migrate(BOLT, settings)


def test_a_lane_under_test_can_be_a_tenants() -> None:
    lane = LaneInMemory(ACME)
    assert lane.apply(LetInLater(name="a")).applied


def test_a_lane_without_a_tenant_does_not_guess_whose_lane_is_meant() -> None:
    shared = Targets("posters", frozenset({"posters", "halls-acme", "halls-bolt"}))
    assert shared.of("halls") == "halls"
    with pytest.raises(ValueError, match="no lane 'halls' here: it has one for each of its tenants, such as halls-ac"):
        shared.check("halls.let_in", "halls")


def test_a_tenants_lane_is_named_as_neither_a_service_nor_another_tenants() -> None:
    targets = Targets("halls-acme", frozenset({"halls-acme", "halls-acme_2", "posters-acme_2", "posters", "acme"}))
    assert [targets.of(each) for each in ("halls", "posters", "acme", "effects.halls")] == [
        "halls-acme",
        "posters",
        "acme",
        "effects.halls-acme",
    ]
    assert (tenant_of("halls"), tenant_of("halls-acme_2")) == (None, "acme_2")
    assert settings_prefix("halls-acme_2") == "HALLS_ACME_2_"


@pytest.mark.parametrize("tenant", ["", "Acme", "a-b", "a.b", "2", "a" * 51])
def test_a_tenant_of_whom_no_lane_can_be_named_is_a_defect(tenant: str) -> None:
    (defect,) = defects_of(halls.for_tenant(tenant))
    assert "tenant" in defect or "56 characters" in defect


def test_a_copy_of_rows_that_all_tenants_would_share_is_a_defect() -> None:
    cached = halls.replace(projection=lambda: pytest.fail("nobody opens it"))
    assert defects_of(cached) == []
    (defect,) = defects_of(cached.for_tenant("acme"))
    assert "projection" in defect


@pytest.mark.parametrize("target", ["halls-acme", "effects.halls-acme", "halls"])
def test_a_passage_says_in_which_tenants_lane_a_child_is(target: str) -> None:
    assert child_of(child_text(target, "halls.let_in", "1")) == Child(target, "halls.let_in", "1")


def test_an_application_has_a_lane_for_each_tenant_and_none_for_the_service_itself() -> None:
    known = Registry(APP)
    assert known.names == ("halls-acme", "halls-bolt", "posters")
    assert known.targets() == {"halls-acme", "halls-bolt", "posters"}
    assert known.gateway_names == known.names
    acme = known.service("halls-acme")
    assert (acme.name, acme.tenant, acme.lane, acme.models) == ("halls", "acme", "halls-acme", halls.models)
    assert known.service("posters").lane == "posters"
    with pytest.raises(ConfigurationError, match="no lane 'halls': there are halls-acme, halls-bolt, posters"):
        known.service("halls")
    with pytest.raises(ConfigurationError, match="no lane 'posters-acme'"):
        known.service("posters-acme")


def test_an_operator_says_in_which_tenants_lane_a_command_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_APP", "tests.support.halls:APP")
    message = CommandMessage(command_id=new_command_id(), type="halls.let_in", arguments=b'{"name":"ada"}')
    assert checked(message, "halls-bolt")[0] == "halls-bolt"
    with pytest.raises(InvalidCommand, match="of 2 tenants' lanes, such as halls-acme: say --lane"):
        checked(message, None)


def test_what_is_withdrawn_is_withdrawn_in_the_lanes_of_all_tenants_that_are_named(tmp_path: Path) -> None:
    settings = {"COORDINATOR_APP": "tests.support.halls:APP"}
    settings |= {
        f"{settings_prefix(lane)}DATABASE_URL": f"sqlite:///{tmp_path}/{lane}.sqlite" for lane in Registry(APP).names
    }
    runner = CliRunner(env=settings)
    assert runner.invoke(cli, ["migrate"]).exit_code == 0
    told = runner.invoke(cli, ["migrate", "--withdraw", "halls.gone"])
    assert (told.exit_code, told.output.count("nothing_withdrawn")) == (0, 2)
    told = runner.invoke(cli, ["migrate", "halls-bolt", "--withdraw", "halls.gone"])
    assert (told.exit_code, told.output.count("nothing_withdrawn")) == (0, 1)
    told = runner.invoke(cli, ["migrate", "halls-bolt", "--withdraw", "posters.gone"])
    assert (told.exit_code, "no lane of it is among LANES" in told.output) == (2, True)


def test_a_migration_of_all_lanes_names_those_that_could_be_migrated_alone(tmp_path: Path) -> None:
    settings: dict[str, str | None] = {f"{settings_prefix(lane)}DATABASE_URL": None for lane in Registry(APP).names}
    settings |= {"COORDINATOR_APP": "tests.support.halls:APP", "DEV_DIRECTORY": str(tmp_path)}

    def refusal(*arguments: str, **given: str) -> str:
        told = CliRunner(env={**settings, **given}).invoke(cli, ["migrate", *arguments])
        assert isinstance(told.exception, ConfigurationError)
        return str(told.exception)

    url, bolt = f"sqlite:///{tmp_path}/bolt.sqlite", "HALLS_BOLT_DATABASE_URL"
    assert refusal(**{bolt: url}).endswith(
        "HALLS_ACME_DATABASE_URL is not set; POSTERS_DATABASE_URL is not set; "
        "no lane was named, so all are meant: `coordinator migrate halls-bolt` leaves out the rest"
    )
    assert "coordinator migrate" not in refusal()
    assert "coordinator migrate" not in refusal("halls-acme", **{bolt: url})


def test_a_gateway_is_one_tenants() -> None:
    known = Registry(APP)
    assert known.gateway("halls-bolt").name == "halls-bolt"
    with pytest.raises(ConfigurationError, match="no gateway 'halls': there are halls-acme"):
        Registry(replace(APP, gateways={"halls": "nowhere:GATEWAY"})).gateway("halls")


def test_the_one_gateway_of_all_tenants_has_an_account_of_its_own_at_the_broker() -> None:
    names = broker_names(Registry(APP))
    assert names.gateways == ("halls-acme", "halls-bolt", "posters", "halls")
    (account,) = (each for each in broker_accounts(names) if each.name == "halls_gateway")
    assert (account.rights.configure, account.rights.write) == (r"^replies\.gateway\.halls\.", "^writes$")
    app = replace(APP, gateways={"halls": f"{__name__}:SYSTEM"})
    assert broker_names(Registry(app)).system_gateways == ("halls-acme", "halls-bolt", "halls")


def test_an_application_can_be_without_one_of_the_tenants_or_all() -> None:
    assert Registry(APP).without(["halls-acme"]).names == ("halls-bolt", "posters")
    assert Registry(APP).without(["halls-acme", "halls-bolt"]).names == ("posters",)


@pytest.mark.parametrize(
    ("tenants", "words"),
    [
        ({"hall": ("acme",)}, "there is no such service: halls, halls_acme"),
        ({"halls": "acme"}, "must be names"),
        ({"halls": ()}, "must be names"),
        ({"halls": iter(["acme"])}, "must be names"),
        ({"halls": 5}, "must be names"),
        ({"halls": ("bolt", "")}, "has '', which is no name"),
        ({"halls": [None]}, "has None, which is no name"),
        ({"halls": ("acme", "acme")}, "two lanes or gateways would have the settings HALLS_ACME_"),
        ({"halls": ("acme",)}, "two lanes or gateways would have the settings HALLS_ACME_"),
    ],
    ids=["unknown", "a text", "none", "once only", "a number", "empty", "no tenant", "twice", "like a service"],
)
def test_tenants_of_whom_no_lanes_can_be_made_are_refused(tenants: dict[str, Sequence[str]], words: str) -> None:
    app = App(services={"halls": "nowhere:halls", "halls_acme": "nowhere:other"}, tenants=tenants)
    with pytest.raises(ConfigurationError, match=words):
        Registry(app)


@pytest.mark.parametrize("app", [App(services={"a-b": "x:y"}), App(services={}, gateways={"a-b": "x:y"})])
def test_a_name_that_would_be_taken_for_a_tenants_lane_is_refused(app: App) -> None:
    with pytest.raises(ConfigurationError, match="'a-b' is no name of a service or a gateway"):
        Registry(app)


def test_a_gateway_without_a_lane_has_the_settings_of_no_tenant() -> None:
    app = App(services={"halls": "x:y"}, gateways={"halls": "x:z", "halls_acme": "x:y"}, tenants={"halls": ["acme"]})
    with pytest.raises(ConfigurationError, match="two lanes or gateways would have the settings HALLS_ACME_"):
        Registry(app)


def test_a_run_on_a_developers_machine_has_a_gateway_for_each_tenant_and_what_is_one_of_a_kind_once() -> None:
    wishes = replace(APP, dev={"halls": f"{__name__}:WISHES"})
    plan = plan_of(Registry(wishes), DevSettings(), Path(), {})
    ports = {port.setting: port.number for port in plan.ports}
    assert ports["DEV_HALLS_ACME_PORT"] == 8090
    assert len(set(ports.values())) == len(ports)
    assert {"DEV_HALLS_BOLT_PORT", "DEV_HALLS_BOLT_METRICS_PORT", "DEV_POSTERS_PORT"} < set(ports)
    assert plan.secrets == ("HALLS_SECRET",)
    assert tuple(plan.wanted.databases) == ("halls-acme", "halls-bolt", "posters")


WISHES = DevService(gateway_port=8090, secrets=("HALLS_SECRET",))


@pytest.mark.parametrize(
    ("tenant", "seen"), [(None, ["halls-acme", "halls-bolt", "posters"]), ("acme", ["halls-acme", "posters"])]
)
async def test_an_operator_who_is_a_tenants_sees_no_other_tenants_lane(
    tenant: str | None, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    principal = Principal(subject="ada", tenant=tenant, scopes=frozenset({OPERATOR}))

    async def known(_: Tokens, credential: str) -> Principal:
        return principal

    monkeypatch.setattr(Tokens, "principal_of", known)
    settings = AccessSettings(
        methods="tokens", token_issuer="https://issuer.example", token_audience="halls", token_keys="/nowhere.json"
    )
    rights = await LaneAccess(settings, Registry(APP).names).rights_of("a.b.c")
    assert sorted(rights.operated) == seen
