"""Request headers as values: idempotency keys, entity tags, preferences. Pure functions of text.

A header that changes the effect of a write is taken exactly, or refused (RequestRefused, naming it). A malformed header
that is only a wish (`Prefer`, `If-None-Match`) is ignored, as its RFC asks.

The time to read a header grows linearly with its length: every repetition of a pattern here is possessive (`*+`), so
that no character is read twice. A test measures it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from coordinator.http.problems import RequestRefused
from coordinator.service.commands import INTEGER_MAX

KEY_CHARACTERS_MAX: Final = 255
PREFERENCES_MAX: Final = 32
# Every character escaped, in quotes.
_QUOTED_KEY_CHARACTERS_MAX: Final = 2 * KEY_CHARACTERS_MAX + 2

_QUOTED_KEY = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])*+)"')
# Visible ASCII without the characters that end or join the values of a structured field.
_BARE_KEY = re.compile(r"[!#-+\--:<-\[\]-~]++")

_TAG = r'(?:W/)?"[^\x00-\x20"\x7f]*+"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*+,[ \t]*+{_TAG})*+")
_EACH_TAG = re.compile(_TAG)
_VERSION = re.compile(r"[1-9][0-9]{0,15}")

_PREFERENCE = re.compile(
    r"[ \t]*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)[ \t]*+(?:=[ \t]*+(\"[^\"\\]*+\"|[^\s\",;]*+))?+[ \t]*+(?:;.*+)?"
)
_PLACE = re.compile(r"[ \t]*+([a-z*][a-z0-9_.*-]*+)=([0-9]{1,15})[ \t]*+")
_SECONDS = re.compile(r"[0-9]{1,9}")


class Preferences(Struct, frozen=True):
    """What `Prefer` asks for (RFC 7240)."""

    respond_async: bool = False
    wait_s: int | None = None


NO_PREFERENCES: Final = Preferences()


def idempotency_key(values: Sequence[str]) -> str | None:
    """The key of `Idempotency-Key`: 1 to 255 visible ASCII characters.

    It is a quoted string, as draft-ietf-httpapi-idempotency-key-header has it, or bare: `"abc"` and `abc` are
    the same key. Raises RequestRefused (400).
    """
    if not values:
        return None
    value = values[0].strip(" \t")
    if len(value) > _QUOTED_KEY_CHARACTERS_MAX:
        value = ""
    quoted = _QUOTED_KEY.fullmatch(value)
    if quoted is not None:
        key = re.sub(r'\\(["\\])', r"\1", quoted.group(1))
    else:
        key = value if _BARE_KEY.fullmatch(value) else ""
    if len(values) > 1 or not 0 < len(key) <= KEY_CHARACTERS_MAX:
        raise _malformed(
            "Idempotency-Key",
            f"Idempotency-Key must be given once, as 1 to {KEY_CHARACTERS_MAX} visible ASCII characters,"
            ' best in quotes: "8e03978e-40d5-43dd-bc93-6894a57f9324"',
        )
    return key


def expected_version(values: Sequence[str]) -> int | None:
    """The version that `If-Match` asks for (RFC 9110, section 13.1.1); None for no header and for `*`.

    Raises RequestRefused. 412 if no version can match: the comparison is strong, so a weak tag never matches, and
    neither does a tag that is not a version. 400 if it is not an entity tag, and for several tags, since a command
    has one expected version.
    """
    if not values:
        return None
    value = ", ".join(values).strip(" \t")
    if value == "*":
        return None
    if not _TAGS.fullmatch(value):
        raise _malformed("If-Match", 'If-Match must be * or an entity tag in double quotes, such as "3"')
    strong = {tag[1:-1] for tag in _EACH_TAG.findall(value) if not tag.startswith("W/")}
    if len(strong) > 1:
        raise _malformed("If-Match", "If-Match may name one entity tag, not several")
    version = strong.pop() if strong else ""
    if not _VERSION.fullmatch(version) or int(version) > INTEGER_MAX:
        raise RequestRefused(
            412,
            "version_conflict",
            'If-Match names no version that can be: a strong entity tag such as "3" is needed',
            field="If-Match",
        )
    return int(version)


def command_version(values: Sequence[str]) -> int:
    """The version of `Command-Version`. Raises RequestRefused (400)."""
    value = ", ".join(values).strip(" \t")
    if not _VERSION.fullmatch(value) or int(value) > INTEGER_MAX:
        text = f"Command-Version must be given once, as an integer from 1 to 2^53-1, not {value[:40]!a}"
        raise _malformed("Command-Version", text)
    return int(value)


def is_unchanged(values: Sequence[str], version: int) -> bool:
    """Whether `If-None-Match` names this version (RFC 9110, section 13.1.2; the comparison is weak)."""
    value = ", ".join(values).strip(" \t")
    if value == "*":
        return True
    return _TAGS.fullmatch(value) is not None and any(
        tag.removeprefix("W/") == entity_tag(version) for tag in _EACH_TAG.findall(value)
    )


def entity_tag(version: int) -> str:
    """The strong entity tag of a version."""
    return f'"{version}"'


def preferences(values: Sequence[str]) -> Preferences:
    """What `Prefer` asks for.

    Unknown and malformed preferences are ignored, and so are all but the first of repeated ones, and all after the
    first PREFERENCES_MAX.
    """
    if not values:
        return NO_PREFERENCES
    found: dict[str, str] = {}
    for part in ",".join(values).split(",", PREFERENCES_MAX)[:PREFERENCES_MAX]:
        matched = _PREFERENCE.fullmatch(part)
        if matched is not None:
            found.setdefault(matched.group(1).lower(), (matched.group(2) or "").strip('"'))
    wait = found.get("wait", "")
    return Preferences("respond-async" in found, int(wait) if _SECONDS.fullmatch(wait) else None)


def read_after(values: Sequence[str], lanes: Sequence[str]) -> dict[str, int]:
    """The places of `Read-After`, by their lanes, which must be among these: a dictionary of integers (RFC 9651).

    Raises RequestRefused (400), also for a lane that is named twice.
    """
    text = ",".join(values)
    found: dict[str, int] = {}
    for member in text.split(",", len(lanes))[: len(lanes) + 1]:
        matched = _PLACE.fullmatch(member)
        if matched is None:
            wanted = f"{lanes[0]}=4711, as the answer to a write has it, at most one for each of {', '.join(lanes)}"
            raise _malformed("Read-After", f"Read-After must be a place such as {wanted}, not {member[:40]!a}")
        lane, sequence = matched.groups()
        if lane not in lanes:
            text = f"Read-After names lane {lane[:40]}, of which nothing is read here, but of {', '.join(lanes)}"
            raise _malformed("Read-After", text)
        if lane in found:
            raise _malformed("Read-After", f"Read-After names lane {lane} twice")
        found[lane] = int(sequence)
    return found


def read_after_text(places: Mapping[str, int]) -> str:
    """The places in their lanes' orders, as `Read-After` has them."""
    return ", ".join(f"{lane}={sequence}" for lane, sequence in places.items())


def _malformed(header: str, message: str) -> RequestRefused:
    return RequestRefused(400, "invalid_header", message, field=header)
