"""A peer that says nothing on an open connection is said within 5 s, by the sums of the times that the code waits.

That each of these waits is noted, and told, is tried where it is made, and in tests/e2e/test_silence.py.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pymysql
import pytest

from coordinator.effects.provider_silence import ProviderSilence
from coordinator.http import operations
from coordinator.lane.pauses import WATCH_EVERY_S
from coordinator.runtime import late_answers
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.awaited import LATE_S
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.mysql import lane_connection
from coordinator.stores.mysql.driver_arguments import connections_of
from coordinator.stores.open import open_admin
from coordinator.transports.rabbitmq import pulse
from coordinator.transports.redis import connection
from tests.support.answering_server import answering
from tests.support.tls_stand_in import GREETING_WITH_TLS, SSL_REQUEST_BYTES

SAID_WITHIN_S = 5.0

_cache = CacheSettings()
_beat_s = _cache.lease_s / 3
UNTIL_READYZ = {
    # An idle lane, and a standby, looks at its database; the call does not return.
    "a lane's database": [WATCH_EVERY_S, LATE_S],
    # It keeps its lease there, and waits for nothing longer than for the cache at all.
    "a lane's cache": [_beat_s, _cache.timeout_s, WATCH_EVERY_S],
    # A connection on which nothing arrives is asked at every second look.
    "RabbitMQ": [pulse.LOOK_EVERY_S, LATE_S],
    "Redis as the broker": [connection._ASK_EVERY_S, LATE_S],
    # A call is made, or an effect waits for none.
    "a worker's provider": [LATE_S],
    # Of its database, cache and broker: whoever asks has them looked at.
    "any part of a gateway": [operations.READY_TIMEOUT_S],
}
UNTIL_A_LINE = {
    **{peer: [*waits, late_answers.LOOK_EVERY_S] for peer, waits in UNTIL_READYZ.items() if LATE_S in waits},
    # A look that has just begun still finds the part well.
    "any part of a gateway": [operations.WATCH_EVERY_S, operations.READY_TIMEOUT_S],
}


@pytest.mark.parametrize("peer", UNTIL_READYZ)
def test_readiness_says_of_a_silent_peer_within_5_s(peer: str) -> None:
    assert sum(UNTIL_READYZ[peer]) < SAID_WITHIN_S


@pytest.mark.parametrize("peer", UNTIL_A_LINE)
def test_a_line_says_of_a_silent_peer_within_5_s(peer: str) -> None:
    assert sum(UNTIL_A_LINE[peer]) <= SAID_WITHIN_S


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scheme", ["mysql", "postgresql", "mongodb"])
def test_who_operates_waits_for_no_server_that_takes_connections_and_says_nothing(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://ada:secret@127.0.0.1:{silent.getsockname()[1]}/seats"
        with closing(open_admin(url, "seats")) as admin, pytest.raises(DatabaseUnavailable):
            admin.state()


@contextmanager
def dripping(begin: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that goes on byte by byte, and never ends."""
    ends = threading.Event()

    def drip(client: socket.socket) -> None:
        with suppress(OSError):
            begin(client)
            while not ends.wait(0.5):
                client.sendall(b"x")

    with answering(drip) as port:
        try:
            yield port
        finally:
            ends.set()


def begin_greeting(client: socket.socket) -> None:
    client.sendall(b"\xff\xff\x00\x00")


def begin_tls(client: socket.socket) -> None:
    client.sendall(GREETING_WITH_TLS)
    client.recv(SSL_REQUEST_BYTES, socket.MSG_WAITALL)
    client.recv(4096)
    client.sendall(b"\x16\x03\x03\x40\x00")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("begin", "options", "said", "most_s"),
    [(begin_greeting, "", "within 9 s", 15.0), (begin_tls, "?ssl_verify_cert=false", "handshake", 8.0)],
)
def test_who_operates_waits_for_no_mysql_that_says_what_it_says_byte_by_byte(
    begin: Callable[[socket.socket], object], options: str, said: str, most_s: float
) -> None:
    with dripping(begin) as port:
        began_s = time.monotonic()
        url = f"mysql://ada:secret@127.0.0.1:{port}/seats{options}"
        with closing(open_admin(url, "seats")) as admin, pytest.raises(DatabaseUnavailable, match=said):
            admin.state()
        assert time.monotonic() - began_s < most_s


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("begin", "options"), [(begin_greeting, ""), (begin_tls, "?ssl_verify_cert=false")])
def test_a_lane_waits_for_no_mysql_that_says_what_it_says_byte_by_byte(
    begin: Callable[[socket.socket], object], options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_connection, "IO_TIMEOUT_S", 1)
    with dripping(begin) as port:
        hosts = connections_of(parse_address(f"mysql://ada:secret@127.0.0.1:{port}/seats{options}"))
        began_s = time.monotonic()
        with pytest.raises(pymysql.OperationalError, match=r"handshake|within 3 s"):
            lane_connection.open_lane_connection(hosts)
        assert time.monotonic() - began_s < 8.0


def test_a_provider_is_silent_from_its_last_answer_on_for_as_long_as_somebody_waits() -> None:
    now_s = 100.0
    silence = ProviderSilence(lambda: now_s)

    def waited_s() -> float | None:
        late = silence.late
        return None if late is None else late.waited_s

    assert waited_s() is None
    first_s = silence.begin()
    now_s += 2.0
    second_s = silence.begin()
    assert waited_s() is None
    now_s += 1.0
    assert waited_s() == 3.0
    assert str(silence.late) == "it has waited 3 s for the provider"
    silence.end(first_s, is_answered=False)
    now_s += 20.0
    assert waited_s() == 23.0, "one call has had its time, and nothing else has changed"
    silence.end(silence.begin(), is_answered=True)
    assert waited_s() is None
    now_s += LATE_S
    assert waited_s() == LATE_S
    silence.end(second_s, is_answered=False)
    assert waited_s() is None, "nobody waits"
    third_s = silence.begin()
    now_s += LATE_S
    silence.end(third_s, is_answered=False, is_away=True)
    now_s += 1.0
    assert waited_s() == LATE_S + 1.0, "it is called now and then"


def test_a_provider_that_refuses_at_once_is_not_silent() -> None:
    """Nor is it while it counts as away: of one that answers 500 nobody waits for an answer."""
    now_s = 100.0
    silence = ProviderSilence(lambda: now_s)

    def is_late() -> bool:
        return silence.late is not None

    for _ in range(5):
        began_s = silence.begin()
        now_s += 0.1
        silence.end(began_s, is_answered=False, is_away=True)
        now_s += 60.0
        assert not is_late()
    hanging_s = silence.begin()
    now_s += 2 * LATE_S
    began_s = silence.begin()
    silence.end(began_s, is_answered=False, is_away=True)
    assert not is_late(), "it said something just now"
    now_s += LATE_S
    assert is_late(), "and has kept silent to the other call since"
    silence.end(hanging_s, is_answered=False, is_away=True)
    assert is_late()
