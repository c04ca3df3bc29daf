"""The command `coordinator new`: a project with a service, its tests, and all that runs it."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from typing import Final

import click

from coordinator.arguments import FOLDER, TEXT
from coordinator.exemplified import Exemplified
from coordinator.service.errors import ConfigurationError
from coordinator.service.text import printable

_TEMPLATE: Final = Path(__file__).parent / "project"
_SUFFIX: Final = ".tmpl"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_TAKEN: Final = frozenset({"coordinator", "seats", "test", "tests", "wheels"})
_RENAMED: Final = {"gitignore": ".gitignore", "dockerignore": ".dockerignore"}
"""Files that would be obeyed where the template stands."""
_BLOCK: Final = re.compile(r"^\{\{if (\w+)\}\}\n(.*?)^\{\{end\}\}\n", re.DOTALL | re.MULTILINE)
"""Lines that only the projects with one broker have: {{if rabbitmq}}."""
_BROKERS: Final = {
    "rabbitmq": {
        "broker": "RabbitMQ",
        "setting": "AMQP_URL",
        "scheme": "amqp",
        "address": "rabbitmq:5672/%2F",
    },
    "redis": {
        "broker": "Redis",
        "setting": "BROKER_URL",
        "scheme": "redis",
        "address": "redis:6379/0",
    },
}
"""What the files say of each."""


@click.command(cls=Exemplified, example="new shop")
@click.argument("name", type=TEXT)
@click.option(
    "--dir",
    "directory",
    type=FOLDER,
    default=None,
    help="Where it is made.  [default: a folder NAME]",
)
@click.option(
    "--broker",
    type=click.Choice(list(_BROKERS)),
    default="rabbitmq",
    show_default=True,
    help="What carries its commands where it runs on servers.",
)
def new(name: str, directory: Path | None, broker: str) -> None:
    """Make a project NAME: a service of forty lines, its tests, a Makefile, Dockerfile and compose.yaml.

    NAME becomes a Python package: lower-case letters, digits and _. The service in it is named seats, as a project may
    have several: its README.md says how to rename it.
    """
    check_name(name)
    made = printable(str(make_project(name, directory or Path(name), broker=broker)))
    click.echo(f"{made} is made: its README.md says how to run it, and how to rename its service, seats")
    click.echo(f"until write-coordinator is published, put its wheel into {made}/wheels before `make test`")


def check_name(name: str) -> None:
    """Raises ConfigurationError unless a project may have that name."""
    if _NAME.fullmatch(name) is None or name in _TAKEN:
        raise ConfigurationError(
            f"{name!r} cannot be the name of a project: it has lower-case letters, digits and _, at most 41, "
            f"and is none of {', '.join(sorted(_TAKEN))}"
        )
    if iskeyword(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a project: it is a word of Python's")
    if (found := find_spec(name)) is not None and found.origin is not None:
        text = "a module that Python finds already, which one of the two would hide"
        raise ConfigurationError(f"{name!r} cannot be the name of a project: it is that of {text} ({found.origin})")


def make_project(name: str, directory: Path, *, broker: str = "rabbitmq") -> Path:
    """Write the project's files: all, or none. Raises ConfigurationError for a folder that has something, and for files
    that cannot be written."""
    values = {"name": name, "server": broker, "prefix": broker.upper(), **_BROKERS[broker]}
    made: list[Path] = []
    try:
        _check_empty(directory)
        for source in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}")):
            target = directory / _target(source.relative_to(_TEMPLATE), name)
            missing = [folder for folder in target.parents if not folder.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            made += [*reversed(missing), target]
            target.write_text(_filled(source.read_text(), broker, values))
    except BaseException as error:
        # Else nothing could be made there again.
        _take_back(made)
        if isinstance(error, OSError):
            raise ConfigurationError(f"{error.filename or directory}: {error.strerror}") from None
        raise
    return directory


def _check_empty(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        raise ConfigurationError(f"{directory} is there already, and is not empty: choose another with --dir")


def _take_back(made: Sequence[Path]) -> None:
    for path in reversed(made):
        with suppress(OSError):  # somebody has put something into it
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def _filled(text: str, broker: str, values: Mapping[str, str]) -> str:
    """A file of the template with its values, and without the lines of other brokers."""
    text = _BLOCK.sub(lambda block: block[2] if block[1] == broker else "", text)
    for key, value in values.items():
        text = text.replace(f"{{{{{key}}}}}", value)
    return text


def _target(source: Path, name: str) -> Path:
    file = source.name.removesuffix(_SUFFIX)
    folders = [name if folder == "package" else folder for folder in source.parts[:-1]]
    return Path(*folders, _RENAMED.get(file, file))
