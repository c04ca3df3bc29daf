"""The files of TLS at a port of ours: settings that name them, and a context that is made of them."""

import ssl
from pathlib import Path
from typing import Final, Self

from msgspec import Struct
from pydantic import BaseModel, Field, model_validator

from coordinator.runtime.plain_files import read_plain_file
from coordinator.service.errors import ConfigurationError


class ServerFiles(Struct, frozen=True):
    """Files in PEM. `prefix` begins the names of the settings that name them: `GATEWAY_TLS_`."""

    prefix: str
    certificate: str
    key: str
    client_ca: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path)


class ServerFileSettings(BaseModel):
    """Settings that name the files; without them a port speaks HTTP."""

    tls_certificate: str | None = Field(
        default=None,
        description="A file with the certificate, in PEM, and those between it and its authority's: HTTPS.",
    )
    tls_key: str | None = Field(default=None, description="The file with its key, in PEM, without a password.")
    tls_client_ca: str | None = Field(
        default=None,
        description="A file with certificates of authorities: whoever connects must show a certificate of one.",
    )

    @model_validator(mode="after")
    def _names_all_files(self) -> Self:
        prefix = self._tls_prefix()
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError(f"{prefix}CERTIFICATE and {prefix}KEY must both be set, or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError(f"{prefix}CLIENT_CA needs {prefix}CERTIFICATE and {prefix}KEY")
        return self

    @classmethod
    def _tls_prefix(cls) -> str:
        return f"{dict(cls.model_config).get('env_prefix', '')}TLS_"

    @property
    def server_files(self) -> ServerFiles | None:
        """The files; None: the port speaks HTTP."""
        if not self.tls_certificate or not self.tls_key:
            return None
        return ServerFiles(self._tls_prefix(), self.tls_certificate, self.tls_key, self.tls_client_ca or None)


class ServerIdentity(Struct, frozen=True):
    """What a port shows to whoever connects, and until when it is valid, in seconds of Unix time."""

    context: ssl.SSLContext
    expires_s: float


_PASSWORD: Final = ""
"""Otherwise OpenSSL would ask for it at a terminal."""


def identity_of(files: ServerFiles) -> ServerIdentity:
    """Read the files. Raises ConfigurationError, which names the setting, the file and what is wrong with it."""
    for name, path in (("CERTIFICATE", files.certificate), ("KEY", files.key), ("CLIENT_CA", files.client_ca)):
        if path is not None:
            _check_readable(f"{files.prefix}{name}", path)
    client = _client_of(files)
    context = _context_of(files)
    expires_s = _expiry(files, context, client)
    if files.client_ca is not None:
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except (OSError, ValueError) as error:
            raise _refused(files, "CLIENT_CA", files.client_ca, f"holds no certificates in PEM ({error})") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return ServerIdentity(context, expires_s)


def _check_readable(setting: str, path: str) -> None:
    try:
        read_plain_file(path, 1)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{setting}: {path!r} names no file") from None


def _client_of(files: ServerFiles) -> ssl.SSLContext:
    """A client that trusts this certificate alone."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cafile=files.certificate)
    except (OSError, ValueError) as error:
        raise _refused(files, "CERTIFICATE", files.certificate, f"holds no certificate in PEM ({error})") from None
    return client


def _context_of(files: ServerFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key, password=_PASSWORD)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            wrong = f"is not the key of the certificate in {files.certificate!r}: set the two that belong together"
        elif b"ENCRYPTED" in Path(files.key).read_bytes():
            wrong = "has a password: write the key without one, readable by this process's user alone"
        else:
            wrong = f"does not go with {files.certificate!r}: {error.reason or 'it holds no key in PEM'}"
        raise _refused(files, "KEY", files.key, wrong) from None
    except (OSError, ValueError) as error:
        raise _refused(files, "KEY", files.key, f"cannot be used: {error}") from None
    return context


def _expiry(files: ServerFiles, context: ssl.SSLContext, client: ssl.SSLContext) -> float:
    """Until when the certificate is valid. A client in here looks at it, as clients do that know OpenSSL."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_end = context.wrap_bio(to_server, to_client, server_side=True)
    client_end = client.wrap_bio(to_client, to_server)
    try:
        for end in (client_end, server_end, client_end):
            _go_on(end)
    except ssl.SSLCertVerificationError as error:
        wrong = f"{error.verify_message}: set one that clients accept"
        raise _refused(files, "CERTIFICATE", files.certificate, wrong) from None
    except ssl.SSLError as error:
        raise _refused(files, "CERTIFICATE", files.certificate, f"cannot be used: {error}") from None
    shown = client_end.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _go_on(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return


def _refused(files: ServerFiles, name: str, path: str, wrong: str) -> ConfigurationError:
    return ConfigurationError(f"{files.prefix}{name}: {path!r}: {wrong}")
