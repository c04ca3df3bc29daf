"""Settings that are lists: words with spaces between.

Whoever writes `a,b`, or JSON, means two. Taken as one word that nobody has, such a list would name none of them, and
nothing would say so.
"""

import re
from typing import Final

_OTHER_FORM: Final = re.compile(r"[,;]|\A[\[{(\"'`]")


def words_of(text: str) -> list[str]:
    """The words of a list. Raises ValueError, which names what is not in the form of a list."""
    words = text.split()
    for word in words:
        if _OTHER_FORM.search(word):
            raise ValueError(
                f"{word!r:.100} is written as a list in another form: put spaces between, as in `one two`, and neither "
                "commas, semicolons, quotes nor brackets"
            )
    return words
