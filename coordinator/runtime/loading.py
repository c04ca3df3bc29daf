"""Reading a group of settings from the environment, and its secrets from files, too."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from coordinator.runtime.plain_files import read_plain_file, text_in
from coordinator.service.errors import ConfigurationError

FILE: Final = "_FILE"
"""Behind the name of a secret setting: the variable that names a file which has its value."""
OTHER_NAME: Final = "other_name"
"""In a field's `json_schema_extra`: the variable that may take the place of the field's own."""
SECRET_BYTES_MAX: Final = 64 << 10

_Read = TypeVar("_Read", bound=BaseSettings)


def load(group: type[_Read], *, prefix: str | None = None) -> _Read:
    """Read one group from the environment; `prefix` replaces the group's own.

    A secret, such as an address with a password, may stand in a file, which the variable with `_FILE` behind its name
    names. Raises ConfigurationError, which names every variable that is missing or wrong, and what is expected of it.
    """
    try:
        return _read(group, prefix)
    except _Unfit as unfit:
        raise ConfigurationError("; ".join(unfit.lines) + where_set(*unfit.missing)) from None


def check_all(*wanted: tuple[type[BaseSettings], str | None]) -> None:
    """Check several groups, each with its prefix or None for its own, before any of them is used.

    Raises one ConfigurationError for all that is missing or wrong in them: who sets one variable after the other
    starts a process once for each.
    """
    lines: list[str] = []
    missing: list[str] = []
    for group, prefix in wanted:
        try:
            _read(group, prefix)
        except _Unfit as unfit:
            lines += [line for line in unfit.lines if line not in lines]
            missing += unfit.missing
        except ConfigurationError as error:
            lines.append(str(error))
    if lines:
        raise ConfigurationError("; ".join(lines) + where_set(*missing))


class _Unfit(Exception):
    """Raised for a group that cannot be read: what is wrong, a line each, and which variables are missing."""

    def __init__(self, lines: list[str], missing: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines
        self.missing = missing


def _read(group: type[_Read], prefix: str | None) -> _Read:
    """Raises _Unfit, and ConfigurationError for the file of a secret."""
    shown_prefix = prefix if prefix is not None else group.model_config.get("env_prefix", "")
    given: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, field in group.model_fields.items():
        own = f"{shown_prefix}{name}".upper()
        if (other := other_name(field)) is not None and (used := _used(other)) is not None:
            if (also := _used(own)) is not None:
                raise ConfigurationError(f"{used} and {also} are both set: set one of them")
            given[name], names[name] = setting_value(other), used
        elif is_secret(field) and (text := _from_file(own)) is not None:
            given[name], names[name] = text, own + FILE
    try:
        return group(_env_prefix=shown_prefix, **given)
    except ValidationError as error:
        lines = [_described(problem, shown_prefix.upper(), group, names) for problem in error.errors()]
        missing = [_name(problem, shown_prefix) for problem in error.errors() if problem["type"] == "missing"]
        raise _Unfit(lines, missing) from None


def setting_value(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The value of a variable that may be a secret, from the environment or its file; empty where there is none.

    Raises ConfigurationError for a file that cannot be read.
    """
    return _from_file(name, environment) or environment.get(name, "")


def other_name(field: FieldInfo) -> str | None:
    """The name of the variable that may take the place of a setting's own."""
    extra = field.json_schema_extra
    name = extra.get(OTHER_NAME) if isinstance(extra, dict) else None
    return name if isinstance(name, str) else None


def _used(name: str) -> str | None:
    """Which variable has the value of this name: itself, or that of its file; None: neither."""
    return next((each for each in (name, name + FILE) if os.environ.get(each)), None)


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting may hold a secret: an address may hold a password."""
    return field.repr is False or SecretStr in (field.annotation, *get_args(field.annotation))


def _from_file(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The content of the file of a secret, without the end of its last line; None: no file is named."""
    path = environment.get(name + FILE, "")
    if not path:
        return None
    if environment.get(name):
        raise ConfigurationError(f"{name} and {name}{FILE} are both set: set one of them")
    try:
        content = read_plain_file(path, SECRET_BYTES_MAX + 1)
        text = text_in(content)
    except OSError as error:
        raise ConfigurationError(f"{name}{FILE}: {path!r} cannot be read: {error.strerror}") from None
    except ValueError:
        # Of a path that no system takes, too.
        raise ConfigurationError(f"{name}{FILE}: what {path!r} names is no text in UTF-8") from None
    if len(content) > SECRET_BYTES_MAX:
        raise ConfigurationError(f"{name}{FILE}: {path!r} has more than {SECRET_BYTES_MAX} bytes")
    if not text:
        raise ConfigurationError(f"{name}{FILE}: {path!r} is empty")
    return text


def _name(problem: ErrorDetails, prefix: str) -> str:
    return f"{prefix}{problem['loc'][0] if problem['loc'] else ''}".upper()


def where_set(*missing: str) -> str:
    """Where a run of `coordinator dev` that is near has one of the missing variables; empty: it has none.

    It goes behind an error that says which one is missing.
    """
    file = Path(os.environ.get("DEV_DIRECTORY") or ".dev") / "env"
    try:
        lines = file.read_text().splitlines() if missing else ()
    except (OSError, ValueError):
        return ""
    is_set = any(line.startswith(f"export {name}=") for line in lines for name in missing)
    return f" (`source {file}` has the addresses of `coordinator dev`)" if is_set else ""


def _described(problem: ErrorDetails, prefix: str, group: type[BaseSettings], names: Mapping[str, str]) -> str:
    """`names` are those of the variables that are not called as their fields are."""
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        # An error about several settings that do not fit names them itself.
        return text
    field = str(problem["loc"][0]).lower()
    name = names.get(field) or f"{prefix}{field.upper()}"
    known = group.model_fields.get(field)
    if problem["type"] == "missing":
        return f"{name} is not set"
    if known is not None and SecretStr in (known.annotation, *get_args(known.annotation)):
        return f"{name}: {text}"
    value = str(problem["input"])
    shown = repr(value)
    if known is None or is_secret(known):
        # An address may hold a password: show only its scheme, and nothing of a text that is no address.
        scheme, separator, _ = value.partition("://")
        shown = f"{scheme[:20]}{separator}…" if separator else "no address"
    return f"{name}: {text} (it is {shown})"
