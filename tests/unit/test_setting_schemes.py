"""What a setting's form must be is said in words."""

import pytest
from pydantic_settings import BaseSettings

from coordinator.documents.generated import groups
from coordinator.runtime.loading import load
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError


def with_forms() -> list[tuple[type[BaseSettings], str]]:
    return [
        (group, name)
        for group, _ in groups()
        for name, field in group.model_fields.items()
        if any(getattr(each, "pattern", None) for each in field.metadata) or name == "docker_project"
    ]


@pytest.mark.parametrize(("group", "name"), with_forms(), ids=lambda each: each if isinstance(each, str) else "")
def test_no_regular_expression_reaches_who_sets_it(
    monkeypatch: pytest.MonkeyPatch, group: type[BaseSettings], name: str
) -> None:
    prefix = group.model_config.get("env_prefix") or "SEATS_"
    setting = f"{prefix}{name}".upper()
    monkeypatch.setenv(setting, "ftp://-h")
    with pytest.raises(ConfigurationError) as refused:
        load(group, prefix=prefix)
    (line,) = [line for line in str(refused.value).split("; ") if line.startswith(f"{setting}: ")]
    said = line.partition("it must ")[2]
    assert said.startswith(("begin with ", "have small letters")), line
    assert not set(said) & set("^$|\\[]*"), line


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
@pytest.mark.parametrize("path", ["", "/seats.sqlite", "//srv/seats.sqlite"])
def test_the_reader_of_a_file_is_told_to_leave_the_setting_out(
    monkeypatch: pytest.MonkeyPatch, scheme: str, path: str
) -> None:
    monkeypatch.setenv("SEATS_DATABASE_URL", "sqlite:////srv/seats.sqlite")
    monkeypatch.setenv("SEATS_READER_URL", f"{scheme}://{path}")
    with pytest.raises(
        ConfigurationError, match=r"^SEATS_READER_URL: it must begin with .*leave this unset for a file"
    ):
        load(DatabaseSettings, prefix="SEATS_")


@pytest.mark.parametrize("setting", ["DATABASE_URL", "READER_URL"])
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("postgres", "postgresql"), ("postgresql+psycopg", "postgresql"), ("mysql+pymysql", "mysql")),
        *(("postgresql+asyncpg", "postgresql"), ("mariadb+aiomysql", "mariadb")),
    ],
)
def test_a_name_that_others_have_for_a_scheme_is_put_right(
    monkeypatch: pytest.MonkeyPatch, setting: str, given: str, meant: str
) -> None:
    monkeypatch.setenv("SEATS_DATABASE_URL", "postgresql://lane@h/seats")
    monkeypatch.setenv(f"SEATS_{setting}", f"{given}://lane:hunter2@h/seats")
    with pytest.raises(ConfigurationError) as refused:
        load(DatabaseSettings, prefix="SEATS_")
    said = str(refused.value)
    assert said.startswith(f"SEATS_{setting}: ")
    assert said.endswith(
        "it must begin with postgresql://, mysql://, mariadb://, mongodb:// or sqlite://: "
        f"write {meant}:// (it is {given}://…)"
    )


@pytest.mark.parametrize("path", ["", "/seats.sqlite", "//srv/seats.sqlite"])
def test_so_is_that_of_a_file(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("SEATS_DATABASE_URL", f"sqlite+aiosqlite://{path}")
    with pytest.raises(ConfigurationError, match=r"write sqlite:// \(it is sqlite\+aiosqlite://…\)$"):
        load(DatabaseSettings, prefix="SEATS_")
