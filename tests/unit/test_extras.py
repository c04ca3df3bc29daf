"""A package that belongs to an extra and is not installed: it is named, and so is the way to install it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from coordinator.registry import imported
from coordinator.runtime.extras import _EXTRAS, naming_the_extra
from coordinator.service.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"psycopg_pool": "psycopg", "bson": "pymongo", "jwt": "pyjwt"}
"""Of modules that are not named like theirs."""

WITHOUT = {
    # Of the public names, too.
    "pika.adapters": ("rabbitmq", "from coordinator.writing import RabbitWrites"),
    "pika": ("rabbitmq", "from coordinator.transports.open import open_transport as f; f(load(BrokerSettings))"),
    "psycopg": ("postgresql", "from coordinator.stores.open import open_store as f; f('postgresql://h/d', SERVICE)"),
    "pymysql": ("mysql", "from coordinator.stores.open import open_store as f; f('mysql://h/d', SERVICE)"),
    "pymongo": ("mongodb", "from coordinator.stores.open import open_store as f; f('mongodb://h/d', SERVICE)"),
    "redis": (
        "redis",
        "from coordinator.cache import lane_scripts as f; from coordinator.settings import CacheSettings as C; f(C())",
    ),
    "hypothesis": (
        "testing",
        "from coordinator.testing import simulate as f; from tests.support.seats import seats; f(seats)",
    ),
    "aiohttp": ("http", "sys.argv[1:] = ['gateway', 'users']; from coordinator.cli import main; main()"),
}


def run(module: str, statement: str) -> subprocess.CompletedProcess[str]:
    """A process in which a module is missing."""
    program = f"""
import sys
sys.modules[{module!r}] = None
from coordinator import Service
from coordinator.runtime.settings import BrokerSettings, load
SERVICE = Service("orders")
{statement}
"""
    environment = {"COORDINATOR_APP": "gateways.app:APP", "PATH": "/usr/bin:/bin"}
    arguments = [sys.executable, "-c", program]
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", WITHOUT)
def test_a_missing_package_is_named_with_its_extra(module: str) -> None:
    extra, statement = WITHOUT[module]
    ended = run(module, statement)
    assert ended.returncode != 0
    wanted = f'{module.partition(".")[0]} is not installed: install it with pip install "write-coordinator[{extra}]"'
    assert wanted in ended.stderr.splitlines()[-1]


def test_a_service_without_a_server_needs_http_and_no_other_extra() -> None:
    missing = {module: None for module, extra in _EXTRAS.items() if extra != "http"}
    ended = run("pika", f"sys.modules |= {missing}; import coordinator.dev.one_process, coordinator.dev.cleaning")
    assert ended.returncode == 0, ended.stderr


def test_every_extra_s_packages_are_named_and_no_others() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = {
        extra: {re.split(r"[\[>=<; ]", wanted)[0] for wanted in extras[extra]}
        for extra in ("rabbitmq", "postgresql", "mysql", "mongodb", "redis", "http", "testing")
    }
    # It comes with pymysql alone, which asks for it where a server wants a password encrypted.
    packages["mysql"] -= {"cryptography"}
    named: dict[str, set[str]] = {extra: set() for extra in packages}
    for module, extra in _EXTRAS.items():
        named[extra].add(DISTRIBUTIONS.get(module, module))
    assert named == packages


def test_another_missing_module_is_no_extra_s() -> None:
    with pytest.raises(ModuleNotFoundError), naming_the_extra():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ConfigurationError), naming_the_extra():
        raise ModuleNotFoundError(name="pika.adapters")


def test_a_service_that_imports_a_package_of_an_extra_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calls_aiohttp.py").write_text("import aiohttp\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    expected = r'aiohttp is not installed: install it with .*write-coordinator\[http\]" \(.*calls_aiohttp.py:1'
    with pytest.raises(ConfigurationError, match=expected):
        imported("calls_aiohttp:APP", object)


def test_the_command_line_tells_what_it_can_without_any_extra() -> None:
    """Whoever has installed the wheel alone looks at its help first."""
    missing = dict.fromkeys(_EXTRAS)
    ended = run(
        "pika", f"sys.modules |= {missing}; sys.argv[1:] = ['--help']; from coordinator.cli import main; main()"
    )
    assert ended.returncode == 0, ended.stderr
    assert "accept-loss" in ended.stdout
