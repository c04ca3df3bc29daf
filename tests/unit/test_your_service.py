"""docs/YOUR_SERVICE.md: its Python is run as it stands."""

import re
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coordinator.service.defects import defects_of
from coordinator.service.unhandled import unhandled_commands
from coordinator.testing import LaneInMemory, simulate

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "YOUR_SERVICE.md").read_text()


def blocks(file: str) -> list[str]:
    found = re.findall(rf"^```python\n# {re.escape(file)}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return list(found)


FILES = {
    "seats": ("shop/seats.py", "tests/test_seats.py"),
    "holds": ("shop/holds.py", "tests/test_holds.py"),
    "notes": ("shop/notes.py", "tests/test_notes.py"),
}


@pytest.fixture(scope="module", params=FILES)
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """From a file, since `simulate` has other processes import it."""
    name = f"{request.param}_of_the_document"
    path = tmp_path_factory.mktemp("document") / f"{name}.py"
    path.write_text("\n".join(blocks(FILES[request.param][0])))
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # The annotations of its classes are looked up there.
        patch.setitem(sys.modules, name, made)
        spec.loader.exec_module(made)
        yield vars(made) | {"service": vars(made)[request.param]}


def test_its_service_is_declared_rightly(module: dict[str, Any]) -> None:
    assert defects_of(module["service"]) == []
    assert unhandled_commands(module["service"]) == []


def test_its_tests_pass(module: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As pytest finds them: with no names but those that they import."""
    service = module["service"].name
    (block,) = blocks(FILES[service][1])
    there = ModuleType(f"shop.{service}")
    vars(there).update(module)
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, f"shop.{service}", there)
    names: dict[str, Any] = {}
    exec(block, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test(LaneInMemory(module["service"]))


def test_its_handlers_do_the_same_in_every_history(module: dict[str, Any]) -> None:
    simulate(module["service"], seeds=20)


def test_all_its_python_is_run() -> None:
    run = [block for files in FILES.values() for file in files for block in blocks(file)]
    assert len(re.findall(r"^```python$", TEXT, re.MULTILINE)) == len(run)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([A-Z_]+\.md)", TEXT):
        assert (ROOT / "docs" / target).is_file(), target
