"""What all commands of the command line have in common: help that begins with an example, and JSON that is JSON."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.commands_elsewhere import ELSEWHERE
from coordinator.exemplified import Exemplified
from tests.unit.test_hostile_arguments import Words, commands, environment

__all__ = ("environment",)

ENDLESS: dict[Words, list[str]] = {
    ("top",): ["--rounds=2", "--every-s=0.1"],
    ("status",): ["--rounds=2", "--sample-s=0.1"],
}
"""How a command ends that goes on for ever."""
WITHOUT_BROKER = {"audit", "command", "keys", "log", "parked", "pause", "resume", "timers", "top", "writers"}
"""Some of those that do their work with a database alone."""
LANES = {"seats": "users", "orders": "payments"}
MISSING = {("command",), ("timers", "cancel")}
"""What their examples name is not there."""


def groups(group: click.Group, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from groups(command, (*path, name))


EVERY = [
    pytest.param(path, command, id="-".join(path) or "coordinator") for path, command in (*commands(cli), *groups(cli))
]
WITH_JSON = [
    pytest.param(path, command, id="-".join(path))
    for path, command in commands(cli)
    if any(each.name == "as_json" for each in command.params) and path != ("broker-accounts",)
]


@pytest.mark.parametrize(("path", "command"), EVERY)
def test_help_begins_with_an_example_that_the_command_takes(path: Words, command: click.Command) -> None:
    assert isinstance(command, Exemplified)
    shown = CliRunner().invoke(cli, [*path, "--help"]).output
    assert shown.startswith(f"  $ coordinator {command.example}\n\nUsage: ")
    words = reference_words(command.example)
    assert tuple(words[: len(path)]) == path
    parsed(cli, words)


def test_each_command_has_a_whole_line_in_the_list_of_commands() -> None:
    listed = CliRunner().invoke(cli, ["--help"], terminal_width=80).output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == sorted([*cli.commands, *ELSEWHERE])
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_command_that_is_defined_elsewhere_has_the_name_of_its_line(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


def reference_words(example: str) -> list[str]:
    """The words of an example, with the reference system's lanes and types in place of its own."""
    words = shlex.split(example.partition(" > ")[0])
    here = {"seats.book": "users.credit", "seats.continue_sale": "users.continue_purchase"}
    return [here.get(word, re.sub(r"^(seats|orders)\b(?!:)", lambda of: LANES[of[1]], word)) for word in words]


def parsed(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Have all words read, as a call would. Raises UsageError."""
    context = command.make_context(command.name, list(words), parent)
    if isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        parsed(found, rest, context)


@pytest.mark.parametrize(("path", "command"), WITH_JSON)
def test_json_is_one_value_a_line_or_nothing(path: Words, command: Any, environment: dict[str, str]) -> None:
    words = [*reference_words(command.example), *ENDLESS.get(path, []), "--json"]
    done = CliRunner().invoke(cli, words, env=environment)
    assert done.exit_code in (0, 1, 2, 3)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    lines = done.stdout.splitlines()
    for line in lines:
        json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    if path[0] in WITHOUT_BROKER and path not in MISSING:
        assert len(lines) == (2 if path in ENDLESS else 1)
    if not lines:
        assert done.exit_code != 0
        assert done.stderr.startswith("coordinator: ")


def test_rounds_are_for_a_watch(environment: dict[str, str]) -> None:
    done = CliRunner().invoke(cli, ["status", "users", "--rounds=2"], env=environment)
    assert (done.exit_code, "--rounds is for --watch" in done.output) == (2, True)
    done = CliRunner().invoke(cli, ["status", "users", "--watch", "--sample-s=0"], env=environment)
    assert (done.exit_code, "at least 0.1" in done.output) == (2, True)


@pytest.mark.parametrize("words", [["top"], ["status", "--watch"], ["operations"]])
def test_a_wrong_scheme_is_said_at_once(words: list[str], environment: dict[str, str]) -> None:
    done = CliRunner().invoke(cli, [*words, "users"], env=environment | {"USERS_DATABASE_URL": "http://x"})
    said = done.output + str(done.exception)
    assert "USERS_DATABASE_URL" in said
    assert "http://" in said


LOOKING = {
    *[("asyncapi",), ("audit",), ("command",), ("find",), ("parked",), ("schemas",), ("status",), ("top",)],
    *[("writers",), ("dead", "list"), ("dead", "show"), ("keys", "list"), ("outbox", "list"), ("timers", "list")],
}


def test_it_is_said_of_each_command_whether_it_only_looks() -> None:
    assert {path for path, command in commands(cli) if isinstance(command, Exemplified) and command.looks} == LOOKING


ACTS_BY = {("broker-accounts",): "--apply", ("database-accounts",): "--apply", ("guard",): "--apply"}


def test_it_is_said_of_each_command_by_which_option_it_acts() -> None:
    found = {path: command for path, command in commands(cli) if isinstance(command, Exemplified) and command.acts_by}
    assert {path: command.acts_by for path, command in found.items()} == ACTS_BY
    assert all(any(command.acts_by in each.opts for each in command.params) for command in found.values())


@pytest.mark.parametrize("words", ["schemas users", "broker-accounts", "move users --check --help"])
def test_what_only_looks_ends_quietly_where_its_reader_is_gone(words: str, environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "coordinator", *words.split()]
    ran = subprocess.run(command, env=os.environ | environment, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_folder_that_is_gone_is_said_in_words(tmp_path: Path) -> None:
    """A shell stays in a folder that somebody else removes."""
    gone = tmp_path / "gone"
    gone.mkdir()
    words = ["rmdir ../gone", shlex.join([sys.executable, "-m", "coordinator", "--app", "gateways.app:APP", "schemas"])]
    ended = subprocess.run(
        ["sh", "-c", "; ".join(words)], cwd=gone, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("coordinator: the folder in which this was started cannot be found (No such file")
    assert ended.stderr.count("\n") == 1
