"""Command ids, and the rights to use them.

Version 7 is new each time, version 5 stands for a client's idempotency key, which may have a scope. The system derives
version 8 for its own commands. Anybody can compute most of those from other ids, so the doors that are open to
strangers refuse them (`is_system_id`): a stranger that used such an id first would take the place of the system's own
command.
"""

import hashlib
import hmac
import time
from typing import Final

import msgspec

from coordinator.service.draws import Draws
from coordinator.service.errors import InvalidCommand
from coordinator.service.text import is_encodable

_DIGITS_AS_ZEROS: Final = bytes(ord("0") if chr(byte) in "0123456789abcdefABCDEF" else byte for byte in range(256))
_UUID_OF_ZEROS: Final = b"00000000-0000-0000-0000-000000000000"
_NOBODYS: Final = frozenset({_UUID_OF_ZEROS.decode(), "ffffffff-ffff-ffff-ffff-ffffffffffff"})
NOBODYS_WORDS: Final = "no id of any command: it is what stands there if nobody sets an id"
_IDEMPOTENCY_NAMESPACE: Final = "6f3a1d1e-6d0b-5f0e-9a43-0c5f0e7f2d11"

_VARIANTS: Final = "89ab" * 4
"""The first digit of the variant, by the digit that stood there."""

_draws = Draws(10)


def new_command_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): ids made one after the other are near each other in an index."""
    return _versioned((time.time_ns() // 1_000_000).to_bytes(6) + _draws.next(), "7")


def command_id_for(lane: str, idempotency_key: str) -> str:
    """The id that an idempotency key stands for in one lane: the same key is the same command.

    Raises InvalidCommand for a key with half a surrogate pair, which no form of Unicode text can express.
    """
    _check_key(idempotency_key)
    return _named(_IDEMPOTENCY_NAMESPACE, f"{lane}\n{idempotency_key}")


def scoped_command_id_for(
    secret: str, lane: str, idempotency_key: str, *, subject: str, tenant: str | None = None
) -> str:
    """The id that an idempotency key of this principal stands for in one lane.

    Gateways that know who asks make it so, with the secret of the lane (`coordinator keys secret LANE`): two clients'
    keys never meet, and nobody without the secret can tell an id from its key.
    Raises InvalidCommand as `command_id_for` does, and ValueError for an empty secret.
    """
    _check_key(idempotency_key)
    if not secret:
        raise ValueError("the secret is empty")
    # JSON: no part of it can be taken for the next one.
    scope = msgspec.json.encode((tenant, subject, lane, idempotency_key))
    return _versioned(hmac.digest(secret.encode(), scope, "sha256")[:16], "5")


def _check_key(idempotency_key: str) -> None:
    if not is_encodable(idempotency_key):
        text = f"an idempotency key is Unicode text, without halves of surrogate pairs, not {idempotency_key[:100]!a}"
        raise InvalidCommand(text, code="invalid_command", field="idempotency_key")


def system_command_id(*parts: str) -> str:
    """The id of one of the system's own commands, made from these parts. The same parts always give the same id."""
    digest = hashlib.sha1("\n".join(parts).encode(), usedforsecurity=False).digest()
    return _versioned(digest[:16], "8")


def derived_command_id(parent: str, position: int, content: bytes, secret: bytes = b"") -> str:
    """The id of the command that `parent` emitted at `position` (0, 1, …): the same content always has the same id.

    Ids are shown to many who may not see what their commands hold: without the secret nobody proves by one what he
    guesses of the content.

    The parent is named by its type and id, since commands of two lanes may have the same id. The content is a part of
    the id, since a lane may forget the parent (`log prune`) and apply it again: if it then emits other content, a lane
    that remembers the first command must take it for another one.
    """
    text = f"{parent}\n{position}\n".encode() + content
    if secret:
        return _versioned(hashlib.blake2b(text, key=secret, digest_size=16, person=b"emitted").digest(), "8")
    return _versioned(hashlib.sha1(text, usedforsecurity=False).digest()[:16], "8")


def continuation_command_id(command: str) -> str:
    """The id of the command that an outcome becomes, the same however often it is sent; made in the same way."""
    return system_command_id(command, "continuation")


def limit_command_id(command_id: str) -> str:
    """The id of what comes when the time for an emitted command's answer is over (`UnitOfWork.emit` with a `limit`)."""
    return system_command_id(command_id, "limit")


def replay_command_id(command_id: str) -> str:
    """The id of a failed command's replay, the same however often. A replay that fails is replayed under another id."""
    return system_command_id(command_id, "replay")


def is_uuid(text: str) -> bool:
    """Whether text is a UUID, as command ids are, with digits of either case."""
    # A regular expression takes twice as long.
    return (
        len(text) == len(_UUID_OF_ZEROS)
        and text.isascii()
        and text.encode().translate(_DIGITS_AS_ZEROS) == _UUID_OF_ZEROS
    )


def is_nobodys_id(command_id: str) -> bool:
    """Whether it is the UUID of zeros or that of ones (RFC 9562, 5.9 and 5.10), which stand for no id at all.

    A client that forgets to set an id sends one of them, so two such commands are not the same one.
    """
    return command_id in _NOBODYS


def is_key_id(command_id: str) -> bool:
    """Whether a UUID, as text, has the form of those that stand for idempotency keys: version 5 (RFC 9562, 5.5)."""
    return command_id[14:15] == "5"


def is_random_id(command_id: str) -> bool:
    """Whether a UUID, as text, has the form of those that nobody guesses: version 4 or 7 (RFC 9562, 5.4 and 5.7)."""
    return command_id[14:15] in ("4", "7")


def is_system_id(command_id: str) -> bool:
    """Whether a UUID, as text, has the form that only the system's own commands have: version 8 (RFC 9562, 5.8)."""
    return command_id[14:15] == "8"


def _named(namespace: str, name: str) -> str:
    """A UUID of version 5 (RFC 9562, section 5.5), in a third of the time that `uuid.uuid5` takes."""
    digest = hashlib.sha1(bytes.fromhex(namespace.replace("-", "")) + name.encode(), usedforsecurity=False).digest()
    return _versioned(digest[:16], "5")


def _versioned(octets: bytes, version: str) -> str:
    """A UUID of these 16 bytes, but for the digits of its version and its variant (RFC 9562, section 4)."""
    digits = octets.hex()
    variant = _VARIANTS[octets[8] >> 4]
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
