"""Texts for what a service's author raises or returns, whatever that is. Never raises."""

from typing import Final

DESCRIPTION_CHARACTERS_MAX: Final = 1000


def described(thing: object, *, with_type: bool = True) -> str:
    """An error, or a value, as text; also one whose own `str` raises an error."""
    name = type(thing).__name__
    try:
        text = str(thing)[:DESCRIPTION_CHARACTERS_MAX] + ""
    except BaseException as error:  # noqa: BLE001  # a method of the service's author
        text = f"(its text raises {type(error).__name__})"
    return f"{name}: {text}" if with_type else text
