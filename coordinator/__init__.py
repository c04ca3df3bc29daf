"""The write coordinator: a framework for services whose writes go through one ordered consumer per database.

Here is what the author of a service writes with. What else one may import is in

    coordinator.client      issuing commands, and watching them being issued
    coordinator.reading     reading rows, and the log of what became of commands
    coordinator.http        what gateways are built from
    coordinator.cache       the projection of committed rows to Redis
    coordinator.settings    the groups of settings that services read
    coordinator.dev         what a service wants of `coordinator dev`
    coordinator.ports       for those who write a store, a cache or a transport

docs/API.md lists every name. Everything else is private, and changes without notice. Importing this package loads no
driver, no broker client and no web server.
"""

from coordinator.registry import App
from coordinator.service.allowing import (
    OPERATOR,
    CommandRule,
    RowsRule,
    ServiceRule,
    any_of,
    any_principal,
    anybody,
    has_scope,
)
from coordinator.service.commands import (
    AMOUNT_MAX,
    INTEGER_MAX,
    NAME_CHARACTERS_MAX,
    Amount,
    Command,
    Id,
    Name,
    Quantity,
    at_fault,
    check_normalized,
)
from coordinator.service.continuation import Continuation, Deferred
from coordinator.service.errors import (
    BrokerUnavailable,
    CommandFailed,
    CommandPending,
    CommandRejected,
    ConfigurationError,
    CoordinatorError,
    DatabaseUnavailable,
    InvalidCommand,
    NotFound,
    OutcomeUnknown,
    OutcomeUnreadable,
    Overloaded,
    Rejected,
    Unavailable,
)
from coordinator.service.ids import command_id_for, new_command_id, scoped_command_id_for, system_command_id
from coordinator.service.outside_calls import Call, Effect, EffectHandler, EffectRetry, Effects, GivenUp
from coordinator.service.paging import PAGE_DEFAULT, Page, page_of
from coordinator.service.personal import Personal
from coordinator.service.principal import Principal
from coordinator.service.reading import Reading
from coordinator.service.rows import SELECTED_MAX, Digits, Ref, Row, RowSelection, Value, VersionedRow
from coordinator.service.saga import ENDED, Resumption, Saga, SagaRow, Step
from coordinator.service.saga_table import REASON_CHARACTERS_MAX, saga_steps
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Projection, Service
from coordinator.service.text import VISIBLE, normalized, storable, unassigned_in, unseen_in
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.service.upgrades import Upgrade

__all__ = (
    # Commands
    "Command",
    "Id",
    "Name",
    "Quantity",
    "Amount",
    "AMOUNT_MAX",
    "INTEGER_MAX",
    "NAME_CHARACTERS_MAX",
    "VISIBLE",
    "at_fault",
    "check_normalized",
    "Continuation",
    "Deferred",
    # Rows
    "Row",
    "VersionedRow",
    "Digits",
    "Personal",
    "Ref",
    "RowSelection",
    "SELECTED_MAX",
    "Value",
    # Handlers and services
    "Handler",
    "UnitOfWork",
    "Reading",
    "Principal",
    "Upgrade",
    "Service",
    "Projection",
    "App",
    # Who may
    "CommandRule",
    "RowsRule",
    "ServiceRule",
    "any_principal",
    "anybody",
    "has_scope",
    "any_of",
    "OPERATOR",
    # Sagas
    "Saga",
    "SagaRow",
    "SagaStep",
    "Step",
    "Resumption",
    "saga_steps",
    "ENDED",
    "REASON_CHARACTERS_MAX",
    # Calls to the outside
    "Effect",
    "EffectHandler",
    "EffectRetry",
    "Effects",
    "Call",
    "GivenUp",
    # Ids
    "new_command_id",
    "command_id_for",
    "scoped_command_id_for",
    "system_command_id",
    # Texts of third parties
    "storable",
    "normalized",
    "unassigned_in",
    "unseen_in",
    # Pages of reads
    "Page",
    "page_of",
    "PAGE_DEFAULT",
    # Errors
    "CoordinatorError",
    "ConfigurationError",
    "InvalidCommand",
    "Rejected",
    "NotFound",
    "CommandRejected",
    "CommandFailed",
    "CommandPending",
    "OutcomeUnreadable",
    "Unavailable",
    "BrokerUnavailable",
    "OutcomeUnknown",
    "Overloaded",
    "DatabaseUnavailable",
)
