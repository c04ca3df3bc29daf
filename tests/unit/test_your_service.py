"""docs/YOUR_SERVICE.md: its Python is run as it stands."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coordinator.service.defects import defects_of
from coordinator.testing import LaneInMemory

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "YOUR_SERVICE.md").read_text()


def blocks(file: str) -> list[str]:
    found = re.findall(rf"^```python\n# {re.escape(file)}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return list(found)


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    made = ModuleType("shop_of_the_document")
    namespace = vars(made)
    for block in blocks("shop/seats.py"):
        exec(block, namespace)
    with pytest.MonkeyPatch.context() as patch:
        # The annotations of its classes are looked up there.
        patch.setitem(__import__("sys").modules, made.__name__, made)
    return namespace


def test_its_service_is_declared_rightly(module: dict[str, Any]) -> None:
    assert defects_of(module["seats"]) == []


def test_its_tests_pass(module: dict[str, Any]) -> None:
    (block,) = blocks("tests/test_seats.py")
    exec(block, module)
    tests = [value for name, value in module.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test(LaneInMemory(module["seats"]))


def test_all_its_python_is_run() -> None:
    assert len(re.findall(r"^```python$", TEXT, re.MULTILINE)) == len(
        blocks("shop/seats.py") + blocks("tests/test_seats.py")
    )


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([A-Z_]+\.md)", TEXT):
        assert (ROOT / "docs" / target).is_file(), target
