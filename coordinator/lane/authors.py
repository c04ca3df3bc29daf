"""Makes the results and errors of a service author's functions fit to be recorded, whatever they are. Never raises."""

import inspect
import traceback
from contextlib import suppress

from coordinator.service.rows import Ref, Row


def reference(given: object) -> Ref[Row]:
    """The result of a handler's `target`. Raises TypeError if it is not a reference."""
    if not isinstance(given, Ref):
        abandon(given)
        raise TypeError(f"target returns a reference, and no {type(given).__name__}")
    return given


def attribute(thing: object, name: str) -> object:
    """The attribute of an object; None if it has none, or raises."""
    try:
        return getattr(thing, name, None)
    except BaseException:  # noqa: BLE001  # a method of the service's author
        return None


def traced(error: BaseException) -> str:
    """The traceback of an error."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as unprintable:  # noqa: BLE001  # the same
        return f"(no traceback: {type(unprintable).__name__})"


def abandon(result: object) -> None:
    """Close a handler's result that is a generator, or a coroutine that nobody will await."""
    if inspect.isgenerator(result) or inspect.iscoroutine(result):
        with suppress(BaseException):
            result.close()
