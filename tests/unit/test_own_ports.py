"""The ports of the processes of a test run."""

import os

from coordinator.dev.servers import ports
from tests.support.own_ports import ports_of

PRODUCT = range(20_000, 32_000)


def test_no_two_processes_of_a_run_nor_the_product_choose_the_same_port() -> None:
    each = [ports_of(f"gw{number}") for number in range(10)]
    assert len({port for of_one in each for port in of_one}) == sum(map(len, each))
    assert all(port not in PRODUCT for of_one in each for port in of_one)
    assert ports.free_port() in ports_of(os.environ.get("PYTEST_XDIST_WORKER", ""))
