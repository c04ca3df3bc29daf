"""The benchmark on real servers, as short as it can be: the lane and two alternatives, one of which loses updates.

And the lane through HTTP, loaded by wrk.
"""

import pytest

from coordinator.dev.install import Installation
from coordinator.dev.servers.server_set import ServerSet
from tests.bench.catalogue import rows
from tests.bench.run import Runner
from tests.bench.session import Session
from tests.support.servers import WRK

KEYS = ("hot-row/lane", "hot-row/for-update-32", "hot-row/naive-32", "http/lane")


@pytest.mark.timeout(100)
def test_the_lane_and_its_alternatives_are_measured_and_verified(
    native_servers: ServerSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("bench")
    Installation(print, directory / "install.log", (WRK,)).run()
    session = Session(native_servers, directory)
    try:
        runner = Runner(session, duration_s=1.0, warm_s=0.5)
        found = {row.key: runner.run(row, repeat=0) for row in rows() if row.key in KEYS}
    finally:
        session.stop()
        session.drop()
    for key in KEYS:
        assert found[key].applied_total > 0
        assert found[key].errors == 0, found[key].error_texts
    assert not found["hot-row/lane"].violated, found["hot-row/lane"].invariant
    assert not found["hot-row/for-update-32"].violated, found["hot-row/for-update-32"].invariant
    assert found["hot-row/naive-32"].lost > 0
    http = found["http/lane"]
    assert not http.violated, http.invariant
    # Of both runs of wrk, the warm-up and the window: a request on each of 64 connections.
    assert http.unknown_total == 2 * 64
    assert http.achieved > 0
    assert http.latency_ms["p99"] is not None
    assert {"clients", "broker", "database", "coordinator"} <= set(found["hot-row/lane"].cpu_s_per_1000)
    assert http.cpu_s_per_1000["clients"] > 0
