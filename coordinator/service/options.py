"""The options of a command, beside its id, type and arguments, as a row of the lane keeps them."""

from typing import Literal

import msgspec
from msgspec import Struct

Origin = Literal["public", "system"]
"""The side that a command comes from: `public` for anybody who may publish to `writes`; `system` for the system and its
operators, since only they may publish to `writes.system`, and issue internal types and operators' types."""


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`replayed`: an operator has had the command sent once more."""

    origin: Origin = "system"
    deadline_ms: int | None = None
    expected_version: int | None = None
    traceparent: str | None = None
    continuation: str | None = None
    command_version: int | None = None
    replayed: bool = False

    def encode(self) -> str:
        """As JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | None) -> "Options":
        """The options in JSON text; None stands for no options."""
        return cls() if text is None else msgspec.json.decode(text, type=cls)


NO_OPTIONS = Options()
