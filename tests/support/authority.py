"""A certificate authority of a test's own."""

import subprocess
from pathlib import Path

_DAYS = "2"


class Authority:
    """Its certificate is `certificate`; what it issues is beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", _DAYS, "-subj", "/CN=authority of a test")
        self._openssl(*request, "-keyout", self._key, "-out", self.certificate)

    def issue(self, name: str, alternatives: str, *, is_expired: bool = False) -> tuple[Path, Path]:
        """A certificate and its key, for a server (`IP:127.0.0.1`, `DNS:localhost`) or a client."""
        certificate, key, request = (self._directory / f"{name}.{end}" for end in ("pem", "key", "request"))
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = self._directory / f"{name}.extensions"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        days = "-1" if is_expired else _DAYS
        signed = ("x509", "-req", "-in", request, "-days", days, "-CA", self.certificate, "-CAkey", self._key)
        self._openssl(*signed, "-CAcreateserial", "-extfile", extensions, "-out", certificate)
        key.chmod(0o644)  # for a server with an account of its own
        return certificate, key

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
