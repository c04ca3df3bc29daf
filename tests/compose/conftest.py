"""The composed system, once for all tests of it, and a key of somebody who may do everything."""

import json
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import aiohttp
import pytest

from tests.compose.composed import Composed
from tests.support.system import wait_until

OPERATING = Path(__file__).parents[2] / "docs" / "OPERATING.md"
UNAUTHORIZED = 401
GATEWAYS = {"users": "/users", "payments": "/payments"}
"""What each answers to whoever has a key; that of items asks for none there."""


@contextmanager
def running(composed: Composed) -> Iterator[Composed]:
    """Up and healthy, with volumes that are new."""
    composed.remove()
    try:
        composed.up("--build")
        yield composed
    except (AssertionError, subprocess.TimeoutExpired):
        print(composed.compose("ps", "--all"))
        print(composed.compose("logs", "--tail", "20"))
        raise
    finally:
        composed.remove()


@pytest.fixture(scope="session")
def composed() -> Iterator[Composed]:
    """The system of compose.yaml."""
    with running(Composed()) as composed:
        yield composed


@pytest.fixture(scope="session")
def headers(composed: Composed) -> dict[str, str]:
    """Those of whoever has a key."""
    return headers_of(composed)


def headers_of(composed: Composed) -> dict[str, str]:
    """Those of whoever has the key that OPERATING says how to make. It counts at the gateways."""
    told = re.search(
        r"docker compose run --rm (operator coordinator keys create (?:.|\\\n)*?)\n\n", OPERATING.read_text()
    )
    assert told is not None
    words = shlex.split(told[1].replace("\\\n", " "))
    key = json.loads(composed.compose("run", "--rm", "--no-TTY", *words, "--json"))["key"]
    headers = {"Authorization": f"Bearer {key}"}

    def counts() -> bool:
        for service, path in GATEWAYS.items():
            try:
                urlopen(Request(composed.url(service) + path, headers=headers), timeout=20).close()
            except HTTPError as error:
                if error.code != UNAUTHORIZED:
                    raise
                return False
        return True

    wait_until(counts, "the key counts", None, 60)
    return headers


@pytest.fixture
async def session(headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client with the key."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=headers) as session:
        yield session
