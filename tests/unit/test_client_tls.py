"""TLS of connections that we open: its files are read again when they change."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from shutil import copy

import pytest
import uvloop

from coordinator.runtime.client_tls import RefreshedContext
from tests.support.authority import Authority
from tests.support.tls_stand_in import TlsStandIn


@pytest.fixture
def authorities(tmp_path: Path) -> tuple[Authority, Authority]:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    return Authority(tmp_path / "ours"), Authority(tmp_path / "other")


@pytest.fixture
def server(authorities: tuple[Authority, Authority]) -> Iterator[TlsStandIn]:
    """Its certificate is of the other authority."""
    with closing(TlsStandIn(*authorities[1].issue("server", "IP:127.0.0.1"))) as made:
        yield made


def refreshed(authority: Path) -> RefreshedContext:
    return RefreshedContext("the server", (str(authority),), lambda: ssl.create_default_context(cafile=authority))


def connect(context: ssl.SSLContext, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        context.wrap_socket(plain, server_hostname="127.0.0.1").close()


def connect_on_a_loop(context: ssl.SSLContext, port: int) -> None:
    async def connected() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    for factory in (None, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(connected())


@pytest.mark.parametrize("connecting", [connect, connect_on_a_loop])
def test_a_new_connection_has_the_files_of_its_time(
    authorities: tuple[Authority, Authority], server: TlsStandIn, tmp_path: Path, connecting: object
) -> None:
    assert callable(connecting)
    ours, other = authorities
    trusted = tmp_path / "trusted.pem"
    copy(ours.certificate, trusted)
    context = refreshed(trusted)
    with pytest.raises(ssl.SSLCertVerificationError):
        connecting(context, server.port)
    copy(other.certificate, trusted)
    connecting(context, server.port)
    # Half written: what was read before counts, until it is whole.
    trusted.write_bytes(ours.certificate.read_bytes()[:100])
    connecting(context, server.port)
    copy(ours.certificate, trusted)
    with pytest.raises(ssl.SSLCertVerificationError):
        connecting(context, server.port)
    trusted.unlink()
    with pytest.raises(ssl.SSLCertVerificationError):
        connecting(context, server.port)


def test_the_log_says_once_why_files_are_of_no_use(
    authorities: tuple[Authority, Authority],
    server: TlsStandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trusted = tmp_path / "trusted.pem"
    copy(authorities[1].certificate, trusted)
    context = refreshed(trusted)
    trusted.write_text("half of it")
    for _ in range(3):
        connect(context, server.port)
    copy(authorities[1].certificate, trusted)
    connect(context, server.port)
    said = capsys.readouterr().out
    assert said.count("tls_files_refused") == 1
    assert said.count("tls_files_loaded") == 1
    assert str(tmp_path) not in said
