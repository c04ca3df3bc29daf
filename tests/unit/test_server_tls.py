"""Certificates of ports of ours: what is refused, in which words, and what becomes of files that change."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs

from coordinator.dev.servers.ports import free_port
from coordinator.runtime import server_tls
from coordinator.runtime.health import HealthEndpoint, Readiness
from coordinator.runtime.server_files import ServerFiles, identity_of
from coordinator.runtime.server_tls import ServerTls
from coordinator.runtime.settings import GatewaySettings, TelemetrySettings, load
from coordinator.service.errors import ConfigurationError
from tests.support.authority import Authority

HERE = "IP:127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files_of(authority: Authority, name: str = "server", **options: Any) -> ServerFiles:
    certificate, key = authority.issue(name, HERE, **options)
    return ServerFiles("GATEWAY_TLS_", str(certificate), str(key))


def with_password(key: Path) -> None:
    coded = key.with_suffix(".coded")
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(coded)]
    subprocess.run(command, check=True, capture_output=True)
    coded.replace(key)


def test_what_cannot_be_used_is_refused_with_its_setting_its_file_and_what_is_wrong(
    authority: Authority, tmp_path: Path
) -> None:
    good = files_of(authority)
    other = files_of(authority, "other")
    coded = files_of(authority, "coded")
    with_password(Path(coded.key))
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    missing, folder, pipe = str(tmp_path / "missing"), str(tmp_path), str(tmp_path / "pipe")
    os.mkfifo(pipe)

    def changed(**changes: str) -> ServerFiles:
        named = {"certificate": good.certificate, "key": good.key, "client_ca": None}
        return ServerFiles("GATEWAY_TLS_", **(named | changes))  # type: ignore[arg-type]

    for files, *said in (
        (changed(certificate=missing), "GATEWAY_TLS_CERTIFICATE", missing, "cannot be read: No such file"),
        (changed(key=missing), "GATEWAY_TLS_KEY", missing, "cannot be read: No such file"),
        (changed(client_ca=missing), "GATEWAY_TLS_CLIENT_CA", missing, "cannot be read: No such file"),
        (changed(certificate=folder), "GATEWAY_TLS_CERTIFICATE", "Is a directory"),
        (changed(certificate=pipe), "GATEWAY_TLS_CERTIFICATE", pipe, "is no plain file"),
        (changed(key=pipe), "GATEWAY_TLS_KEY", pipe, "is no plain file"),
        (changed(certificate="a\0b"), "GATEWAY_TLS_CERTIFICATE", "names no file"),
        (changed(certificate=str(nonsense)), "GATEWAY_TLS_CERTIFICATE", str(nonsense), "holds no certificate in PEM"),
        (changed(certificate=good.key), "GATEWAY_TLS_CERTIFICATE", "holds no certificate in PEM"),
        (changed(key=str(nonsense)), "GATEWAY_TLS_KEY", str(nonsense), "no key in PEM"),
        (changed(key=other.key), "GATEWAY_TLS_KEY", other.key, "is not the key of the certificate", good.certificate),
        (coded, "GATEWAY_TLS_KEY", coded.key, "has a password"),
        (changed(client_ca=str(nonsense)), "GATEWAY_TLS_CLIENT_CA", "holds no certificates in PEM"),
        (files_of(authority, "old", is_expired=True), "GATEWAY_TLS_CERTIFICATE", "old.pem", "has expired"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            identity_of(files)
        assert [each for each in said if each not in str(refused.value)] == [], refused.value
        assert str(refused.value).isprintable()
    assert identity_of(good).context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"CERTIFICATE": "/a"}, "CERTIFICATE and {}KEY must both be set"),
        ({"KEY": "/a"}, "CERTIFICATE and {}KEY must both be set"),
        ({"CLIENT_CA": "/a"}, "CLIENT_CA needs {}CERTIFICATE"),
    ],
)
@pytest.mark.parametrize(
    ("group", "prefix"), [(GatewaySettings, "GATEWAY_TLS_"), (TelemetrySettings, "TELEMETRY_TLS_")]
)
def test_settings_that_lack_one_another_are_refused(
    monkeypatch: pytest.MonkeyPatch, group: Any, prefix: str, given: dict[str, str], named: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(prefix + name, value)
    with pytest.raises(ConfigurationError, match=prefix + named.format(prefix)):
        load(group)


def test_settings_that_are_empty_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERTIFICATE", "KEY", "CLIENT_CA"):
        monkeypatch.setenv(f"GATEWAY_TLS_{name}", "")
    assert load(GatewaySettings).server_files is None


def replace(files: ServerFiles, by: ServerFiles) -> None:
    """As a tool that renews certificates does."""
    for old, new in ((files.certificate, by.certificate), (files.key, by.key)):
        copy = f"{old}.new"
        shutil.copy(new, copy)
        Path(copy).replace(old)


def test_files_that_change_are_read_once_they_are_whole_and_broken_ones_are_not_used(authority: Authority) -> None:
    files, second, third = files_of(authority), files_of(authority, "second"), files_of(authority, "third")
    tls = ServerTls("gateway", files)
    first = tls._identity

    with capture_logs() as lines:
        tls.look()
        shutil.copy(second.key, files.key)
        tls.look()
        assert (tls.problem, tls._identity) == (None, first)
        for _ in range(3):
            tls.look()
        assert "GATEWAY_TLS_KEY" in str(tls.problem)
        assert tls._identity is first
        assert [line["event"] for line in lines] == ["certificate_refused"]
        assert lines[0]["reason"] == tls.problem

        replace(files, third)
        tls.look()
        tls.look()
        assert tls.problem is None
        assert tls._identity is not first
        assert [line["event"] for line in lines] == ["certificate_refused", "certificate_loaded"]

        Path(files.certificate).unlink()
        tls.look()
        tls.look()
        assert "cannot be read" in str(tls.problem)


def test_a_certificate_that_expires_while_it_is_shown_is_said_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ServerTls("gateway", files_of(authority))
    now_s = tls._identity.expires_s
    monkeypatch.setattr("time.time", lambda: now_s)
    with capture_logs() as lines:
        tls.look()
        tls.look()
    assert str(tls.problem).endswith("has expired")
    assert [line["event"] for line in lines] == ["certificate_refused"]


async def test_the_port_of_metrics_speaks_tls_and_shows_new_certificates(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_tls, "LOOK_EVERY_S", 0.01)
    files, other = files_of(authority), files_of(authority, "other")
    settings = TelemetrySettings(tls_certificate=files.certificate, tls_key=files.key)
    port = free_port()
    endpoint = HealthEndpoint(("lane", "users"), lambda: Readiness(True), settings, port)
    await endpoint.start()
    try:
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        async with aiohttp.ClientSession(f"https://127.0.0.1:{port}") as session:
            async with session.get("/metrics", ssl=trusting) as answer:
                assert "coordinator_certificate_expires_timestamp_seconds" in await answer.text()
            async with session.get("/readyz", ssl=trusting) as answer:
                assert await answer.json() == {"status": "ready", "lane": "users", "reason": None}
        before = await asyncio.to_thread(shown_at, port)
        replace(files, other)
        async with asyncio.timeout(30):
            while await asyncio.to_thread(shown_at, port) == before:
                pass
        shutil.copy(authority.certificate, files.certificate)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{port}") as session, asyncio.timeout(30):
            said: dict[str, Any] = {}
            while "certificate" not in said:
                async with session.get("/readyz", ssl=trusting) as answer:
                    assert answer.status == 200
                    said = await answer.json()
        assert "TELEMETRY_TLS_KEY" in said["certificate"]
    finally:
        await endpoint.stop()


def shown_at(port: int) -> bytes:
    """The certificate, as a client gets it that names no host."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True) or b""


def test_a_lane_whose_metrics_have_no_certificate_does_not_begin() -> None:
    settings = TelemetrySettings(tls_certificate="/no/such", tls_key="/no/such")
    with pytest.raises(ConfigurationError, match="TELEMETRY_TLS_CERTIFICATE: '/no/such' cannot be read"):
        HealthEndpoint(("lane", "users"), lambda: Readiness(True), settings, 9)
    HealthEndpoint(("lane", "users"), lambda: Readiness(True), settings, None)


def spoken(client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """The session of a client's connection. Raises SSLError if it is not let in."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    client_end = client.wrap_bio(to_client, to_server, session=session)
    for step in (client_end.do_handshake, server_end.do_handshake) * 3:
        with suppress(ssl.SSLWantReadError):
            step()
    client_end.write(b"?")
    assert server_end.read() == b"?"
    server_end.write(b"!")
    assert client_end.read() == b"!"
    return client_end.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_before_is_worth_nothing_once_its_authority_is_none_any_more(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    (tmp_path / "next").mkdir()
    following, trusted = Authority(tmp_path / "next"), tmp_path / "clients.pem"
    shutil.copy(authority.certificate, trusted)
    server = ServerTls("gateway", msgspec.structs.replace(files_of(authority), client_ca=str(trusted)))
    client = ssl.create_default_context(cafile=str(authority.certificate))
    client.check_hostname = False
    client.minimum_version = client.maximum_version = version
    client.load_cert_chain(*authority.issue("client", "DNS:client"))
    session = spoken(client, server.context, None)
    assert session is not None
    assert spoken(client, server.context, session) is not None
    shutil.copy(following.certificate, trusted)
    server.look()
    server.look()
    for before in (None, session):
        with pytest.raises(ssl.SSLError):
            spoken(client, server.context, before)
