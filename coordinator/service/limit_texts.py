"""What is said of the limits of values: without patterns that fill a screen, and with what to write instead."""

import re
from typing import Annotated, Any, Final, get_args, get_origin

from msgspec import Meta

from coordinator.service.text import VISIBLE

_PATTERN_SHOWN_MAX: Final = 80
_QUOTED_PATTERN: Final = re.compile(r"""(regex |pattern=)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_LIMITS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")
_VISIBLE: Final = "VISIBLE"


def with_short_patterns(text: str) -> str:
    """A text of msgspec's in one line, in which a pattern is called by its name, or cut where it is long."""
    return _QUOTED_PATTERN.sub(lambda found: found[1] + _shown(found[2]), " ".join(text.split()))


def limits_said_twice(hint: Any) -> str | None:
    """Of a type whose limits are said in two places, which msgspec refuses: what to write instead. None: of no such."""
    if get_origin(hint) is Annotated:
        notes = [note for note in hint.__metadata__ if isinstance(note, Meta)]
        said: dict[str, Any] = {}
        twice = []
        for note in notes:
            limits = {name: value for name in _LIMITS if (value := getattr(note, name)) is not None}
            twice += [name for name in limits if name in said]
            said |= limits
        if twice:
            limits_text = ", ".join(f"{name}={_limit(name, said[name])}" for name in _LIMITS if name in said)
            kind = get_args(hint)[0]
            written = f"Annotated[{getattr(kind, '__name__', kind)}, Meta({limits_text})]"
            return f"two Metas say {', '.join(twice)}, since the type has limits of its own: write {written}"
    return next((found for part in get_args(hint) if (found := limits_said_twice(part)) is not None), None)


def _limit(name: str, value: Any) -> str:
    return _shown(repr(value)) if name == "pattern" else repr(value)


def _shown(pattern: str) -> str:
    if pattern == repr(VISIBLE):
        return _VISIBLE
    return pattern if len(pattern) <= _PATTERN_SHOWN_MAX else f"{pattern[:_PATTERN_SHOWN_MAX]}…"
