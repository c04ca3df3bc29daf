"""Secrets that stand in files: USERS_DATABASE_URL_FILE in place of USERS_DATABASE_URL."""

import os
import secrets
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from structlog.testing import capture_logs

from coordinator.accounts.passwords import KeptPasswords, NamedPasswords
from coordinator.documents.generated import groups
from coordinator.registry import APP_SETTING
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.loading import is_secret, load, setting_value
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.secret_files import SECRET_BYTES_MAX
from coordinator.runtime.settings import BrokerSettings, DatabaseSettings, LaneSettings, ReaderSettings
from coordinator.service.errors import ConfigurationError
from shared.payments.settings import StripeSettings
from tests.support.forks import Forks
from tests.support.servers import REFERENCE_APP

URL = "postgresql://lane:hunter-twelve@db/users"
OF_A_SERVICE = (DatabaseSettings, ReaderSettings)
SECRETS = [
    (
        ("USERS_" if group in OF_A_SERVICE else str(group.model_config.get("env_prefix", "")).upper()) + name.upper(),
        group,
        name,
    )
    for group, _ in groups()
    for name, field in group.model_fields.items()
    if is_secret(field)
]
VALUES = {
    "AMQP_URL": "amqp://lane:hunter-twelve@broker/writes",
    "RABBITMQ_ADMIN_URL": "https://admin:hunter-twelve@broker:15671",
    "BROKER_ADMIN_URL": "rediss://admin:hunter-twelve@broker:6379",
    "REDIS_URL": "redis://lane:hunter-twelve@cache/0",
    "USERS_DATABASE_URL": URL,
    "USERS_READER_URL": URL,
    "USERS_PRIMARY_URL": URL,
    "USERS_MIGRATION_URL": URL,
    "USERS_MOVE_URL": URL,
    "STRIPE_API_KEY": "sk_test_hunter_twelve_hunter_twelve",
    "STRIPE_WEBHOOK_SECRET": "whsec_hunter_twelve_hunter_twelve",
    "STRIPE_METADATA_KEY": "hunter-twelve-hunter-twelve",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter-twelve",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=hunter-twelve",
}
ADDRESSES = VALUES | {
    "AMQP_URL": "amqp://lane:lane@127.0.0.1:9",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "ITEMS_DATABASE_URL": "mongodb://127.0.0.1:9/items",
    "PAYMENTS_DATABASE_URL": "mysql://lane:lane@127.0.0.1:9/payments",
}
"""Nobody listens there: no process comes so far."""
COMMANDS = [
    ("run users", "AMQP_URL"),
    ("run users", "USERS_DATABASE_URL"),
    ("run items", "REDIS_URL"),
    ("gateway users", "AMQP_URL"),
    ("gateway users", "USERS_READER_URL"),
    ("gateway items", "REDIS_URL"),
    ("gateway payments", "STRIPE_WEBHOOK_SECRET"),
    ("gateway payments", "STRIPE_METADATA_KEY"),
    ("effects payments", "STRIPE_API_KEY"),
    ("effects payments", "STRIPE_METADATA_KEY"),
    ("migrate users", "USERS_MIGRATION_URL"),
    ("move users", "USERS_MOVE_URL"),
    ("keys list users", "USERS_DATABASE_URL"),
    ("broker-accounts --check", "RABBITMQ_ADMIN_URL"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{URL}\n")
    monkeypatch.setenv("USERS_DATABASE_URL_FILE", str(path))
    monkeypatch.delenv("USERS_DATABASE_URL", raising=False)
    return path


def refusal() -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(DatabaseSettings, prefix="USERS_")
    assert "hunter" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_last_line_may_have_an_end(file: Path, end: str) -> None:
    file.write_bytes(f"{URL}{end}".encode())
    assert load(DatabaseSettings, prefix="USERS_").database_url == URL
    assert setting_value("USERS_DATABASE_URL") == URL


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _ in SECRETS:
        for variable in (name, f"{name}_FILE"):
            monkeypatch.delenv(variable, raising=False)


def test_each_secret_has_a_value_here_that_it_can_have() -> None:
    assert {name for name, _, _ in SECRETS} == set(VALUES)


def prefix_of(group: type[BaseSettings]) -> str:
    return "USERS_" if group in OF_A_SERVICE else str(group.model_config.get("env_prefix", "")).upper()


def loaded(group: type[BaseSettings], field: str) -> str:
    """As the process gets it that needs it."""
    value = getattr(load(group, prefix=prefix_of(group)), field)
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def given(monkeypatch: pytest.MonkeyPatch, group: type[BaseSettings], field: str) -> None:
    """What else its group needs."""
    for other, known in group.model_fields.items():
        if known.is_required() and other != field:
            variable = f"{prefix_of(group)}{other}".upper()
            monkeypatch.setenv(variable, VALUES[variable])


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(("name", "group", "field"), SECRETS)
def test_every_secret_of_every_group_may_stand_in_a_file(
    name: str, group: type[BaseSettings], field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, group, field)
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    # The last as some editors of Windows write it.
    for before, end in (("", ""), ("", "\n"), ("\ufeff", "\r\n")):
        (tmp_path / "secret").write_bytes(f"{before}{VALUES[name]}{end}".encode())
        assert loaded(group, field) == VALUES[name]
    monkeypatch.setenv(name, VALUES[name])
    with pytest.raises(ConfigurationError, match=f"^{name} and {name}_FILE are both set: set one of them$"):
        loaded(group, field)


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(("name", "group", "field"), SECRETS)
def test_a_file_of_no_use_is_told_of_by_the_name_of_every_secret(
    name: str, group: type[BaseSettings], field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, group, field)
    (tmp_path / "empty").touch()
    (tmp_path / "line").write_text("\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for file, why in (
        ("", "Is a directory"),
        ("missing", "No such file"),
        ("empty", "is empty"),
        ("line", "is empty"),
        # Opened as other files are, it would wait for a writer.
        ("pipe", "is no plain file"),
        ("link", "is no plain file"),
    ):
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / file))
        with pytest.raises(ConfigurationError, match=f"^{name}_FILE: .*{why}"):
            loaded(group, field)


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_a_process_whose_secret_s_file_cannot_be_read_ends_with_2(
    command: str, name: str, forks: Forks, tmp_path: Path
) -> None:
    set_here = {known: value for known, value in ADDRESSES.items() if known != name}
    environment = {"PATH": "/usr/bin:/bin", APP_SETTING: REFERENCE_APP, **set_here}
    missing = {f"{name}_FILE": str(tmp_path / "missing")}
    process = forks.run(["coordinator", *command.split()], tmp_path / "log", environment | missing)
    assert process.wait(60), process.log_tail(40)
    # A gateway of rows with rules that asks nobody says so before.
    *_, said = process.log_path.read_text().splitlines()
    assert process.exit_status == 2, said
    assert f"{name}_FILE: '{tmp_path}/missing' cannot be read: No such file or directory" in said


def test_the_file_may_be_a_link_as_kubernetes_makes_them(file: Path, tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    file.rename(tmp_path / "..data" / "secret")
    file.symlink_to(Path("..data", "secret"))
    assert load(DatabaseSettings, prefix="USERS_").database_url == URL


def test_passwords_of_accounts_may_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a password of some length\n")
    named = {"BROKER_PASSWORD_USERS_LANE_FILE": str(tmp_path / "password")}
    assert NamedPasswords(named).given("users_lane") == "a password of some length"
    with pytest.raises(ConfigurationError, match="are both set"):
        NamedPasswords(named | {"BROKER_PASSWORD_USERS_LANE": "another one"}).given("users_lane")
    with pytest.raises(ConfigurationError, match=r"^BROKER_PASSWORD_USERS_LANE_FILE: .* cannot be read"):
        NamedPasswords({"BROKER_PASSWORD_USERS_LANE_FILE": str(tmp_path / "missing")}).given("users_lane")


def test_a_folder_of_passwords_into_which_others_can_put_theirs_is_refused(tmp_path: Path) -> None:
    kept = KeptPasswords(tmp_path)
    os.mkfifo(kept.path("public"), 0o600)
    with pytest.raises(ConfigurationError, match=r"public\.password cannot be read: it is no plain file"):
        kept.known("public")
    password = kept.given("users_lane")
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"others may write {tmp_path}"):
        kept.known("users_lane")
    with pytest.raises(ConfigurationError, match=f"others may write {tmp_path}"):
        kept.given("items_lane")
    tmp_path.chmod(0o700)
    assert kept.known("users_lane") == password


def test_a_link_that_leads_nowhere_keeps_no_password(tmp_path: Path) -> None:
    """The account would have one that nobody knows."""
    tmp_path.chmod(0o700)
    kept = KeptPasswords(tmp_path)
    kept.path("users_lane").symlink_to(tmp_path / "nowhere")
    assert kept.given("users_lane") == kept.known("users_lane")


def test_of_two_runs_that_make_a_password_at_once_the_first_counts_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one gives the server a password that the file does not have."""
    first, second = KeptPasswords(tmp_path), KeptPasswords(tmp_path)
    given: list[str] = []
    made = secrets.token_urlsafe

    def meanwhile(size_bytes: int) -> str:
        monkeypatch.setattr(secrets, "token_urlsafe", made)
        given.append(second.given("users_lane"))
        return made(size_bytes)

    monkeypatch.setattr(secrets, "token_urlsafe", meanwhile)
    assert [first.given("users_lane"), first.known("users_lane")] == given * 2
    assert [path.name for path in tmp_path.iterdir()] == ["users_lane.password"]


def test_a_file_system_without_links_keeps_passwords_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    kept = KeptPasswords(tmp_path)
    assert kept.given("users_lane") == kept.known("users_lane")
    assert [path.name for path in tmp_path.iterdir()] == ["users_lane.password"]


def test_what_is_no_secret_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefetch").write_text("7")
    monkeypatch.setenv("LANE_PREFETCH_FILE", str(tmp_path / "prefetch"))
    assert load(LaneSettings).prefetch != 7
    with capture_logs() as logs:
        warn_of_unknown(load(LaneSettings))
    assert [line["setting"] for line in logs] == ["LANE_PREFETCH_FILE"]


def test_the_file_s_variable_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("amqp://a:b@h")
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setenv("AMQP_URL_FILE", str(tmp_path / "url"))
    with capture_logs() as logs:
        warn_of_unknown(load(BrokerSettings))
    assert load(BrokerSettings).url == "amqp://a:b@h"
    assert logs == []


def test_both_are_one_too_many(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_DATABASE_URL", URL)
    assert refusal() == "USERS_DATABASE_URL and USERS_DATABASE_URL_FILE are both set: set one of them"


EACH_SETTING = [(group, prefix_of(group), field) for group, _ in groups() for field in group.model_fields]


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(("group", "prefix", "field"), EACH_SETTING)
def test_every_setting_may_be_in_other_letters_and_is_not_there_twice(
    group: type[BaseSettings], prefix: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of two would count depends on their order in the environment."""
    name = f"{prefix}{field}".upper()
    said = f"^{name} and {name.lower()} are both set: set one of them$"
    for first, second in ((name, name.lower()), (name.lower(), name)):
        monkeypatch.delenv(first, raising=False)
        monkeypatch.delenv(second, raising=False)
        monkeypatch.setenv(first, VALUES.get(name, "1"))
        monkeypatch.setenv(second, VALUES.get(name, "1"))
        with pytest.raises(ConfigurationError, match=said):
            load(group, prefix=prefix)
        with pytest.raises(ConfigurationError, match=said):
            setting_value(name)
        monkeypatch.delenv(first)
        assert setting_value(name) == VALUES.get(name, "1")


def test_names_in_other_letters_are_both_one_too_many(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("users_database_url", URL)
    assert refusal() == "users_database_url and USERS_DATABASE_URL_FILE are both set: set one of them"
    monkeypatch.delenv("users_database_url")
    monkeypatch.delenv("USERS_DATABASE_URL_FILE")
    monkeypatch.setenv("users_database_url_file", str(file))
    assert load(DatabaseSettings, prefix="USERS_").database_url == URL
    file.write_bytes(b"")
    assert refusal().startswith("users_database_url_file: ")
    monkeypatch.setenv("amqp_url", "amqp://a:b@h")
    monkeypatch.setenv("broker_url", "amqp://a:b@h")
    with pytest.raises(ConfigurationError, match=r"^broker_url and amqp_url are both set: set one of them$"):
        load(BrokerSettings)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"x" * (SECRET_BYTES_MAX + 1), f"has more than {SECRET_BYTES_MAX} bytes"),
        (b"hunter-twelve", "USERS_DATABASE_URL_FILE: "),
        (b"postgresql://lane:hunter%twelve@db/users", "USERS_DATABASE_URL_FILE: "),
        (f"{URL}\n{URL}".encode(), "USERS_DATABASE_URL_FILE: "),
    ],
)
def test_a_file_that_has_no_value(file: Path, content: bytes, expected: str) -> None:
    file.write_bytes(content)
    assert expected in refusal()


def test_a_file_of_the_largest_size_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(b"a" * SECRET_BYTES_MAX)
    monkeypatch.setenv("STRIPE_METADATA_KEY_FILE", str(file))
    key = load(StripeSettings).metadata_key
    assert key is not None
    assert len(key.get_secret_value()) == SECRET_BYTES_MAX


@pytest.mark.parametrize("path", ["/nowhere/secret", "/", "/proc/self/mem", "a" * 5000])
def test_a_file_that_cannot_be_read(file: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("USERS_DATABASE_URL_FILE", path)
    assert refusal().startswith("USERS_DATABASE_URL_FILE: ")


def test_an_empty_name_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", "")
    monkeypatch.setenv("REDIS_URL", "redis://h/0")
    assert load(CacheSettings).url == "redis://h/0"
