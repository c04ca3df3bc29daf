"""Reading a group of settings from the environment, and its secrets from files, too."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from coordinator.runtime.addresses import KNOWN_SCHEMES, without_credentials
from coordinator.runtime.plain_files import read_plain_file, text_in
from coordinator.runtime.schemes import begins_wrongly, schemes_of
from coordinator.runtime.secret_files import SECRET_BYTES_MAX, SECRET_FILES
from coordinator.service.errors import ConfigurationError

FILE: Final = "_FILE"
"""Behind the name of a secret setting: the variable that names a file which has its value."""
OTHER_NAME: Final = "other_name"
"""In a field's `json_schema_extra`: the variable that may take the place of the field's own."""

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


def fitting(group: type[BaseSettings], *prefixes: str) -> Sequence[str]:
    """The prefixes with which this group can be read."""

    def is_fit(prefix: str) -> bool:
        try:
            _read(group, prefix)
        except (_Unfit, ConfigurationError):
            return False
        return True

    return list(filter(is_fit, prefixes))


class _Unfit(Exception):
    """Raised for a group that cannot be read: what is wrong, a line each, and which variables are missing."""

    def __init__(self, lines: list[str], missing: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines
        self.missing = missing


def _read(group: type[_Read], prefix: str | None) -> _Read:
    """Raises _Unfit, and ConfigurationError for the file of a secret."""
    shown_prefix = prefix if prefix is not None else group.model_config.get("env_prefix", "")
    variables = _Variables()
    given: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, field in group.model_fields.items():
        own = f"{shown_prefix}{name}".upper()
        # Raises for a setting that is no secret, too.
        variables.spelt(own)
        if (other := other_name(field)) is not None and (used := variables.used(other)) is not None:
            if (also := variables.used(own)) is not None:
                raise both_set(used, also)
            given[name], names[name] = setting_value(other), used
        elif is_secret(field) and (text := variables.from_file(own)) is not None:
            given[name], names[name] = text, variables.spelt(own + FILE)
    try:
        return group(_env_prefix=shown_prefix, **given)
    except ValidationError as error:
        lines = [_described(problem, shown_prefix.upper(), group, names) for problem in error.errors()]
        missing = [_name(problem, shown_prefix) for problem in error.errors() if problem["type"] == "missing"]
        raise _Unfit(lines, missing) from None


def setting_value(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The value of a variable that may be a secret, from the environment or its file; empty where there is none.

    Its name may be in capitals or not, as that of any setting. Raises ConfigurationError for a file that cannot be
    read, and for a variable that is there twice.
    """
    variables = _Variables(environment)
    return variables.from_file(name) or variables.value(name)


def name_set(*names: str) -> str:
    """Of the names of one setting the one that is set, itself or by its file; the first where none is."""
    variables = _Variables()
    return next((name for name in names if variables.used(name)), names[0])


def both_set(one: str, other: str) -> ConfigurationError:
    """The error of a setting that has two values, of which one would count in silence."""
    return ConfigurationError(f"{one} and {other} are both set: set one of them")


class _Variables:
    """The variables of an environment, found by a name in whichever letters: pydantic-settings looks at no capitals."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._spellings: dict[str, list[str]] = {}
        for name in environment:
            self._spellings.setdefault(name.upper(), []).append(name)

    def spelt(self, name: str) -> str:
        """The name as the environment has it, if it does. Raises ConfigurationError where it has it twice: which one
        counts would depend on their order.
        """
        found = sorted(self._spellings.get(name.upper(), ()))
        if len(found) > 1:
            raise both_set(found[0], found[1])
        return found[0] if found else name

    def value(self, name: str) -> str:
        """Its value; empty where it is not set. Raises likewise."""
        return self._environment.get(self.spelt(name), "")

    def used(self, name: str) -> str | None:
        """Which variable has the value of this name: itself, or that of its file; None: neither. Raises likewise."""
        return next((self.spelt(each) for each in (name, name + FILE) if self.value(each)), None)

    def from_file(self, name: str) -> str | None:
        """The content of the file of a secret, without the end of its last line; None: no file is named.

        Raises ConfigurationError for one that cannot be read, and where the variable itself is set, too.
        """
        path, setting = self.value(name + FILE), self.spelt(name + FILE)
        if not path:
            return None
        if self.value(name):
            raise both_set(self.spelt(name), setting)
        return _content(setting, path)


def other_name(field: FieldInfo) -> str | None:
    """The name of the variable that may take the place of a setting's own."""
    extra = field.json_schema_extra
    name = extra.get(OTHER_NAME) if isinstance(extra, dict) else None
    return name if isinstance(name, str) else None


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting may hold a secret: an address may hold a password."""
    return field.repr is False or SecretStr in (field.annotation, *get_args(field.annotation))


def _content(setting: str, path: str) -> str:
    try:
        content = read_plain_file(path, SECRET_BYTES_MAX + 1)
        text = text_in(content)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path!r} cannot be read: {error.strerror}") from None
    except ValueError:
        # Of a path that no system takes, too.
        raise ConfigurationError(f"{setting}: what {path!r} names is no text in UTF-8") from None
    if len(content) > SECRET_BYTES_MAX:
        raise ConfigurationError(f"{setting}: {path!r} has more than {SECRET_BYTES_MAX} bytes")
    if not text:
        raise ConfigurationError(f"{setting}: {path!r} is empty")
    SECRET_FILES.note(setting, path, text)
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
    if problem["type"] == "string_pattern_mismatch":
        # Nobody is asked to read a regular expression.
        schemes = schemes_of(problem["ctx"]["pattern"])
        text = begins_wrongly(schemes, str(problem["input"])) if schemes else "it has another form than it must have"
    if known is not None and SecretStr in (known.annotation, *get_args(known.annotation)):
        return f"{name}: {text}"
    value = str(problem["input"])
    shown = repr(without_credentials(value))
    if known is None or is_secret(known):
        # An address may hold a password, and a text that is none may be one: only a scheme that we know is shown.
        scheme, separator, _ = value.partition("://")
        shown = f"{scheme}{separator}…" if separator and scheme in KNOWN_SCHEMES else "no address of these"
    return f"{name}: {text} (it is {shown})"
