"""An answer by HTTP is whole at a time, or it is none: neither its headers nor its body may come byte by byte."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from time import monotonic

import pytest

from coordinator.runtime import asking
from coordinator.runtime.asking import open_within, read_within

TIMEOUT_S = 0.3
PACE_S = 0.05
DRIPPED = 40
"""So many bytes come for 2 s, each long before a timeout for one of them."""
BODY_BYTES = 100_000
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def answering(at_once: bytes, dripped: bytes = b"", pace_s: float = PACE_S) -> Iterator[str]:
    """A server that gives one request an answer whose end comes byte by byte; its address."""
    ends = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                client.recv(65_536)
                client.sendall(at_once)
                for at in range(len(dripped)):
                    if ends.wait(pace_s):
                        return
                    client.sendall(dripped[at : at + 1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        ends.set()
        thread.join()


@pytest.mark.parametrize(
    ("at_once", "dripped"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Slow: ", b"x" * DRIPPED + b"\r\n\r\n"),
        (HEADERS % DRIPPED, b"x" * DRIPPED),
    ],
    ids=["headers", "body"],
)
def test_an_answer_that_comes_byte_by_byte_takes_no_longer_than_it_may(at_once: bytes, dripped: bytes) -> None:
    with answering(at_once, dripped) as url:
        began_s = monotonic()
        with (
            pytest.raises(TimeoutError, match=r"longer than 0\.3 s"),
            open_within(url, TIMEOUT_S, has_proxies=False) as answer,
        ):
            read_within(answer, BODY_BYTES)
        assert monotonic() - began_s >= TIMEOUT_S


def test_what_is_there_too_late_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(HEADERS % BODY_BYTES + b"x" * BODY_BYTES) as url,
        open_within(url, 30.0, has_proxies=False) as answer,
    ):
        monkeypatch.setattr(asking, "monotonic", lambda: monotonic() + 60.0)
        with pytest.raises(TimeoutError, match=r"longer than 30\.0 s"):
            read_within(answer, BODY_BYTES)


def test_what_falls_silent_is_waited_for_as_long_as_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as long as at first: the byte that is missing comes after 5 s, of 30 s, of which 29.8 s are over."""
    with (
        answering(HEADERS % 2 + b"x", b"x", pace_s=5.0) as url,
        open_within(url, 30.0, has_proxies=False) as answer,
    ):
        monkeypatch.setattr(asking, "monotonic", lambda: monotonic() + 29.8)
        with pytest.raises(TimeoutError, match=r"longer than 30\.0 s"):
            read_within(answer, BODY_BYTES)


def test_an_answer_in_time_is_read_whole() -> None:
    with (
        answering(HEADERS % BODY_BYTES + b"x" * BODY_BYTES) as url,
        open_within(url, 30.0, has_proxies=False) as answer,
    ):
        assert read_within(answer, BODY_BYTES) == b"x" * BODY_BYTES
