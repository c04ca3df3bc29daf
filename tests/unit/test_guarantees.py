"""docs/GUARANTEES.md names the tests of each promise: they are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "GUARANTEES.md").read_text()
SOURCES = {path: path.read_text() for path in TESTS.rglob("*.py")}
CITED = sorted({cited for cited in re.findall(r"`([^`\n]+)`", TEXT) if re.search(r"test_|tests/|Contract\.|^…", cited)})


def sources_of(cited: str) -> list[str]:
    """The texts of the files of that name, or of those that define the class; all, where neither is named."""
    where = re.split(r"::|\.(?=test_|…)", cited)[0] if re.search(r"::|\.(?=test_|…)", cited) else cited
    if where.endswith(".py") or "/" in where:
        return [text for path, text in SOURCES.items() if f"/{path.as_posix()}".endswith(f"/{where}")]
    if where[0].isupper() or where.startswith("_"):
        return [text for text in SOURCES.values() if f"class {where}" in text]
    return list(SOURCES.values())


@pytest.mark.parametrize("cited", CITED)
def test_a_test_that_a_promise_names_is_there(cited: str) -> None:
    if any(TESTS.parent.glob(cited)):
        return
    found = sources_of(cited)
    assert found, f"there is no such file or class: {cited}"
    part = re.search(r"(?:::|\.|^)…?(test_\w+|\w+)…?$", cited)
    if part is not None and not cited.endswith(".py"):
        names = re.findall(r"def (test_\w+)", "\n".join(found))
        assert any(part[1] in name for name in names), f"there is no such test: {cited}"
