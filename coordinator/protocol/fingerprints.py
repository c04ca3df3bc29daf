"""Fingerprints of commands: whether a repeated id means the same command.

A fingerprint is a digest of a command's type, version, expected version and arguments. The log keeps it for as long as
the entry, and the arguments not at all. So it is made with a key of the lane's database, as `5b0c9e11:…`, behind the
key's name: without the key nobody proves by it what he guesses of the arguments. A lane of an earlier release has no
key until an operator makes one (`coordinator keys fingerprints`): a process of that release compares without.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.service.nesting import is_too_deep
from coordinator.service.repeated_names import repeated_name

FIRST_KEY: Final = 1
"""The number of the key that a lane begins with. One that began without a key never has it."""
_BYTES: Final = 16
_DIGEST: Final = -2 * _BYTES
"""Where the digest itself begins."""
_NAME_BYTES: Final = 4
_MARK: Final = ":"
_EXACT: Final = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(f"+{text}".encode()))
_ROUNDED: Final = msgspec.json.Decoder()
_IN_ONE_ORDER: Final = msgspec.json.Encoder(order="deterministic")


class Fingerprints:
    """Makes and compares those of one lane, by the keys of its database; each of them is 32 bytes in hexadecimal."""

    def __init__(self, keys: Mapping[int, str] | None = None) -> None:
        """The key with the highest number is the one in use. None: there is none, and they are no secret digests."""
        # To copy one that has begun takes half as long as to begin.
        self._begun = {"": blake2b(digest_size=_BYTES)}
        self.first_secret = bytes.fromhex((keys or {}).get(FIRST_KEY, ""))
        """That of the key that the lane began with; empty: it began without. A key that comes later must make no other
        command of what a command emits that is applied once more."""
        self._first = ""
        for number, key in sorted((keys or {}).items()):
            secret = bytes.fromhex(key)
            # Not by its number, which another key may have had in a copy of the database that is lost.
            name = blake2b(secret, digest_size=_NAME_BYTES).hexdigest() + _MARK
            self._begun[name] = blake2b(key=secret, digest_size=_BYTES)
            if number == FIRST_KEY:
                self._first = name
        self._used = list(self._begun)[-1]

    def of(self, message: CommandMessage, again: bytes | None = None) -> str:
        """That of a command.

        It is that of the arguments as they were sent, and not of what an upgrade makes of them. Spacing, the order of
        keys and the escapes of texts do not matter; all else does, such as the digits of a number. `again` is
        `arguments_again` of a message that repeats no name, for a caller who has it.
        """
        return self._made(self._used, message, again or _in_one_form(message))

    def of_first(self, message: CommandMessage, again: bytes | None = None) -> str:
        """That with the key that the lane began with, if it did, whichever is in use: for what must stay the same."""
        return self._made(self._first, message, again or _in_one_form(message))

    def is_made_now(self, fingerprint: str) -> bool:
        """Whether a fingerprint is made with the key in use. Not for one that may be empty."""
        return fingerprint[:_DIGEST] == self._used

    def has_key_of(self, fingerprint: str) -> bool:
        """Whether the key is known that this one is made with, so that `is_same` can tell."""
        return fingerprint[:_DIGEST] in self._begun

    def is_same(self, kept: str, message: CommandMessage, own: str | None = None, *, is_unread: bool = False) -> bool:
        """Whether one that was kept, with whichever key, is of this command. `own` is its own, for who has it.

        Of a command that `is_unread` it is that of the arguments as they came.

        Earlier releases took a number with a point or an exponent for the float that is nearest to it. What they kept
        is compared as they did: no text of a number has their form now, so nothing that is kept now is taken for it.
        """
        if kept == (own or self.of(message)):
            return True
        name = kept[:_DIGEST]
        if name not in self._begun:
            return False
        # Large arguments that were refused are not brought into one form.
        if kept == self._made(name, message, message.arguments):
            return True
        if is_unread:
            return False
        if kept == self._made(name, message, _in_one_form(message)):
            return True
        return not name and kept == self._made(name, message, _in_one_form(message, _ROUNDED))

    def _made(self, name: str, message: CommandMessage, content: bytes) -> str:
        version = message.command_version
        # The first version as releases without versions have it; no type has a space.
        kind = message.type if version is None or version == 1 else f"{message.type} {version}"
        digest = self._begun[name].copy()
        digest.update(f"{kind}\n{message.expected_version}\n".encode())
        digest.update(content)
        return name + digest.hexdigest()


UNKEYED: Final = Fingerprints()
"""Those of a lane without a key."""


def is_keyed(fingerprint: str) -> bool:
    """Whether it takes a key to compare it."""
    return _MARK in fingerprint


def arguments_again(message: CommandMessage) -> bytes | None:
    """The arguments as we write them, with the keys in one order and without spaces; None where they cannot be read.

    A number with a point or an exponent keeps its own text, behind a `+` that JSON has in no such place: 0.1, 0.10 and
    1e-1 are one float, and three Decimals.
    """
    return _written_again(message, _EXACT)


def _in_one_form(message: CommandMessage, decoder: "msgspec.json.Decoder[Any]" = _EXACT) -> bytes:
    """The arguments as we write them, or as they came: what repeats a name is no other text with one of its values."""
    again = _written_again(message, decoder)
    return message.arguments if again is None or repeated_name(message.arguments, again) is not None else again


def _written_again(message: CommandMessage, decoder: "msgspec.json.Decoder[Any]") -> bytes | None:
    # Text that is nested too deep is refused; the verdict must not depend on how much stack is left.
    if message.defect is not None or is_too_deep(message.arguments):
        return None
    try:
        return _IN_ONE_ORDER.encode(decoder.decode(message.arguments))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return None
