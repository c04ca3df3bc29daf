"""RabbitMQ's definitions of accounts: what `load_definitions` and `rabbitmqctl import_definitions` read."""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coordinator.transports.rabbitmq.rights import BrokerAccount

HASHING: Final = "rabbit_password_hashing_sha256"
_SALT_BYTES: Final = 4


def password_hash(password: str) -> str:
    """The form in which RabbitMQ keeps a password: salted SHA-256. Of the empty one: nobody can log in with it."""
    return _hashed(password, secrets.token_bytes(_SALT_BYTES)) if password else ""


def is_hash_of(kept: str, password: str) -> bool:
    """Whether a server keeps this password; also False for one that it keeps in another form."""
    try:
        salt = b64decode(kept, validate=True)[:_SALT_BYTES]
    except ValueError:
        return False
    return bool(password) and hmac.compare_digest(_hashed(password, salt), kept)


def _hashed(password: str, salt: bytes) -> str:
    return b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(
    accounts: Sequence[BrokerAccount],
    vhost: str,
    hashes: Mapping[str, str],
    administrators: Mapping[str, str] = {},
    locked: Sequence[str] = (),
) -> dict[str, Any]:
    """The vhost, the accounts, and their rights there; `hashes` are of their passwords, by name.

    `administrators`, by name with the hashes of their passwords, may do everything in this vhost. Nobody can log in as
    one of `locked`, which may be there with rights already.
    """
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "vhosts": [{"name": vhost}],
        "users": [
            *(_account(account.name, hashes[account.name], [], account.limits) for account in accounts),
            *(_account(name, made, ["administrator"], {}) for name, made in administrators.items()),
            *(_account(name, password_hash(""), [], {}) for name in locked),
        ],
        "permissions": [
            *({"user": each.name, "vhost": vhost, **rights_of(each)} for each in accounts),
            *({"user": name, "vhost": vhost, **everything} for name in administrators),
        ],
    }


def rights_of(account: BrokerAccount) -> dict[str, str]:
    """As RabbitMQ's interfaces have them."""
    rights = account.rights
    return {"configure": rights.configure, "write": rights.write, "read": rights.read}


def _account(name: str, made: str, tags: list[str], limits: dict[str, int]) -> dict[str, Any]:
    return {
        "name": name,
        "password_hash": made,
        "hashing_algorithm": HASHING,
        "tags": tags,
        **({"limits": limits} if limits else {}),
    }
