"""Which authenticator a gateway has, by its settings and the address on which it listens."""

import ipaddress

from coordinator.access.authenticator import Authenticator
from coordinator.access.settings import AccessSettings
from coordinator.service.errors import ConfigurationError


def open_authenticator(settings: AccessSettings, host: str) -> Authenticator | None:
    """None: everybody may ask, since the settings say so, or since only this machine can.

    Raises ConfigurationError as `check_access` does.
    """
    check_access(settings, host)
    if "tokens" in settings.methods.split():
        # A gateway without tokens needs no library for them.
        from coordinator.access.tokens import Tokens  # noqa: PLC0415

        return Tokens(settings)
    return None


def check_access(settings: AccessSettings, host: str) -> None:
    """Raises ConfigurationError for an address that others reach, where nothing says who may ask."""
    if not settings.methods and not _is_loopback(host):
        raise ConfigurationError(
            f"ACCESS_METHODS is not set, and others than this machine reach {host!r}: say how callers prove who they "
            "are (ACCESS_METHODS=tokens, with ACCESS_TOKEN_ISSUER, ACCESS_TOKEN_AUDIENCE and ACCESS_TOKEN_KEYS), or "
            "that everybody who reaches this port may ask (ACCESS_METHODS=none)"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Another name may lead anywhere, and elsewhere tomorrow.
        return False
