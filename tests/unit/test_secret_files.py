"""Secrets that stand in files: USERS_DATABASE_URL_FILE in place of USERS_DATABASE_URL."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coordinator.documents.generated import groups
from coordinator.runtime.loading import SECRET_BYTES_MAX, is_secret, load, setting_value
from coordinator.runtime.misspelt import warn_of_unknown
from coordinator.runtime.settings import BrokerSettings, CacheSettings, DatabaseSettings, LaneSettings
from coordinator.service.errors import ConfigurationError
from shared.payments.settings import StripeSettings

URL = "postgresql://lane:hunter-twelve@db/users"


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


def test_every_secret_of_every_group_may_stand_in_a_file() -> None:
    secret = {
        f"{group.model_config.get('env_prefix', '')}{name}".upper()
        for group, _ in groups()
        for name, field in group.model_fields.items()
        if is_secret(field)
    }
    assert secret == {
        *("AMQP_URL", "REDIS_URL", "DATABASE_URL", "READER_URL", "MIGRATION_URL"),
        *("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_METADATA_KEY"),
    }


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


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
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
