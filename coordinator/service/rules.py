"""Whether a service says who may do what."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from coordinator.service.allowing import OPERATOR, anybody, scopes_named_by
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError
from coordinator.service.rows import Row
from coordinator.service.service import Service


def check_decided(name: str, commands: Iterable[type[Command]], services: Iterable[Service]) -> None:
    """Raises ConfigurationError, which names what a gateway offers, and of which nobody says who may use it.

    That is all that is public of the service of its name, and the commands that it takes, which may be other lanes'.
    A command of a lane that is none of these services' has no rule that anybody knows.
    """
    known = {service.lane: service for service in services}
    of_types = {handler.command.type: handler for service in known.values() for handler in service.public_handlers}
    offered = {command.type for command in commands}
    rows: list[str] = []
    if (own := known.get(name)) is not None:
        offered |= {handler.command.type for handler in own.public_handlers}
        rows = [model.__name__ for model in own.public_models if model not in own.row_rules]
    undecided = sorted(each for each in offered if each not in of_types or of_types[each].allow is None)
    if undecided or rows:
        lane = undecided[0].partition(".")[0] if undecided else name
        raise ConfigurationError(
            f"callers must prove who they are (ACCESS_METHODS), and nothing says who of them may use "
            f"{', '.join((*undecided, *rows))}: declare it for the whole service, "
            f'Service("{lane}", allow=any_principal), or with an `allow` of its own for each'
        )


def rules_of(service: Service) -> Iterator[Any]:
    """The rules of its public commands and rows."""
    yield from (handler.allow for handler in service.public_handlers if handler.allow is not None)
    yield from service.row_rules.values()


def named_scopes(services: Iterable[Service]) -> frozenset[str]:
    """Those of `has_scope`, and that of operators; a rule that is a function may ask for others."""
    rules = (rule for service in services for rule in rules_of(service))
    return frozenset({OPERATOR, *(scope for rule in rules for scope in scopes_named_by(rule))})


def ruled_rows(service: Service) -> Sequence[type[Row]]:
    """The classes of rows that not everybody may read, whichever routes show them."""
    return [model for model, rule in service.row_rules.items() if rule is not anybody]


def has_rules(service: Service) -> bool:
    """Whether any of them asks who asks."""
    return any(rule is not anybody for rule in rules_of(service))
