"""The check of the services of a process at its start, and what is said of them there."""

import structlog

from coordinator.runtime.broker_accounts import BrokerAccounts
from coordinator.service.allowing import anybody
from coordinator.service.service import Service
from coordinator.service.unhandled import how_to_handle, unhandled_commands
from coordinator.stores.row_defects import check_declaration
from coordinator.stores.wide_arguments import wide_arguments

log = structlog.get_logger("coordinator")


def check_services(*services: Service) -> None:
    """Raise ConfigurationError for a service that is declared wrongly; warn of what may be a mistake."""
    check_declaration(*services)
    for service in services:
        warn_of_mistakes(service)


def warn_of_mistakes(service: Service) -> None:
    """Log what may be a mistake in a service that is declared rightly."""
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


def warn_of_unbelieved_gateways(service: Service, accounts: BrokerAccounts) -> None:
    """Log that commands have rules, and that the lane believes nobody who says who asks: it refuses them all."""
    ruled = [each.command.type for each in service.public_handlers if each.allow not in (None, anybody)]
    if ruled and not accounts.gateways and not accounts.scopes:
        log.warning(
            "rules_without_gateways",
            lane=service.lane,
            types=len(ruled),
            type=ruled[0],
            setting="LANE_GATEWAY_ACCOUNTS",
            what_to_do="name the accounts of the broker that gateways have: of others the lane refuses what has a rule",
        )
