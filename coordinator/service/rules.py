"""Whether a service says who may do what."""

from collections.abc import Iterator
from typing import Any

from coordinator.service.allowing import anybody
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service


def check_decided(service: Service) -> None:
    """Raises ConfigurationError, which names the public commands and rows that have no rule."""
    commands = [handler.command.type for handler in service.public_handlers if handler.allow is None]
    rows = [model.__name__ for model in service.public_models if model not in service.row_rules]
    if not commands and not rows:
        return
    raise ConfigurationError(
        f"callers must prove who they are (ACCESS_METHODS), and nothing says who of them may use "
        f"{', '.join((*commands, *rows))}: declare it for the whole service, "
        f'Service("{service.name}", allow=any_principal), or with an `allow` of its own for each'
    )


def rules_of(service: Service) -> Iterator[Any]:
    """The rules of its public commands and rows."""
    yield from (handler.allow for handler in service.public_handlers if handler.allow is not None)
    yield from service.row_rules.values()


def has_rules(service: Service) -> bool:
    """Whether any of them asks who asks."""
    return any(rule is not anybody for rule in rules_of(service))
