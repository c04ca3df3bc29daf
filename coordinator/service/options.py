"""What a command travels with beside its id, type and arguments, as a row of the lane keeps it."""

from typing import Literal

import msgspec
from msgspec import Struct

Origin = Literal["public", "system"]
"""Who says it: somebody who may publish to `writes`, or the system and its operators, who alone may to
`writes.system`. Only those may issue internal types and operators' types."""


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`replayed`: an operator has had it sent once more."""

    origin: Origin = "system"
    deadline_ms: int | None = None
    expected_version: int | None = None
    traceparent: str | None = None
    continuation: str | None = None
    replayed: bool = False

    def encode(self) -> str:
        """As JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | None) -> "Options":
        """Of JSON text; None stands for none of them."""
        return cls() if text is None else msgspec.json.decode(text, type=cls)


NO_OPTIONS = Options()
