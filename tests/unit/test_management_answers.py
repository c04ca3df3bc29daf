"""What a server may say that stands where RabbitMQ's management should: nobody gets a traceback, or the password."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from coordinator.accounts.management import open_management
from coordinator.operate.queue_members import open_members
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import BrokerUnavailable, ConfigurationError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: "


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives each request this answer, and closes; its port, and the requests."""
    asked: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        asked.append(client.recv(65_536))
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://u:p@a")
    monkeypatch.setenv("RABBITMQ_ADMIN_URL", f"http://watch:secret@127.0.0.1:{port}")
    members_of = open_members(load(BrokerSettings))
    assert members_of is not None
    members_of("seats")


def whole(body: bytes) -> bytes:
    return OK + str(len(body)).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"nonsense\r\n\r\n", BrokerUnavailable, "does not answer"),
        (OK + b'100\r\n\r\n{"members": [', BrokerUnavailable, "does not answer"),
        (OK + b"x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", BrokerUnavailable, "does not answer"),
        (whole(b"[" * 200_000), ConfigurationError, "no management"),
        (whole(b'{"members": 5}'), ConfigurationError, "no management"),
        (whole(b'{"members": ["rabbit@a", 1]}'), ConfigurationError, "no management"),
        (whole(b'{"leader": {}}'), ConfigurationError, "no management"),
    ],
    ids=["nonsense", "cut", "no-chunks", "deep", "number", "mixed", "leader"],
)
def test_what_no_management_says_is_an_error_in_words(
    answer: bytes, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(answer) as (port, _), pytest.raises(error, match=said) as raised:
        ask(port, monkeypatch)
    assert "secret" not in str(raised.value)


def test_the_password_goes_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(whole(b"{}")) as (other, asked):
        elsewhere = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n".encode()
        with answering(elsewhere) as (port, _), pytest.raises(ConfigurationError, match="302"):
            ask(port, monkeypatch)
    assert asked == []


@pytest.mark.parametrize("body", [b"[{}]", b"[1]", b"[[]]"])
def test_accounts_and_vhosts_of_another_form_are_an_error_in_words(body: bytes) -> None:
    with answering(whole(body)) as (port, _):
        management = open_management(f"http://watch:secret@127.0.0.1:{port}")
        for ask_it in (management.accounts, lambda: management.has_vhost("/")):
            with pytest.raises(ConfigurationError, match="no management"):
                ask_it()
