"""The check of the services of a process at its start, and what is said of them there."""

import structlog

from coordinator.service.service import Service
from coordinator.service.unhandled import how_to_handle, unhandled_commands
from coordinator.stores.row_defects import check_declaration
from coordinator.stores.wide_arguments import wide_arguments

log = structlog.get_logger("coordinator")


def check_services(*services: Service) -> None:
    """Raise ConfigurationError for a service that is declared wrongly; warn of what may be a mistake."""
    check_declaration(*services)
    for service in services:
        warn_of_unhandled(service)
        warn_of_wide_arguments(service)


def warn_of_unhandled(service: Service) -> None:
    """Log each command that its modules define, and for which it has no handler.

    One that is issued nevertheless becomes a dead letter (`unknown_command_type`).
    """
    for command in unhandled_commands(service):
        what = how_to_handle(service, command)
        log.warning("command_without_handler", lane=service.lane, type=command.type, what_to_do=what)


def warn_of_wide_arguments(service: Service) -> None:
    """Log each argument that takes what the column of its name does not: who sends it makes a dead letter."""
    for each in wide_arguments(service):
        log.warning(
            "argument_wider_than_column",
            lane=service.lane,
            type=each.command.type,
            field=each.field,
            column=each.column,
            problem=each.problem,
            what_to_do="say in the type of the argument what the column takes, or refuse it in the handler",
        )
