"""The options of a command, beside its id, type and arguments, as a row of the lane keeps them."""

from typing import Literal

import msgspec
from msgspec import Struct

from coordinator.service.principal import Principal

Origin = Literal["public", "system"]
"""The side that a command comes from: `public` for anybody who may publish to `writes`; `system` for the system and its
operators, since only they may publish to `writes.system`, and issue internal types and operators' types."""


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`replayed`: an operator has had the command sent once more. `actor`: who asked for it, if that is known.

    `result_of` is the effect whose result it is, as `TYPE ID`; of an effect, the command that emitted it.
    `sender` has words of what the lane knew of who sent it, beside (coordinator/protocol/senders.py).
    """

    origin: Origin = "system"
    deadline_ms: int | None = None
    expected_version: int | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    continuation: str | None = None
    command_version: int | None = None
    replayed: bool = False
    actor: Principal | None = None
    sender: str | None = None
    result_of: str | None = None

    def encode(self) -> str:
        """As JSON text: of the same options always the same, though scopes have no order."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @classmethod
    def decode(cls, text: str | None) -> "Options":
        """The options in JSON text; None stands for no options."""
        return cls() if text is None else msgspec.json.decode(text, type=cls)


NO_OPTIONS = Options()
