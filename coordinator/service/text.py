"""Text from anywhere, made fit for JSON, for a message and for every database."""


def storable(text: str, characters_max: int) -> str:
    """The beginning of a text, without NULs, which PostgreSQL does not take, and without halves of surrogate pairs."""
    return text[:characters_max].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def storable_end(text: str, characters_max: int) -> str:
    """The end of a text, made fit in the same way: it is the most useful part of a traceback."""
    return storable(text[-characters_max:], characters_max)


def is_encodable(text: str) -> bool:
    """Whether it has no half of a surrogate pair: UTF-8 has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
