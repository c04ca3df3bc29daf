"""The operations gateway ends, whatever a database that it asks does."""

import threading
from collections.abc import Iterator

import pytest

from coordinator.operations import main


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """What a database says is waited for until it is set."""
    over = threading.Event()
    yield over
    over.set()


def test_it_waits_for_no_thread_that_asks_a_database_which_says_nothing(
    silence: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "END_S", 0.05)
    asking = threading.Thread(target=silence.wait, name="ask-seats_0", daemon=True)
    other = threading.Thread(target=silence.wait, name="asyncio_0", daemon=True)
    other.start()
    assert not main._are_asking()
    asking.start()
    assert main._are_asking()
    silence.set()
    assert not main._are_asking()
