"""A certificate authority of a test's own."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS: Final = timedelta(days=2)
_PURPOSES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_HOUR: Final = timedelta(hours=1)


class Authority:
    """Its certificate is `certificate`; what it issues is beside it. They have all that a strict client looks for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of a test, {directory.name}")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        begins = datetime.now(UTC) - _DAYS
        made = self._builder(self._name, self._key, begins, begins + 2 * _DAYS)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(_usage(is_authority=True), critical=True)
        self.certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(
        self, name: str, alternatives: str, *, is_expired: bool = False, is_not_yet: bool = False
    ) -> tuple[Path, Path]:
        """A certificate and its key, for a server (`IP:127.0.0.1,DNS:localhost`) or a client."""
        certificate, key = (self._directory / f"{name}.{end}" for end in ("pem", "key"))
        now, own = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
        begins = now - _DAYS if is_expired else now + _HOUR if is_not_yet else now - _HOUR
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(subject, own, begins, now - _HOUR if is_expired else now + _DAYS)
        named = x509.SubjectAlternativeName([_alternative(each) for each in alternatives.split(",")])
        made = made.add_extension(named, critical=False).add_extension(_usage(is_authority=False), critical=True)
        made = made.add_extension(x509.ExtendedKeyUsage(_PURPOSES), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(issuer, critical=False)
        certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o644)  # for a server with an account of its own
        return certificate, key

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
        return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    return x509.IPAddress(ipaddress.ip_address(value)) if kind == "IP" else x509.DNSName(value)
