"""Older commands: arguments of a version of before, for tests of upgrades."""

from typing import Any

import msgspec
from msgspec import Struct

from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command, version_sent
from coordinator.service.options import Origin


class Older(Struct, frozen=True):
    """A command as it was sent with an older version: `Older(BookSeat, {"id": 7, "holder": "ada"}, version=1)`."""

    command: type[Command]
    arguments: dict[str, Any]
    version: int

    @property
    def type(self) -> str:
        """That of the command."""
        return self.command.type


def message_of(command: Command | Older, command_id: str, origin: Origin = "system", **options: Any) -> CommandMessage:
    """A command as it is sent; `options` are other fields of the message."""
    if isinstance(command, Older):
        arguments, version = msgspec.json.encode(command.arguments), None if command.version == 1 else command.version
    else:
        arguments, version = msgspec.json.encode(command), version_sent(command)
    return CommandMessage(command_id, command.type, arguments, origin, command_version=version, **options)
