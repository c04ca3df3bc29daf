"""Settings that cannot be, alone or together: each error names them and their values."""

import itertools
import re
from pathlib import Path
from typing import Any, get_args

import pika.data
import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings
from structlog.testing import capture_logs

from coordinator.access.settings import AccessSettings
from coordinator.dev.workspace import Workspace
from coordinator.documents.generated import groups
from coordinator.operations.settings import OperationsSettings
from coordinator.protocol.packing import ENVELOPE_BYTES_MAX, PACK_BYTES_MAX
from coordinator.registry import registry
from coordinator.runtime import settings as all_settings
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.fit import check_fit
from coordinator.runtime.loading import check_all
from coordinator.runtime.longest_time import SECONDS_MAX, SECONDS_MIN
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.settings import (
    BrokerSettings,
    DatabaseSettings,
    EffectSettings,
    GatewaySettings,
    IngressSettings,
    LaneSettings,
    Limits,
    ReaderSettings,
    load,
)
from coordinator.runtime.trace_settings import TraceSettings
from coordinator.service.errors import ConfigurationError
from coordinator.transports.reconnecting import Reconnecting
from shared.payments import open_payment_effects
from shared.payments.settings import StripeSettings, check_calls_fit

GROUPS: list[type[BaseSettings]] = [
    BrokerSettings,
    LaneSettings,
    EffectSettings,
    IngressSettings,
    CacheSettings,
    GatewaySettings,
    StripeSettings,
]


def floats() -> list[tuple[type[BaseSettings], str]]:
    return [
        (group, name) for group in GROUPS for name, field in group.model_fields.items() if field.annotation is float
    ]


def refusal(monkeypatch: pytest.MonkeyPatch, group: type[BaseSettings], **values: Any) -> str:
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigurationError) as refused:
        load(group)
    return str(refused.value)


@pytest.mark.parametrize(("group", "name"), floats(), ids=lambda each: each if isinstance(each, str) else each.__name__)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e30"])
def test_a_time_without_an_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, group: type[BaseSettings], name: str, value: str
) -> None:
    variable = f"{group.model_config['env_prefix']}{name.upper()}"
    assert variable in refusal(monkeypatch, group, **{variable: value})


NUMBERS = [
    (group, name, field)
    for group, _ in groups()
    for name, field in group.model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
]


def bounds_of(group: type[BaseSettings], name: str, field: FieldInfo) -> tuple[float, float]:
    """The least and the most that a number may be."""
    least = [each for known in field.metadata if (each := getattr(known, "ge", None)) is not None]
    most = [each for known in field.metadata if (each := getattr(known, "le", None)) is not None]
    if Limits in group.__mro__ and name.endswith(("_s", "_s_max")):
        most.append(SECONDS_MAX)
    assert (bool(least), bool(most)) == (True, True), f"{group.__name__}.{name} needs both bounds"
    return max(least), min(most)


@pytest.mark.parametrize(
    ("group", "name", "field"), NUMBERS, ids=[f"{group.__name__}.{name}" for group, name, _ in NUMBERS]
)
def test_a_number_has_bounds_that_what_is_behind_it_takes(
    monkeypatch: pytest.MonkeyPatch, group: type[BaseSettings], name: str, field: FieldInfo
) -> None:
    """Beyond them a process would start, and fail for ever or never answer."""
    least, most = bounds_of(group, name, field)
    variable = f"{group.model_config['env_prefix']}{name.upper()}"
    # A number of bytes that a driver writes as 64 bits, and one that a script of Redis's adds up exactly.
    assert most < 1 << 53
    for value in (least - 1, most + 1, 10**23, *([1e-320] if least == 0 and name.endswith("_s") else [])):
        assert variable in refusal(monkeypatch, group, **{variable: value})
    if name.endswith(("_s", "_s_max")) and least > 0:
        assert least >= SECONDS_MIN


def test_the_largest_queue_is_one_that_the_broker_s_protocol_can_name() -> None:
    ((_, _, field),) = [each for each in NUMBERS if each[0] is BrokerSettings and each[1] == "queue_bytes_max"]
    _, most = bounds_of(BrokerSettings, "queue_bytes_max", field)
    pieces: list[bytes] = []
    pika.data.encode_table(pieces, {"x-max-length-bytes": BrokerSettings(queue_bytes_max=int(most)).queue_bytes_max})
    table, _ = pika.data.decode_table(b"".join(pieces), 0)
    assert table == {"x-max-length-bytes": most}


@pytest.mark.parametrize("is_named", [False, True])
def test_a_missing_address_is_told_with_the_file_of_a_run_that_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_named: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEV_DIRECTORY", raising=False)
    run = Workspace(Path("named" if is_named else ".dev"))
    run.directory.mkdir()
    if is_named:
        monkeypatch.setenv("DEV_DIRECTORY", "named")

    def told() -> str:
        with pytest.raises(ConfigurationError) as refused:
            load(DatabaseSettings, prefix="SEATS_")
        return str(refused.value)

    assert told() == "SEATS_DATABASE_URL is not set"
    run.write_environment({"OTHER_DATABASE_URL": "sqlite:///there"})
    assert told() == "SEATS_DATABASE_URL is not set"
    run.write_environment({"SEATS_DATABASE_URL": "sqlite:///there"})
    named = "named" if is_named else ".dev"
    assert told() == f"SEATS_DATABASE_URL is not set (`source {named}/env` has the addresses of `coordinator dev`)"


def test_so_is_whatever_else_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The application, the address that a gateway reads, and the broker, which has a default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEV_DIRECTORY", raising=False)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    monkeypatch.setenv("COORDINATOR_APP", "")

    def told() -> list[str]:
        with pytest.raises(ConfigurationError) as application:
            registry()
        with pytest.raises(ConfigurationError) as reader:
            ReaderSettings().url("seats")
        return [str(application.value), str(reader.value), Reconnecting("seats", BrokerSettings())._default]

    plain = told()
    run = Workspace(Path(".dev"))
    run.directory.mkdir()
    run.write_environment(dict.fromkeys(("COORDINATOR_APP", "SEATS_DATABASE_URL", "AMQP_URL"), "there"))
    assert told() == [f"{each} (`source .dev/env` has the addresses of `coordinator dev`)" for each in plain]


def test_the_defaults_fit() -> None:
    check_fit(*(group() for group in GROUPS))


@pytest.mark.parametrize(
    ("group", "smaller", "larger", "values"),
    [
        (BrokerSettings, "AMQP_RECONNECT_DELAY_S", "AMQP_RECONNECT_DELAY_S_MAX", (2.5, 1.5)),
        (LaneSettings, "LANE_RETRY_DELAY_S", "LANE_RETRY_DELAY_S_MAX", (2.5, 1.5)),
        (LaneSettings, "LANE_EARLY_MAX", "LANE_PREFETCH", (400, 400)),
        (EffectSettings, "EFFECTS_RETRY_DELAY_S", "EFFECTS_RETRY_DELAY_S_MAX", (2.5, 1.5)),
        (CacheSettings, "REDIS_TIMEOUT_S", "REDIS_LEASE_S", (2.5, 1.5)),
        (GatewaySettings, "GATEWAY_COMMANDS_MAX", "GATEWAY_IN_FLIGHT_MAX", (11, 10)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_two_of_a_group_that_do_not_fit_are_both_named(
    monkeypatch: pytest.MonkeyPatch, group: type[BaseSettings], smaller: str, larger: str, values: tuple[float, float]
) -> None:
    text = refusal(monkeypatch, group, **{smaller: values[0], larger: values[1]})
    assert f"{smaller} ({values[0]})" in text
    assert f"{larger} ({values[1]})" in text


@pytest.mark.parametrize(
    ("scopes", "named"),
    [
        ("billing", "'billing' is not an account"),
        ("billing=", "'billing=' is not an account"),
        ("=payments", "'=payments' is not an account"),
        ("billing=\u00e4", "is not an account"),
        (f"billing={'a' * 101}", "is not an account"),
        ("gateway=staff", "'gateway' is a gateway"),
        ("\u200b=staff", "cannot ask for anything: a subject"),
        (f"{'a' * 200}=staff", "cannot ask for anything: a subject"),
        (" ".join(f"billing={n}" for n in range(51)), "'billing' cannot ask for anything: there are at most 50 scopes"),
    ],
)
def test_scopes_of_accounts_that_could_never_count_are_named(
    monkeypatch: pytest.MonkeyPatch, scopes: str, named: str
) -> None:
    text = refusal(monkeypatch, LaneSettings, LANE_ACCOUNT_SCOPES=scopes, LANE_GATEWAY_ACCOUNTS="gateway")
    assert "LANE_ACCOUNT_SCOPES" in text
    assert named in text


@pytest.mark.parametrize("named", ["", "partner", "billing  partner billing", "a.b-c_D9", "x" * 100])
def test_outside_accounts_are_names_each_once(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("INGRESS_ACCOUNTS", named)
    assert load(IngressSettings).named == tuple(dict.fromkeys(named.split()))


@pytest.mark.parametrize("named", ["x" * 101, ".a", "-a", "a*", "a#b", "é", "a\x00b", "a/b", "ok a:b"])
def test_an_outside_account_that_cannot_be_one_is_named(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    with pytest.raises(ValueError, match=r"INGRESS_ACCOUNTS: '.*' is not the name of an account here"):
        IngressSettings(accounts=named)


@pytest.mark.parametrize("list_of", ["a,b", "a, b", '["a", "b"]', '["a"]', "a;b", '"a b"', "'a' 'b'", "(a b)", "{a}"])
@pytest.mark.parametrize(
    "name", ["LANE_GATEWAY_ACCOUNTS", "LANE_ACCOUNT_SCOPES", "LANE_REPLY_QUEUES", "INGRESS_ACCOUNTS"]
)
def test_a_list_in_another_form_is_refused_by_the_name_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, list_of: str
) -> None:
    """Taken as one word, it would name nobody, and nothing would say so."""
    group = IngressSettings if name.startswith("INGRESS_") else LaneSettings
    text = refusal(monkeypatch, group, **{name: list_of})
    assert f"{name}: " in text
    assert "put spaces between" in text


@pytest.mark.parametrize("list_of", ['["keys"]', "keys;tokens", '"keys"'])
def test_a_list_of_known_words_in_another_form_is_refused_by_the_word(
    monkeypatch: pytest.MonkeyPatch, list_of: str
) -> None:
    for group, name in ((AccessSettings, "ACCESS_METHODS"), (AccessSettings, "ACCESS_TOKEN_ALGORITHMS")):
        assert f"{name}: " in refusal(monkeypatch, group, **{name: list_of})
        monkeypatch.delenv(name)
    coordinators = '["http://10.0.0.5:9101"]'
    assert "no address" in refusal(monkeypatch, OperationsSettings, OPERATIONS_COORDINATORS=coordinators)


@pytest.mark.parametrize(
    ("queues", "named"),
    [
        ("billing", "'billing' is not an account"),
        ("billing=", "'billing=' is not an account"),
        ("=told", "'=told' is not an account"),
        (f"billing={'q' * 256}", "of at most 255 bytes"),
        ("billing=writes.users", "'writes.users' is not for outcomes"),
        ("billing=writes", "'writes' is not for outcomes"),
        ("billing=effects.payments", "'effects.payments' is not for outcomes"),
        ("billing=amq.rabbitmq.reply-to", "'amq.rabbitmq.reply-to' is not for outcomes"),
    ],
)
def test_queues_that_cannot_be_for_outcomes_are_named(monkeypatch: pytest.MonkeyPatch, queues: str, named: str) -> None:
    text = refusal(monkeypatch, LaneSettings, LANE_REPLY_QUEUES=queues)
    assert "LANE_REPLY_QUEUES" in text
    assert named in text


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ((LaneSettings(message_bytes_max=PACK_BYTES_MAX - 1),), ["LANE_MESSAGE_BYTES_MAX", str(PACK_BYTES_MAX)]),
        (
            (BrokerSettings(queue_bytes_max=200_000), LaneSettings(message_bytes_max=200_001)),
            ["AMQP_QUEUE_BYTES_MAX (200000)", "LANE_MESSAGE_BYTES_MAX (200001)"],
        ),
        (
            (
                GatewaySettings(body_bytes_max=200_000),
                LaneSettings(message_bytes_max=200_000 + ENVELOPE_BYTES_MAX - 1),
            ),
            ["GATEWAY_BODY_BYTES_MAX (200000)", "LANE_MESSAGE_BYTES_MAX (204095)"],
        ),
    ],
)
def test_two_of_different_groups_that_do_not_fit_are_both_named(
    groups: tuple[BaseSettings, ...], named: list[str]
) -> None:
    for order in itertools.permutations(groups):
        with pytest.raises(ConfigurationError) as refused:
            check_fit(*order)
        assert [name for name in named if name not in str(refused.value)] == []


def test_a_call_that_has_no_time_to_fail_by_itself_is_refused() -> None:
    check_calls_fit(EffectSettings(), StripeSettings())
    with pytest.raises(ConfigurationError, match=r"EFFECTS_CALL_TIMEOUT_S \(15\) .* STRIPE_TIMEOUT_S \(15\)"):
        check_calls_fit(EffectSettings(call_timeout_s=15), StripeSettings(timeout_s=15))


def test_a_lane_takes_packs_of_any_gateway() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 500"):
        LaneSettings(pack_commands_max=499)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:secret@127.0.0.1:notaport/%2F",
        "amqp://guest:se/cret@127.0.0.1:1/%2F",
        "amqp://guest:12/secret@127.0.0.1:1/%2F",
        "amqp://guest:sec#ret@127.0.0.1:1/%2F",
        "amqp://guest:sec?ret@127.0.0.1:1/%2F",
        "amqp://guest:sec ret@127.0.0.1:1/%2F",
        "amqp://guest:secret@h1:5672,amqp://guest:secret@h2:5672/%2F",
        "amqp://guest:secret@127.0.0.1:0/%2F",
        "amqp://guest:secret@127.0.0.1:99999/%2F",
        "amqp://guest:secret@:5672/",
        "amqp://guest:secret@[::1/",
        "amqp://guest:secret@h/one/two",
        "amqp://secret@h/",
        "amqp://",
        "http://guest:secret@h/",
        "secret",
    ],
)
def test_an_address_of_a_broker_that_is_none_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    text = refusal(monkeypatch, BrokerSettings, AMQP_URL=url)
    assert text.startswith("AMQP_URL: ")
    assert re.search(r"secret|cret|ret@", text) is None


def test_a_setting_that_is_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, StripeSettings, STRIPE_METADATA_KEY="hunter2")
    assert said.startswith("STRIPE_METADATA_KEY: ")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "url",
    ["amqp://h", "amqp://g:p@h", "amqps://g:p@h:1/", "amqp://g:p%40ss%25@h:1/my%2Fvhost", "amqp://g:p@[::1]:5673/%2F"],
)
def test_an_address_of_a_broker_is_taken(url: str) -> None:
    assert BrokerSettings(url=url).url == url


def test_a_reader_of_its_own_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has no roles: the gateway of a service on SQLite reads the file of its lane."""
    monkeypatch.setenv("USERS_DATABASE_URL", "sqlite:////data/users.db")
    assert load(ReaderSettings, prefix="USERS_").url("users") == "sqlite:////data/users.db"
    monkeypatch.setenv("USERS_READER_URL", "sqlite:////data/users.db")
    with pytest.raises(ConfigurationError, match=r"^USERS_READER_URL: .*postgresql.*mongodb") as refused:
        load(ReaderSettings, prefix="USERS_")
    assert "data" not in str(refused.value)


def test_every_group_is_tried_here() -> None:
    groups = {each for each in vars(all_settings).values() if isinstance(each, type) and issubclass(each, BaseSettings)}
    with_prefix = {group for group in groups if group.model_config.get("env_prefix")}
    assert with_prefix - set(GROUPS) == {all_settings.TelemetrySettings}


def test_a_variable_that_is_no_setting_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt one would be ignored in silence."""
    for name in ("LANE_PREFTCH", "LANE_PREFETCH", "GATEWAY_PORT", "GATEWAY_WAIT", "OPERATIONS_PORT"):
        monkeypatch.setenv(name, "1000")
    with capture_logs() as lines:
        warn_of_unknown(BrokerSettings(), LaneSettings(), GatewaySettings(), OperationsSettings())
    assert [(line["event"], line["setting"], line["meant"]) for line in lines] == [
        ("setting_unknown", "LANE_PREFTCH", "LANE_PREFETCH"),
        ("setting_unknown", "GATEWAY_WAIT", "GATEWAY_WAIT_S"),
    ]


def test_all_that_is_missing_or_wrong_in_several_groups_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("USERS_DATABASE_URL", "ITEMS_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANE_PREFETCH", "none")
    wanted = ((DatabaseSettings, "USERS_"), (DatabaseSettings, "ITEMS_"), (LaneSettings, None))
    with pytest.raises(ConfigurationError) as caught:
        check_all(*wanted)
    first, second, third = str(caught.value).split("; ")
    assert (first, second) == ("USERS_DATABASE_URL is not set", "ITEMS_DATABASE_URL is not set")
    assert third.startswith("LANE_PREFETCH: ")
    # A run of `coordinator dev` is near, which has one of them.
    (tmp_path / ".dev").mkdir()
    (tmp_path / ".dev" / "env").write_text("export ITEMS_DATABASE_URL='mongodb://…'\n")
    with pytest.raises(ConfigurationError, match=r"LANE_PREFETCH.* \(`source \.dev/env` has the addresses of"):
        check_all(*wanted)
    for name in ("USERS_DATABASE_URL", "ITEMS_DATABASE_URL"):
        monkeypatch.setenv(name, "sqlite:///x.sqlite")
    monkeypatch.delenv("LANE_PREFETCH")
    check_all(*wanted)


def test_who_calls_stripe_is_told_of_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STRIPE_API_KEY", "STRIPE_METADATA_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="STRIPE_API_KEY is not set; STRIPE_METADATA_KEY is not set"):
        open_payment_effects()


@pytest.mark.parametrize(
    ("group", "setting", "value"),
    [
        (AccessSettings, "ACCESS_TOKEN_KEYS", "http://svc:{}@issuer.example/keys"),
        (AccessSettings, "ACCESS_TOKEN_KEYS", "http://issuer.example/keys?api_key={}"),
        (TraceSettings, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://svc:{}@collector:4318"),
        (TraceSettings, "OTEL_EXPORTER_OTLP_ENDPOINT", "svc:{}@collector:4318"),
        (OperationsSettings, "OPERATIONS_COORDINATORS", "http://10.0.0.5:9101 http://svc:{}@10.0.0.6:9101"),
        # Addresses where something else belongs.
        (OperationsSettings, "OPERATIONS_OPEN_AS", "http://svc:{}@shop.example/"),
        (AccessSettings, "ACCESS_OPEN_AS", "http://svc:{}@shop.example:8080"),
        (AccessSettings, "ACCESS_METHODS", "keys postgresql://svc:{}@db/users"),
        (AccessSettings, "ACCESS_METHODS", "postgresql://svc:a,{}@db/users"),
        (AccessSettings, "ACCESS_TOKEN_ALGORITHMS", "https://svc:{}@issuer.example/keys"),
        (LaneSettings, "LANE_GATEWAY_ACCOUNTS", "amqp://svc:a,{}@broker/%2F"),
        (IngressSettings, "INGRESS_ACCOUNTS", "amqp://svc:{}@broker/%2F"),
        (IngressSettings, "INGRESS_ACCOUNTS", "amqp://svc:a,{}@broker/%2F"),
        (LaneSettings, "LANE_ACCOUNT_SCOPES", "amqp://svc:{}@broker/%2F"),
        (LaneSettings, "LANE_ACCOUNT_SCOPES", "billing=amqp://svc:{}@broker/é"),
        (LaneSettings, "LANE_REPLY_QUEUES", "amqp://svc:{}@broker/%2F"),
    ],
)
def test_an_address_that_is_refused_is_shown_without_what_may_be_a_password(
    group: type[BaseSettings], setting: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value.format("p/4nt@ed"))
    with pytest.raises(ConfigurationError) as raised:
        load(group)
    assert setting in str(raised.value)
    assert "nt@ed" not in str(raised.value)
    assert "svc" not in str(raised.value)
