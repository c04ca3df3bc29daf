"""What nobody runs rots: each target of the Makefile, and each marker of the tests, is run by some day of CI."""

import re
import shlex
import tomllib
from functools import cache, partial
from pathlib import Path
from typing import Final

from _pytest.mark.expression import Expression

ROOT: Final = Path(__file__).parents[2]
RUN: Final = (ROOT / ".ci/run").read_text()
MAKEFILE: Final = (ROOT / "Makefile").read_text()

TARGETS_RUN_ELSEWHERE: Final = {
    **dict.fromkeys(("unit", "test", "authors", "doors", "operators", "upgrades"), "`make test-all` runs these tests"),
    "install": "every target needs it",
    "screenshots": "`make faults` runs its test, which keeps no pictures then",
    "bench": "`make bench-rows` runs its rows",
    "run": "`make package` runs that of a new project",
    "monolith": "tests/e2e/test_monolith.py runs its command",
    "up": "tests/compose runs compose.yaml, as `make test-compose` does",
    "down": "the same",
    "help": "it lists the others",
    "clean": "it removes data, and this checkout's caches",
    "format": "it changes files, and `make lint` looks for what it would change",
    "lock": "it changes the pinned dependencies, by uv and the network",
}
"""Targets that CI does not name, and why not."""

MARKERS_RUN_ELSEWHERE: Final = {
    "long": "by hand, by the whole of `make test-compose`: one of its tests alone runs all tests that need servers",
}
"""Markers whose tests no day of CI runs, and why not."""


def commands_of_ci() -> list[list[str]]:
    """The words of each `make` of any day, also of those that a chroot runs, without the word itself."""
    found = []
    for line in RUN.splitlines():
        words = [] if line.lstrip().startswith("#") else shlex.split(line)
        if words and (words[0] == "make" or (words[0] == "as_root_if_possible" and "make" in words)):
            found.append(words[words.index("make") + 1 :])
            found += [
                inner.split()[1:] for word in words if (inner := word.removeprefix("COMMAND=")).startswith("make ")
            ]
    return found


def targets() -> dict[str, str]:
    """Each target, and its recipe."""
    found = re.findall(r"^([a-z-]+):(?!=)[^=\n]*##[^\n]*\n((?:\t[^\n]*\n?)*)", MAKEFILE, re.MULTILINE)
    return dict(found)


def options_of_pytest() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    return found


def markers() -> set[str]:
    return {each.partition(":")[0] for each in options_of_pytest()["markers"]}


def is_same(marker: str, name: str, /, **_: object) -> bool:
    return name == marker


@cache
def files_with(marker: str) -> list[str]:
    paths = (ROOT / "tests").rglob("test_*.py")
    return [str(path.relative_to(ROOT)) for path in paths if re.search(rf"\bmark\.{marker}\b", path.read_text())]


def selected(words: list[str], recipe: str) -> set[str]:
    """The markers of which this run of a target takes tests that have no other."""
    given = next((word.removeprefix("PYTEST_ARGS=") for word in words if word.startswith("PYTEST_ARGS=")), "")
    said = re.findall(r"-m (\"[^\"]+\"|'[^']+'|\w+)", f"{recipe} {given}")
    if not said:
        return set()
    where = tuple(re.findall(r"\btests/[\w/.]+", recipe) or options_of_pytest()["testpaths"])
    # Of several pytest takes the last one. What make puts in by its own conditions is left out.
    chosen = Expression.compile(re.sub(r"\$\(.*\)", "", said[-1].strip("\"'")))
    return {
        marker
        for marker in markers()
        if chosen.evaluate(partial(is_same, marker)) and any(file.startswith(where) for file in files_with(marker))
    }


def test_some_day_of_ci_runs_each_target() -> None:
    run = {words[0] for words in commands_of_ci()}
    assert run <= targets().keys()
    assert targets().keys() - run - TARGETS_RUN_ELSEWHERE.keys() == set(), "no day of .ci/run runs these"
    assert TARGETS_RUN_ELSEWHERE.keys() & run == set(), "they need no reason"
    assert TARGETS_RUN_ELSEWHERE.keys() <= targets().keys()


def test_some_day_of_ci_runs_each_marker() -> None:
    recipes = targets()
    run = {marker for words in commands_of_ci() for marker in selected(words, recipes[words[0]])}
    assert markers() - run - MARKERS_RUN_ELSEWHERE.keys() == set(), "no day of .ci/run runs tests with these"
    assert MARKERS_RUN_ELSEWHERE.keys() & run == set(), "they need no reason"
    assert MARKERS_RUN_ELSEWHERE.keys() <= markers()


def test_each_target_is_phony_and_has_its_line_of_help() -> None:
    said = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert said is not None
    assert set(said[1].split()) == targets().keys()
