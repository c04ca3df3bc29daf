"""The ports of the processes that run tests."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from coordinator.dev.servers import ports
from coordinator.service.errors import ConfigurationError
from tests.support import own_ports
from tests.support.own_ports import BLOCKS, free_block, ports_of

PRODUCT = range(20_000, 32_000)


def test_no_two_blocks_nor_the_product_have_the_same_port() -> None:
    each = [ports_of(number) for number in range(BLOCKS)]
    assert len({port for of_one in each for port in of_one}) == sum(map(len, each))
    assert all(port not in PRODUCT for of_one in each for port in of_one)


def test_this_process_chooses_from_a_block_of_its_own() -> None:
    assert any(ports.free_port() in ports_of(number) for number in range(BLOCKS))
    assert own_ports._held


def test_the_locks_are_not_those_of_one_run_alone() -> None:
    """Its folder for temporary files is its own, and no other run looks there."""
    assert not own_ports.FOLDER.is_relative_to(tempfile.gettempdir()) or tempfile.gettempdir() == "/tmp"


def test_no_two_processes_hold_the_same_block(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, held = free_block(tmp_path)
        stack.callback(held.close)
        second, other = free_block(tmp_path)
        stack.callback(other.close)
        assert (first, second) == (0, 1)
    again, held = free_block(tmp_path)
    held.close()
    assert again == 0


def test_when_all_are_held_the_run_says_so(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(BLOCKS):
            stack.callback(free_block(tmp_path)[1].close)
        with pytest.raises(RuntimeError, match="20 processes run tests on this machine already"):
            free_block(tmp_path)


def test_ports_that_were_all_given_are_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ports.free_port()
    monkeypatch.setattr(ports, "_FREE_PORTS", range(start, start + 1))
    monkeypatch.setattr(ports, "_chosen", {})
    assert [ports.free_port(), ports.free_port()] == [start, start]
    monkeypatch.setattr(ports, "port_is_free", lambda *_: False)
    with pytest.raises(ConfigurationError, match="no port between"):
        ports.free_port()


def test_those_that_were_given_last_are_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever got them has just chosen all that he needs, and may not have begun to listen."""
    monkeypatch.setattr(ports, "_FREE_PORTS", range(1, 9))
    monkeypatch.setattr(ports, "_chosen", {})
    monkeypatch.setattr(ports, "port_is_free", lambda *_: True)
    given = [ports.free_port() for _ in range(1000)]
    assert all(len(set(given[at : at + 4])) == 4 for at in range(len(given) - 4))
