"""What an operator does, as it is kept with its author and reason (`coordinator audit LANE --operators`)."""

import click

from coordinator.operate import output
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.lane_names import settings_prefix
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.operator_acts import made_act

reason_option = click.option(
    "--reason", type=output.reason, help="Why: kept with who does it, for `audit --operators`."
)
"""For every command that changes something."""


def act_of(lane: str, act: str, reason: str | None, **details: object) -> OperatorAct:
    """An act that whoever runs this process is about to do in the database of a lane, as `act_by`."""
    return act_by(output.as_user(), lane, act, reason, **details)


def act_by(author: str, lane: str, act: str, reason: str | None, **details: object) -> OperatorAct:
    """An act that somebody is about to do in the database of a lane. Raises ConfigurationError for its address."""
    settings = load(DatabaseSettings, prefix=settings_prefix(lane))
    account = parse_address(settings.database_url).user
    return made_act(output.now(), author, act, details, account=account, reason=reason)
