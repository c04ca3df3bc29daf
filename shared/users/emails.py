"""E-mail addresses: which are allowed, and in which form they are kept.

An address is kept in lower case and composed (Unicode's NFC), and with one small sigma (the one that ends a word is
kept as the other, since both have one capital). So two spellings of one address cannot be two users. RFC 5321 leaves
the case of the part before the @ to the mail server, and no server in use tells its users apart by case; RFC 6531 asks
for NFC. No other letters are folded: `ß` is not `ss`.
"""

import unicodedata
from typing import Annotated, Final

from msgspec import Meta

from coordinator import at_fault

EMAIL_CHARACTERS_MAX: Final = 254
"""The limit of an address as given and as kept: one letter may become several, as `İ` becomes two in lower case."""

SIGMA: Final = "\u03c3"
FINAL_SIGMA: Final = "\u03c2"

# One @ with text on both sides, no spaces or control characters. Only a mail can tell whether the mailbox exists.
Email = Annotated[
    str,
    Meta(min_length=3, max_length=EMAIL_CHARACTERS_MAX, pattern=r"\A[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\Z"),
]


def kept_email(email: str) -> str:
    """The address as it is kept; a kept address stays as it is."""
    if email.isascii():
        return email.lower()
    lowered = unicodedata.normalize("NFC", email).lower().replace(FINAL_SIGMA, SIGMA)
    return unicodedata.normalize("NFC", lowered)


def check_email(field: str, email: object) -> None:
    """Raise ValueError, naming the field, for an address that would be too long in its kept form."""
    if not isinstance(email, str) or email.isascii():
        return
    characters = len(kept_email(email))
    if characters > EMAIL_CHARACTERS_MAX:
        text = f"Expected an address of at most {EMAIL_CHARACTERS_MAX} characters in lower case, not {characters}"
        raise at_fault(field, text)
