"""docs/WHO_MAY.md, as the tests read it."""

from pathlib import Path
from typing import NamedTuple

TABLES = (Path(__file__).parents[3] / "docs" / "WHO_MAY.md").read_text()


class Act(NamedTuple):
    """A row of a table: the act in words, and what each role gets."""

    name: str
    gets: dict[str, str]


def acts_of(heading: str) -> list[Act]:
    """The rows of the table under a heading."""
    section = TABLES.split(f"## {heading}\n")[1].split("\n## ")[0]
    roles, _, *rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("|")
    ]
    return [Act(name, dict(zip(roles[1:], cells, strict=True))) for name, *cells in rows]


def wrong_cells(act: Act, got: dict[str, str], on: str | None = None) -> list[str]:
    """What is not as the table has it, in words.

    `denied, on MySQL and MariaDB yes`: what comes after the comma is so `on` these servers.
    """
    wanted = {role: _of_server(cell, on) for role, cell in act.gets.items()}
    return [f"{role}: {got[role]}, not {expected}" for role, expected in wanted.items() if got[role] != expected]


def _of_server(cell: str, server: str | None) -> str:
    everywhere, _, there = cell.partition(", on ")
    named, _, other = there.rpartition(" ")
    return other if server in named.split(" and ") else everywhere
