"""Every argument of every command gets the corpus: it is taken, or refused by its name with exit status 2.

Never a traceback, and nothing that a terminal would obey. The databases are real (SQLite); there is no broker.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from click.types import FuncParamType

from coordinator.arguments import Announced, LanesOfProcess, Named, Seconds, ServiceName, Text, Whole
from coordinator.cli import EXIT_CONFIGURATION, cli
from coordinator.migrations.migrate import migrate
from coordinator.registry import registry
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.errors import ConfigurationError
from tests.support import hostile

ID = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"
USABLE = {"lane": "users", "lanes": "users", "service": "users", "command_type": "users.credit", "reason": "why"}
USABLE |= {"arguments": '{"id":1,"amount":1}', "ordering_key": "users/1", "command_id": ID, "older_than": "3d"}
USABLE |= {"name": "shop", "target": "gateways.app:APP"}
USABLE |= {"table": "users"}
USABLE |= {"subject": "ada", "key_id": "0123456789abcdef"}
USABLE |= {"key": "17", "what": "purchase"}
USABLE |= {"to": "postgresql://nobody@127.0.0.1:9/nowhere"}
USABLE |= {"sequence": "7", "up_to": "9", "continuation": "users.continue_purchase"}
"""A value that is taken, for the arguments that a command needs beside the one that is tried."""
AS_GIVEN = {"arguments", "contains"}
"""Taken as the bytes that were given, whatever they are."""
TEXTS = [text for text in hostile.TEXTS if "\0" not in text and not re.search("[\ud800-\udc7f\udd00-\udfff]", text)]
"""The corpus, without what no command line can hold."""
CALLED_WITH = {*hostile.UNICODE.values(), *hostile.LONE_SURROGATES.values(), *hostile.TIMES, *TEXTS[::8]}
"""What a command is called with if it takes it: each call costs milliseconds in the database."""

Words = tuple[str, ...]
"""The name of a command, within its groups: `("dead", "list")`."""


def commands(group: click.Group, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    """All of them, groups within groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


TAKING = [
    pytest.param(path, command, parameter, id=f"{'-'.join(path)}-{parameter.name}")
    for path, command in commands(cli)
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database for each lane, and a port at which no broker listens."""
    directory = tmp_path_factory.mktemp("hostile")
    known = {"AMQP_URL": "amqp://guest:guest@127.0.0.1:9/"}
    for service in registry().services:
        known[f"{service.name.upper()}_DATABASE_URL"] = url = f"sqlite:///{directory}/{service.name}.db"
        # The lane's tables are enough, and a file may have those of every service.
        lane = service.replace(models=(), migrations=None, metadata=None)
        migrate(lane, DatabaseSettings(database_url=url))
    return known


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands that go on for ever, or make something, end once their arguments are taken."""

    def taken(*_: Any, **__: Any) -> int:
        return 0

    monkeypatch.setattr("coordinator.operate.lane_status.Event", lambda: SimpleNamespace(wait=taken))
    for place in (
        "coordinator.worker.process.run",
        "coordinator.effects.process.run",
        "coordinator.http.main.serve",
        "coordinator.operations.main.serve",
        "coordinator.operations.top.top",
        "coordinator.operate.move._move",
        "coordinator.dev.one_process.run",
        "coordinator.dev.supervisor.run",
        "coordinator.migrations.migrate.migrate",
    ):
        monkeypatch.setattr(place, taken)
    monkeypatch.setattr("coordinator.dev.new.make_project", lambda _, directory, broker: directory)
    monkeypatch.setenv("COORDINATOR_APP", os.environ["COORDINATOR_APP"])
    # Of folders that are named some are made.
    monkeypatch.chdir(tmp_path)


def _stands_before(command: click.Command, parameter: click.Parameter, tried: click.Parameter) -> bool:
    """Whether one argument of a command must be there so that the other is not taken for it."""
    places = [each for each in command.params if isinstance(each, click.Argument) and each.nargs == 1]
    return parameter in places and tried in places and places.index(parameter) < places.index(tried)


def arguments_of(path: Words, command: click.Command, tried: click.Parameter, value: str) -> list[str]:
    """A call that is right but for the value of one parameter."""
    options: list[str] = []
    positional: list[str] = []
    for parameter in command.params:
        is_needed = parameter.required or parameter.name in NEEDED.get(path, ())
        if parameter is not tried and not is_needed and not _stands_before(command, parameter, tried):
            continue
        usable = "payments" if path == ("effects",) else USABLE.get(str(parameter.name), "")
        given = value if parameter is tried else usable
        if isinstance(parameter, click.Argument):
            positional.append(given)
        else:
            options.append(f"{max(parameter.opts, key=len)}={given}")
    return [*path, *options, *beside(path, str(tried.name)), "--", *positional]


_FILTERS = ("command_type", "code", "since", "until", "contains", "origin")
SELECTED: tuple[list[str], dict[str, list[str]]] = (
    ["--letter=1", "--lane=users"],
    {"command_id": [], "numbers": ["--lane=users"], "sources": ["--letter=1"]}
    | {each: ["--all", "--lane=users"] for each in _FILTERS},
)
NEEDED: dict[Words, tuple[str, ...]] = {("forget",): ("key",), ("move",): ("to",)}
"""What a command can do without, in another of its forms."""
BESIDE: dict[Words, tuple[list[str], dict[str, list[str]]]] = {
    ("outbox", "discard"): (["--entry=1"], {"numbers": [], "target": ["--all"]}),
    ("outbox", "list"): ([], {"after": ["users"]}),
    ("forget",): ([], {"tenant": ["--actor=ada"]}),
    ("dead", "list"): ([], {"after": ["users"]}),
    ("timers", "list"): ([], {"after": ["users"]}),
    ("continue",): (["--logged"], {"result": [], "rejected": []}),
    ("audit",): (["--operators"], {"table": [], "row_key": [], "before": ["--actor=ada"]}),
    ("status",): (["--sample-s=0"], {"sample_s": []}),
}
"""What each command needs beside the argument that is tried, and beside some of them instead."""


def beside(path: Words, tried: str) -> list[str]:
    """Options that must be there too."""
    usual, others = BESIDE.get(path, ([], {}))
    if path[0] == "dead" and path[1] != "list":
        usual, others = SELECTED
    return others.get(tried, usual)


@pytest.mark.parametrize(("path", "command", "tried"), TAKING)
def test_every_value_of_an_argument_is_taken_or_refused_by_its_name(
    path: Words, command: click.Command, tried: click.Parameter, environment: dict[str, str]
) -> None:
    names = [*tried.opts, tried.human_readable_name]
    if isinstance(tried, click.Argument):
        names.append(tried.make_metavar(click.Context(command)))
    if tried.name == "arguments":
        names.append("argument '")  # the part of the JSON that is at fault
    runner = CliRunner()
    for value in TEXTS:
        arguments = arguments_of(path, command, tried, value)
        refusal = refused(command, arguments[len(path) :])
        if refusal is None and value in CALLED_WITH:
            ran = runner.invoke(cli, arguments, env=environment, input="")
            if isinstance(ran.exception, ConfigurationError):
                refusal = str(ran.exception)
            elif ran.exception is not None and not isinstance(ran.exception, SystemExit):
                raise AssertionError(f"{value[:80]!a}: {ran.exception!r}") from ran.exception
            elif ran.exit_code == EXIT_CONFIGURATION:
                refusal = ran.stderr
            assert ran.exit_code in (0, 1, 2, 3)
            assert_harmless(ran.stdout + ran.stderr)
        if refusal is not None:
            assert_harmless(refusal)
            assert any(name.strip("-[].").casefold() in refusal.casefold() for name in names), refusal


def refused(command: click.Command, arguments: list[str]) -> str | None:
    """What the command says of its arguments before it does anything; None: it takes them."""
    try:
        command.make_context("coordinator", [*arguments])
    except (click.UsageError, ConfigurationError) as error:
        return error.format_message() if isinstance(error, click.UsageError) else str(error)
    return None


def assert_harmless(said: str) -> None:
    said.encode()
    assert all(line.isprintable() for line in said.split("\n")), ascii(said)


@pytest.mark.parametrize(("path", "command", "tried"), TAKING)
def test_every_argument_has_limits(path: Words, command: click.Command, tried: click.Parameter) -> None:
    """Plain texts and numbers have none: a new argument takes a type of `coordinator.arguments`, or reads itself."""
    is_limited = isinstance(
        tried.type,
        (Text, Whole, Seconds, Named, Announced, LanesOfProcess, ServiceName, click.Choice, click.Path, FuncParamType),
    )
    assert is_limited or tried.name in AS_GIVEN
