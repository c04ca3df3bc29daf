"""docs/WHO_MAY.md, as the tests read it."""

import re
from pathlib import Path
from typing import NamedTuple

TABLES = (Path(__file__).parents[3] / "docs" / "WHO_MAY.md").read_text()


class Act(NamedTuple):
    """A row of a table: the act in words, and what each role gets.

    `route` is the method and path by which it is done, where the table has a column of this name; empty elsewhere.
    """

    name: str
    gets: dict[str, str]
    route: str

    def is_by(self, method: str, target: str) -> bool:
        """Whether a request of this method, for this path and query, is one of the route."""
        pattern = "[^/]+".join(map(re.escape, re.split(r"\{[a-z_]+\}", self.route)))
        return re.fullmatch(pattern, f"{method} {target.partition('?')[0]}") is not None


def acts_of(heading: str) -> list[Act]:
    """The rows of the table under a heading."""
    section = TABLES.split(f"## {heading}\n")[1].split("\n## ")[0]
    roles, _, *rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("|")
    ]
    acts = []
    for name, *cells in rows:
        gets = dict(zip(roles[1:], cells, strict=True))
        acts.append(Act(name, route=gets.pop("route", "").strip("`"), gets=gets))
    return acts


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
