"""The composed system, once for all tests of it."""

import subprocess
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.compose.composed import Composed


@pytest.fixture(scope="session")
def composed() -> Iterator[Composed]:
    """Up and healthy, with volumes that are new."""
    composed = Composed()
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


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session
