"""The report."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.bench.results import Results


def write(results: Results, directory: Path) -> Iterator[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    yield path
