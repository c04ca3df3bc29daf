"""The tables of docs/OPERATING.md, for tests that compare them with what is."""

import re
from pathlib import Path
from typing import Final

OPERATING: Final = (Path(__file__).parents[2] / "docs" / "OPERATING.md").read_text()


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = OPERATING.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]


def listed_metrics() -> dict[str, tuple[str, list[str]]]:
    """Kind and labels of every metric, by name."""
    return {row[0].strip("`"): (row[1], re.findall(r"`([a-z_]+)`", row[2])) for row in rows("Metrics")}
