"""The fields of a command: one table for all the forms in which a command travels.

It is read where messages and packs are decoded and encoded (`decoding.py`, `wire.py`, `packing.py`), by
`POST /commands`, and by the AsyncAPI document. The arguments are not in it: the fields go with the arguments.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from msgspec import Meta, Struct, defstruct

from coordinator.service.commands import INTEGER_MAX
from coordinator.service.ids import is_uuid
from coordinator.service.text import is_encodable

TYPE_CHARACTERS_MAX: Final = 100
LANE_CHARACTERS_MAX: Final = 64

_VISIBLE: Final = rf"[!-~]{{1,{TYPE_CHARACTERS_MAX}}}"
_OTHER_TYPE = re.compile(rf"(?=[!-~]{{3,{TYPE_CHARACTERS_MAX}}}\Z)[^.]{{1,{LANE_CHARACTERS_MAX}}}\..+")


class Form(Struct, frozen=True):
    """The allowed values of a field.

    `type` describes them to msgspec, for JSON that is decoded and for JSON Schema. `check` returns the value of
    anything that somebody sent, or None if it is not allowed; it never raises. `words` describe the allowed values in
    errors; without them a wrong value is ignored.
    """

    type: Any
    check: Callable[[object], Any]
    words: str | None = None


class Field(Struct, frozen=True):
    """One field: an attribute of CommandMessage, and the header of a message of its own.

    `is_in_requests`: a client of `POST /commands` may give it. `is_read_unread`: it is read even of a command that is
    refused unread, since its session, and the clients that wait for it, must go on.
    """

    attribute: str
    header: str
    form: Form
    meaning: str
    is_in_requests: bool = False
    is_read_unread: bool = False

    @property
    def name(self) -> str:
        """The field's name in a pack, and in `POST /commands`."""
        return self.header.replace("-", "_")


def _integer(least: int, value: object) -> int | None:
    """Some clients can send an integer only as text."""
    if type(value) is int:
        return value if least <= value <= INTEGER_MAX else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(INTEGER_MAX)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= INTEGER_MAX:
        # pika has an int class of its own for long ones, which no encoder knows.
        return int(value)
    return None


def _command_id(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and is_uuid(value) else None


def _name(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= TYPE_CHARACTERS_MAX:
        return None
    # This checks the same as the pattern, in half the time.
    return value if value.isascii() and value.isprintable() and " " not in value else None


def _short_text(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > TYPE_CHARACTERS_MAX:
        return None
    # JSON cannot say half of a pair, and nothing could encode it.
    return value if value.isascii() or is_encodable(value) else None


def _other_type(value: object) -> str | None:
    return value if isinstance(value, str) and _OTHER_TYPE.fullmatch(value) else None


def _public(value: object) -> str | None:
    return "public" if value == "public" else None


def _number(least: int) -> Form:
    number = Annotated[int, Meta(ge=least, le=INTEGER_MAX)]
    return Form(number, partial(_integer, least), f"an integer from {least} to 2^53-1")


_NAME: Final = Form(
    Annotated[str, Meta(pattern=rf"\A{_VISIBLE}\Z")], _name, f"1 to {TYPE_CHARACTERS_MAX} visible ASCII characters"
)
# Version 8 is the system's own.
_UUID: Final = Annotated[str, Meta(pattern="^.{14}[^8]", extra_json_schema={"format": "uuid"})]

ID: Final = Field("command_id", "command-id", Form(_UUID, _command_id, "a UUID"), "The command id.")
TYPE: Final = Field("type", "command-type", _NAME, "The command type.")
VERSION: Final = Field(
    "command_version",
    "command-version",
    _number(1),
    "The version of the type that the arguments have; without it the first.",
    is_in_requests=True,
)
OPTIONS: Final = (
    Field(
        "deadline_ms",
        "deadline",
        _number(0),
        "Milliseconds since the Unix epoch: not applied after this time.",
        is_in_requests=True,
    ),
    Field(
        "expected_version",
        "expected-version",
        _number(0),
        "Applied only if its target has this version.",
        is_in_requests=True,
    ),
    Field("publisher", "publisher", _NAME, "A name of the publisher.", is_read_unread=True),
    Field(
        "publisher_seq", "publisher-seq", _number(1), "The publisher's own count of its commands.", is_read_unread=True
    ),
    Field(
        "traceparent",
        "traceparent",
        Form(Annotated[str, Meta(max_length=TYPE_CHARACTERS_MAX)], _short_text),
        "W3C Trace Context.",
    ),
    Field(
        "continuation",
        "continuation",
        Form(
            Annotated[str, Meta(pattern=rf"\A{_OTHER_TYPE.pattern}\Z")],
            _other_type,
            "a command type, such as orders.ship",
        ),
        "The type of the command that its outcome is to become.",
        is_read_unread=True,
    ),
    VERSION,
)
"""The fields that a command may carry beside its id and its type."""
ORIGIN: Final = Field(
    "origin",
    "origin",
    Form(Literal["public"], _public),
    "Through the system exchange: it is a stranger's all the same. Elsewhere it says nothing new.",
)
"""It can only lower the origin that the exchange gives to a command (`decoding.py`)."""
FIELDS: Final = (ID, TYPE, *OPTIONS, ORIGIN)

B = TypeVar("B", bound=Struct)


def with_fields(name: str, base: type[B], fields: Iterable[Field], *, is_checked: bool) -> type[B]:
    """A struct with the fields of its base and these optional fields.

    `is_checked`: they have their types, so that reading checks them; otherwise they take any value.
    """
    added = [(field.name, field.form.type | None if is_checked else Any, None) for field in fields]
    return cast("type[B]", defstruct(name, added, bases=(base,)))
