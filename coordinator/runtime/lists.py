"""Settings that are lists: words with spaces between.

Whoever writes `a,b`, or JSON, means two. Taken as one word that nobody has, such a list would name none of them, and
nothing would say so.
"""

import re
from typing import Final

SHOWN_CHARACTERS: Final = 100
_OTHER_FORM: Final = re.compile(r"[,;]|\A[\[{(\"'`]")


def words_of(text: str) -> list[str]:
    """The words of a list. Raises ValueError, which names what is not in the form of a list."""
    words = text.split()
    for word in words:
        if _OTHER_FORM.search(word):
            raise ValueError(
                f"{shown_word(word)} is written as a list in another form: put spaces between, as in `one two`, and "
                "neither commas, semicolons, quotes nor brackets"
            )
    return words


def shown_word(word: str) -> str:
    """The beginning of a word that is refused, in quotes. Of an address, which may hold a password, no more than its
    scheme: what comes behind it may be cut in two, at a comma within the password.
    """
    before, separator, _ = word.partition("://")
    text = f"{before}{separator}…" if separator else word
    return repr(text[:SHOWN_CHARACTERS])
