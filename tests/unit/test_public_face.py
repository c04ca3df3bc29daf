"""What one may import: the names, their document, and that the reference system needs no others."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import writing

ROOT = Path(__file__).parents[2]
FACES = tuple(
    f"coordinator{part}"
    for part in ("", ".client", ".writing", ".reading", ".http", ".cache", ".dev", ".settings", ".ports", ".testing")
)
PROGRAMS = {"coordinator.cli": {"main"}}
"""Modules of which these names are public too."""
HEAVY = {"aiohttp", "alembic", "pika", "psycopg", "pymongo", "pymysql", "redis", "prometheus_client", "stripe"}
"""Drivers, clients and servers."""


def loaded(statement: str) -> set[str]:
    """The modules of a process that runs a statement."""
    program = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(run.stdout.split())


def documented(face: str) -> dict[str, str]:
    """The names under a package's heading in docs/API.md, with what it says of each."""
    text = (ROOT / "docs" / "API.md").read_text()
    (section,) = re.findall(rf"^## `{re.escape(face)}`$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))


@pytest.mark.parametrize("face", FACES)
def test_names_and_their_document_agree(face: str) -> None:
    names = importlib.import_module(face).__all__
    assert len(set(names)) == len(names)
    assert set(documented(face)) == set(names)
    assert all(documented(face).values())


@pytest.mark.parametrize("face", FACES)
def test_nothing_else_looks_public(face: str) -> None:
    """What is there without an underscore is a name of the list, or a module of the package."""
    module = importlib.import_module(face)
    others = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name not in module.__all__
    }
    assert others == set()


@pytest.mark.parametrize("package", ["shared", "gateways", "tests/support/shop", "docs/examples"])
def test_applications_use_only_public_names(package: str) -> None:
    wrong = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wrong += [f"{path}: {alias.name}" for alias in node.names if alias.name.startswith("coordinator")]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "coordinator":
                public = PROGRAMS.get(node.module or "", set())
                if node.module in FACES:
                    public = set(importlib.import_module(node.module).__all__)
                wrong += [f"{path}: {node.module}.{a.name}" for a in node.names if a.name not in public]
    assert wrong == []


def test_importing_the_framework_loads_no_driver_no_client_and_no_server() -> None:
    assert (HEAVY | {"sqlalchemy"}) & loaded("import coordinator") == set()


def test_each_way_to_write_loads_its_own_client_and_no_other() -> None:
    assert HEAVY & loaded("import coordinator.writing") == set()
    assert "pika" in loaded("from coordinator.writing import RabbitWrites")
    on_redis = loaded("from coordinator.writing import RedisWrites")
    assert "redis" in on_redis
    assert "pika" not in on_redis
    in_process = loaded("from coordinator.writing import InProcessWrites, open_store")
    assert HEAVY & in_process == {"prometheus_client"}


def test_what_is_listed_of_the_ways_to_write_is_there() -> None:
    for name in writing.__all__:
        assert getattr(writing, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = writing.nothing
