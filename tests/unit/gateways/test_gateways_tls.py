"""A gateway that speaks HTTPS: its answers, whom it refuses, and its limits."""

import asyncio
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.authority import Authority
from tests.support.forks import Forks
from tests.unit.gateways.test_gateways_process import AWAY, ended, port_of, run

pytestmark = pytest.mark.doors

HERE = "IP:127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if own is not None:
        context.load_cert_chain(*own)
    return context


@asynccontextmanager
async def served(authority: Authority, **settings: str) -> AsyncIterator[str]:
    """A gateway's process, whose parts are away, and its address."""
    certificate, key = authority.issue("server", HERE)
    named = {"GATEWAY_TLS_CERTIFICATE": str(certificate), "GATEWAY_TLS_KEY": str(key)}
    process = await run("users", "--port", "0", **AWAY, **named, **settings)
    try:
        yield f"https://127.0.0.1:{await port_of(process)}"
    finally:
        process.send_signal(signal.SIGTERM)
        code, stderr = await ended(process)
    assert code == 0, stderr
    assert "Traceback" not in stderr


async def test_a_gateway_serves_https_and_nothing_else(authority: Authority) -> None:
    async with served(authority) as address, aiohttp.ClientSession(address) as session:
        async with session.get("/healthz", ssl=trusting(authority)) as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with session.get("/readyz", ssl=trusting(authority)) as answer:
            assert (await answer.json(content_type=None))["checks"]["certificate"] == "ok"
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{address.replace('https', 'http')}/healthz")
        # It lives.
        async with session.get("/healthz", ssl=trusting(authority)) as answer:
            assert answer.status == 200


async def test_whoever_has_no_certificate_of_the_clients_authority_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "strangers").mkdir()
    stranger = Authority(tmp_path / "strangers")
    known, old = authority.issue("client", "DNS:client"), authority.issue("old", "DNS:old", is_expired=True)
    asked = {"GATEWAY_TLS_CLIENT_CA": str(authority.certificate)}
    async with served(authority, **asked) as address, aiohttp.ClientSession(address) as session:
        for own in (None, stranger.issue("client", "DNS:client"), old):
            with pytest.raises(aiohttp.ClientError):
                await session.get("/healthz", ssl=trusting(authority, own))
        async with session.get("/healthz", ssl=trusting(authority, known)) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "GATEWAY_TLS_CERTIFICATE: '{}' cannot be read: No such file or directory"),
        ("expired", "GATEWAY_TLS_CERTIFICATE: '{}': certificate has expired"),
        ("of another", "GATEWAY_TLS_KEY"),
    ],
)
def test_a_gateway_without_a_certificate_of_use_does_not_start(
    authority: Authority, forks: Forks, tmp_path: Path, change: str, said: str
) -> None:
    certificate, key = authority.issue("server", HERE, is_expired=change == "expired")
    if change == "missing":
        certificate.unlink()
    if change == "of another":
        _, key = authority.issue("other", HERE)
    named = {"GATEWAY_TLS_CERTIFICATE": str(certificate), "GATEWAY_TLS_KEY": str(key)}
    process = forks.run(["gateways", "users", "--port", "0"], tmp_path / "log", AWAY | named)
    assert process.wait(30)
    assert process.exit_status == 2
    lines = [line for line in process.log_tail(50).splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert said.format(certificate) in lines[0]


async def test_new_files_are_shown_without_a_restart_and_broken_ones_are_not(authority: Authority) -> None:
    async with served(authority) as address, aiohttp.ClientSession(address) as session:
        directory = authority.certificate.parent
        (directory / "next").mkdir()
        following = Authority(directory / "next")

        async def until_checked(state: str, trusted: ssl.SSLContext) -> dict[str, Any]:
            async with asyncio.timeout(30):
                while True:
                    async with session.get("/readyz", ssl=trusted) as answer:
                        body: dict[str, Any] = await answer.json(content_type=None)
                    if body["checks"]["certificate"] == state:
                        return body
                    await asyncio.sleep(0.05)

        before = trusting(authority)
        (directory / "server.key").write_text("half a ke")
        body = await until_checked("down", before)
        assert "see the log" in body["reasons"]["certificate"]
        assert str(directory) not in str(body)
        # The connection is one that the first certificate has opened.
        for old, new in zip(("server.pem", "server.key"), following.issue("server", HERE), strict=True):
            shutil.copy(new, directory / old)
        await until_checked("ok", before)
        async with aiohttp.ClientSession(address) as other:
            async with other.get("/healthz", ssl=trusting(following)) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await other.get("/healthz", ssl=before)


async def test_clients_that_do_not_end_the_handshake_or_a_head_are_cut_off(authority: Authority) -> None:
    async with served(authority, GATEWAY_HEAD_TIMEOUT_S="0.5") as address:
        port = int(address.rpartition(":")[2])
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority))
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            await reader.read()
            writer.close()
