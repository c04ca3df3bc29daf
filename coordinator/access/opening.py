"""Which authenticator a gateway has, by its settings and the address on which it listens."""

import ipaddress
from functools import partial

from coordinator.access.api_keys import KeyRing
from coordinator.access.authenticator import Authenticator
from coordinator.access.settings import AccessSettings
from coordinator.client.api_keys import ApiKeysReader, read_api_keys
from coordinator.service.errors import ConfigurationError
from coordinator.stores.kinds import Database
from coordinator.stores.lane_tables import ApiKey, IdempotencySecret


def open_authenticator(
    settings: AccessSettings,
    host: str,
    database: Database,
    keys: ApiKeysReader | None = None,
    tenant: str | None = None,
) -> Authenticator | None:
    """None: everybody may ask, since the settings say so, or since only this machine can.

    API keys are those in the lane's database: by `keys` over a connection of their own, or else through `database`.
    Where that is a `tenant`'s, tokens of nobody else count.
    Raises ConfigurationError as `check_access` does.
    """
    check_access(settings, host)
    methods = settings.methods.split()
    ring = _key_ring(settings, database, keys) if "keys" in methods else None
    if "tokens" not in methods:
        return ring
    # A gateway without tokens needs no library for them.
    from coordinator.access.several import KeysAndTokens  # noqa: PLC0415
    from coordinator.access.tokens import Tokens  # noqa: PLC0415

    tokens = Tokens(settings, tenant)
    return tokens if ring is None else KeysAndTokens(ring, tokens)


def _key_ring(settings: AccessSettings, database: Database, reader: ApiKeysReader | None) -> KeyRing:
    if reader is None:
        read = partial(read_api_keys, database)
        return KeyRing(read, settings.keys_refresh_s, age_s_max=settings.keys_age_s_max)
    return KeyRing(reader.read, settings.keys_refresh_s, reader.close, age_s_max=settings.keys_age_s_max)


def tables_for(settings: AccessSettings) -> tuple[str, ...]:
    """The tables that it reads."""
    methods = settings.methods.split()
    secrets = () if methods in ([], ["none"]) else (IdempotencySecret.table,)
    return (*secrets, ApiKey.table) if "keys" in methods else secrets


def check_access(settings: AccessSettings, host: str) -> None:
    """Raises ConfigurationError for an address that others reach, where nothing says who may ask."""
    if not settings.methods and not is_loopback(host):
        raise ConfigurationError(
            f"ACCESS_METHODS is not set, and others than this machine reach {host!r}: say how callers prove who they "
            "are (ACCESS_METHODS=keys, with `coordinator keys create`, or ACCESS_METHODS=tokens, with "
            "ACCESS_TOKEN_ISSUER, ACCESS_TOKEN_AUDIENCE and ACCESS_TOKEN_KEYS), or that everybody who reaches this "
            "port may ask (ACCESS_METHODS=none)"
        )


def asks_who_asks(settings: AccessSettings) -> bool:
    """Whether callers must prove who they are."""
    return settings.methods not in ("", "none")


def is_own_machine(settings: AccessSettings, host: str) -> bool:
    """Whether a gateway asks nobody who he is since only this machine reaches it."""
    return not settings.methods and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Another name may lead anywhere, and elsewhere tomorrow.
        return False
