"""What may import what, and when."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "coordinator", "gateways")
LINES_MAX = 400
LARGE_ROOMS: dict[str, str] = {}
"""Files of more lines, and why each is one idea all the same. Better an entry here than a file for what had no room."""

IO_LIBRARIES = {
    "aiohttp",
    "aiomysql",
    "asyncio",
    "http",
    "multiprocessing",
    "os",
    "pika",
    "psycopg",
    "pymongo",
    "pymysql",
    "random",
    "redis",
    "requests",
    "selectors",
    "signal",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "urllib",
}
"""What the lane must not touch: I/O, threads, and the sources of whatever is not the same twice."""

MAY_IMPORT = {
    "coordinator": {"coordinator"},
    "shared": {"shared", "coordinator"},
    "gateways": {"gateways", "shared", "coordinator"},
}
OF_THE_REFERENCE_SYSTEM = {
    *("users", "items", "payment", "payments", "purchase", "purchases"),
    *("stripe", "sandbox", "sandboxes", "currency", "currencies", "iso4217"),
}
"""Words that the framework does not know: the reference system's services, and what only these deal with."""

NOT_THE_REFERENCE_SYSTEM_S = {
    "coordinator/documents/http_api.py": re.compile(r"schema\['items'\]"),
    "coordinator/documents/asyncapi.py": re.compile(r'"(items|minItems|maxItems)":'),
    "coordinator/stores/mongodb/writers.py": re.compile(r'"usersInfo"|\["users"\]|"system\.users"'),
    "coordinator/transports/rabbitmq/definitions.py": re.compile(r'"users"'),
    "coordinator/accounts/management.py": re.compile(r'"users|f"users/'),
    "coordinator/http/contract/openapi.py": re.compile(r'"(items|minItems|maxItems)"'),
    "coordinator/http/contract/assets/docs.css": re.compile(r"align-items"),
    "coordinator/http/contract/assets/docs.js": re.compile(r"own\.items"),
    "coordinator/operations/assets/style.css": re.compile(r"align-items|\bitems\b(?=:)"),
    "coordinator/service/paging.py": re.compile(r"^    items: list\[R\]$", re.MULTILINE),
}
"""Where a word is another's: `items` is JSON Schema's for the elements of an array, CSS's for what it aligns, and ours
for those of a page; `users` is MongoDB's and RabbitMQ's for their accounts."""


def sources(package: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / package).rglob("*.py")) if "__pycache__" not in path.parts)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever it does so."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            package = ROOT / (node.module or "").replace(".", "/")
            names = [alias.name for alias in node.names]
            modules = [name for name in names if (package / f"{name}.py").exists() or (package / name).is_dir()]
            yield from (f"{node.module}.{name}" for name in modules)
            if len(modules) < len(names):
                yield node.module or ""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_imported(path: Path) -> bool:
    """Not run by Alembic, as a revision or their environment, nor a program."""
    return path.name not in ("__main__.py", "env.py") and (path.parent / "__init__.py").exists()


ALL = [path for package in PACKAGES for path in sources(package)]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if name.partition(".")[0] in set(PACKAGES) - MAY_IMPORT[package]
    ]
    assert wrong == []


def words(text: str) -> Iterator[str]:
    """In small letters; those that names are made of, as in USERS_PORT or StripeSettings, too."""
    without_pythons = text.replace(".items()", "")
    for word in re.findall(r"[A-Za-z]+[0-9]*", without_pythons):
        yield word.lower()
        yield from (part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word))


def test_the_framework_knows_no_service_by_name() -> None:
    """Nor what is a provider's, or a currency's: in code, comments, strings and the names of files."""
    found = []
    for path in sorted((ROOT / "coordinator").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = str(path.relative_to(ROOT))
            text = path.read_text()
            known = NOT_THE_REFERENCE_SYSTEM_S.get(name)
            text = known.sub("", text) if known else text
            found += [f"{name}: {word}" for word in sorted(OF_THE_REFERENCE_SYSTEM & set(words(f"{name}\n{text}")))]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "of users.",
        "USERS_DATABASE_URL",
        "StripeSettings",
        "unknown_currency",
        "users_reader",
        "iso4217",
        "for x in items",
    ],
)
def test_words_are_found_in_whatever_they_are_a_part_of(text: str) -> None:
    assert OF_THE_REFERENCE_SYSTEM & set(words(text))


def test_service_imports_nothing_of_ours() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("coordinator/service")
        for name in imports(path)
        if name.partition(".")[0] in PACKAGES and not name.startswith("coordinator.service")
    ]
    assert wrong == []


def test_no_two_modules_import_each_other() -> None:
    """However many steps it takes."""
    names = {module_name(path): path for path in ALL}
    imported = {name: {each for each in imports(path) if each in names} for name, path in names.items()}
    below: dict[str, set[str]] = {}

    def reached(name: str, way: tuple[str, ...]) -> set[str]:
        assert name not in way, " → ".join((*way[way.index(name) :], name))
        if name not in below:
            found = set(imported[name])
            for each in imported[name]:
                found |= reached(each, (*way, name))
            below[name] = found
        return below[name]

    for name in names:
        reached(name, ())


def test_no_two_modules_define_a_class_of_the_same_name() -> None:
    """One word for one idea. A leading underscore makes no other word of it."""
    defined: dict[str, set[str]] = {}
    for path in ALL:
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.ClassDef):
                defined.setdefault(node.name.lstrip("_"), set()).add(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}


def test_threads_tell_each_other_in_one_place() -> None:
    """A loop may be closed by then, and not every caller thinks of it."""
    by = [str(path.relative_to(ROOT)) for path in ALL if "call_soon_threadsafe" in path.read_text()]
    assert [path for path in by if not path.startswith("tests/")] == ["coordinator/runtime/telling.py"]


def test_the_lane_does_no_io() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("coordinator/lane")
        for name in imports(path)
        if name.partition(".")[0] in IO_LIBRARIES
    ]
    assert wrong == []


def test_the_lane_imports_no_adapter() -> None:
    allowed = (
        *("coordinator.lane", "coordinator.service", "coordinator.protocol", "coordinator.runtime.settings"),
        "coordinator.runtime.recording",
        *("coordinator.stores.port", "coordinator.stores.lane_tables", "coordinator.stores.row_checks"),
        *("coordinator.stores.outcomes", "coordinator.stores.audit_tables", "coordinator.stores.key_texts"),
        *("coordinator.stores.operator_acts", "coordinator.stores.passages", "coordinator.stores.personal_tables"),
        *("coordinator.stores.moves", "coordinator.stores.move_tables", "coordinator.stores.fingerprint_keys"),
        *("coordinator.stores.same_rows", "coordinator.stores.lineages"),
    )
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("coordinator/lane")
        for name in imports(path)
        if name.startswith("coordinator") and not name.startswith(allowed)
    ]
    assert wrong == []


def test_handlers_and_commands_do_no_io() -> None:
    """They are what the lane calls. Models name their tables by SQLAlchemy's classes, which connect to nothing."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "shared").glob("*/*.py")
        if path.name in ("handlers.py", "commands.py")
        for name in imports(path)
        if name.partition(".")[0] in IO_LIBRARIES
    ]
    assert wrong == []


IMPORT_EVERYTHING = """
import collections.abc, importlib, json, os, sys

class Watched(collections.abc.MutableMapping):
    def __init__(self, real): self.real, self.read = real, set()
    def __getitem__(self, name): self.read.add(name); return self.real[name]
    def __setitem__(self, name, value): self.real[name] = value
    def __delitem__(self, name): del self.real[name]
    def __iter__(self): self.read.add("everything"); return iter(self.real)
    def __len__(self): return len(self.real)
    def copy(self): return dict(self)

def forbid(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork"):
        raise PermissionError(f"{event} {arguments} at import")

modules = json.loads(sys.argv[1])
# It copies the environment when imported, and prometheus_client imports it.
importlib.import_module("wsgiref.handlers")
sys.addaudithook(forbid)
os.environ = Watched(os.environ)
for name in modules:
    importlib.import_module(name)
json.dump(sorted(os.environ.read), sys.stdout)
"""


def test_importing_connects_to_nothing_and_does_not_read_the_environment() -> None:
    modules = [module_name(path) for path in ALL if is_imported(path)]
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, json.dumps(modules)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # Libraries may read variables of their own; reading all of them is how settings are read.
    ours = ("everything", "AMQP_", "LANE_", "REDIS_", "GATEWAY_", "TELEMETRY_", "DEV_", "USERS_", "ITEMS_", "PAYMENTS_")
    assert [name for name in json.loads(run.stdout) if name.startswith(ours)] == []


START_A_LANE = """
import sys
from coordinator import cli
from coordinator.worker import process
from coordinator.stores.open import open_store
from coordinator.registry import registry

open_store(sys.argv[2], registry().service(sys.argv[1]))
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("lane", "url", "needs"),
    [
        ("users", "postgresql://localhost/users", "psycopg"),
        ("items", "mongodb://localhost/items", "pymongo"),
        ("payments", "mysql://localhost/payments", "pymysql"),
    ],
)
def test_a_lane_takes_no_memory_for_what_others_need(lane: str, url: str, needs: str) -> None:
    command = [sys.executable, "-c", START_A_LANE, lane, url]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    heavy = {"alembic", "psycopg", "pymongo", "pymysql", "redis", "stripe", "coordinator.operate", "coordinator.http"}
    assert heavy & set(run.stdout.split()) == {needs}


def test_every_package_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in ALL
        if path.name == "__init__.py" and not ast.get_docstring(_parsed(path))
    ]
    assert silent == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT)) for path in ALL if path.stat().st_size and not ast.get_docstring(_parsed(path))
    ]
    assert silent == []


def test_files_are_small_rooms_or_say_why_not() -> None:
    """250 lines are what we aim at. Beyond the limit a file has a reason, or is two ideas."""
    large = {str(path.relative_to(ROOT)) for path in ALL if len(path.read_text().splitlines()) >= LINES_MAX}
    assert large == set(LARGE_ROOMS)
    assert all(LARGE_ROOMS.values())
