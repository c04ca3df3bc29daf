"""The key of a row as text, in one form for each key: as it stands in the path of a URL."""

from hashlib import blake2b
from typing import Final
from urllib.parse import quote

from coordinator.service.rows import Key
from coordinator.stores.audit_tables import KEY_CHARACTERS_MAX

_DIGEST_BYTES: Final = 32
_CUT: Final = "*"
"""Stands in no key: in a path it is %2A."""
_HEAD: Final = KEY_CHARACTERS_MAX - len(_CUT) - 2 * _DIGEST_BYTES


def key_text(key: Key) -> str:
    """The one text of a key, of ASCII: `17`, `ada%40example.org`, and of several columns `7/2`.

    A longer one than 200 characters is cut, and ends with a digest of the whole: keys that differ have texts that do.
    """
    if type(key) is int:
        return str(key)
    text = "/".join(quote(str(part), safe="") for part in (key if isinstance(key, tuple) else (key,)))
    if len(text) <= KEY_CHARACTERS_MAX:
        return text
    return f"{text[:_HEAD]}{_CUT}{blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()}"
