"""Operators' commands end at a broker that takes connections, and answers byte by byte."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from time import monotonic

import pytest

from coordinator.operate.broker import broker
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable

TIMEOUT_S = 1.0
PACE_S = 0.1
DRIPPED = b"+" + b"K" * 1000 + b"\r\n"
"""One answer, of 100 s."""


@contextmanager
def answering_slowly() -> Iterator[int]:
    """A server, and its port."""
    ends = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with suppress(OSError):
                while not ends.is_set():
                    client, _ = server.accept()
                    threading.Thread(target=drip, args=(client,), daemon=True).start()

        def drip(client: socket.socket) -> None:
            with suppress(OSError), client:
                client.recv(65_536)
                for at in range(len(DRIPPED)):
                    if ends.wait(PACE_S):
                        return
                    client.sendall(DRIPPED[at : at + 1])

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        ends.set()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("is_sentinel", [False, True], ids=["server", "sentinel"])
def test_an_answer_of_redis_is_whole_at_a_time_or_it_is_none(is_sentinel: bool) -> None:
    with answering_slowly() as port:
        place = f"127.0.0.1:{port}"
        url = f"redis+sentinel://{place}/main" if is_sentinel else f"redis://{place}/0"
        began_s = monotonic()
        with (
            pytest.raises(BrokerUnavailable, match=r"longer than 1 s|No master found|Timeout"),
            broker(BrokerSettings(url=url, connect_timeout_s=TIMEOUT_S)) as connected,
        ):
            connected.lane_depth("seats")
        assert monotonic() - began_s < 4 * TIMEOUT_S
