"""Commands that a service declares and does not apply: whoever issues one is told that there is no such type."""

from collections.abc import Iterator

from coordinator.service.commands import Command
from coordinator.service.service import Service


def unhandled_commands(service: Service) -> list[type[Command]]:
    """The classes of commands of this service's lane without a handler, of those that its own modules define.

    Its modules are those of its handlers, of their commands and of its rows. A type that is handled by a class of
    another version has a handler.
    """
    handled = {getattr(handler.command, "type", None) for handler in service.handlers}
    parts = [part for handler in service.handlers for part in (handler.handle, handler.command)]
    modules = {getattr(part, "__module__", None) for part in (*parts, *service.models)}
    found = {
        command.type: command
        for command in _all_below(Command)
        if command.__module__ in modules
        and isinstance(getattr(command, "type", None), str)
        and command.type not in handled
        and command.lane() == service.name
    }
    return [found[kind] for kind in sorted(found)]


def how_to_handle(service: Service, command: type[Command]) -> str:
    """What to do about one of them."""
    return f"declare its handler with @{service.name}.handles({command.__name__})"


def _all_below(base: type[Command]) -> Iterator[type[Command]]:
    for command in base.__subclasses__():
        yield command
        yield from _all_below(command)
