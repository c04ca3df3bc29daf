"""The check of the services of a process at its start, and what is said of them there."""

import structlog

from coordinator.service.service import Service
from coordinator.service.unhandled import how_to_handle, unhandled_commands
from coordinator.stores.row_defects import check_declaration

log = structlog.get_logger("coordinator")


def check_services(*services: Service) -> None:
    """Raise ConfigurationError for a service that is declared wrongly; warn of commands without a handler."""
    check_declaration(*services)
    for service in services:
        warn_of_unhandled(service)


def warn_of_unhandled(service: Service) -> None:
    """Log each command that its modules define, and for which it has no handler.

    One that is issued nevertheless becomes a dead letter (`unknown_command_type`).
    """
    for command in unhandled_commands(service):
        what = how_to_handle(service, command)
        log.warning("command_without_handler", lane=service.name, type=command.type, what_to_do=what)
