"""Files and folders that documents and docstrings name are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("coordinator", "shared", "gateways", "tests", "docs")
NAMED = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)})/[\w/.-]*\w)")
OF_A_NEW_PROJECT = tuple(
    f"tests/{name}.py"
    for name in (
        *("test_seats", "test_holds", "test_refunds", "test_shifts"),
        *("test_vouchers", "test_purchases", "test_notes"),
    )
)
"""They are there once `coordinator new` has made them, or its user has followed a document."""
TOP = ("README.md", "CONTRIBUTING.md", "Makefile", "Dockerfile", "compose.yaml", "pyproject.toml")


def is_there(named: str) -> bool:
    """A folder that holds nothing but what Python left is none."""
    path = ROOT / named
    is_file = path.is_file() or path.with_name(f"{path.name}.py").is_file()
    return is_file or any(each.name != "__pycache__" for each in path.glob("*"))


def test_named_paths_are_there() -> None:
    texts = [ROOT / name for name in TOP]
    texts += [path for package in PACKAGES for ending in ("py", "md") for path in (ROOT / package).rglob(f"*.{ending}")]
    missing = [
        f"{path.relative_to(ROOT)}:{number}: {named}"
        for path in texts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for named in NAMED.findall(line)
        if named not in OF_A_NEW_PROJECT and not is_there(named)
    ]
    assert missing == []
