"""RabbitMQ's accounts as the settings of a lane name them: which are gateways, and which scopes and queues the others
have.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final, Self

from msgspec import Struct
from pydantic import BaseModel, Field, model_validator

from coordinator.runtime.lists import shown_word, words_of
from coordinator.service.principal import (
    BROKER_USER,
    NO_SCOPES,
    SCOPE_CHARACTERS_MAX,
    Principal,
    defect_of,
    is_scope,
)


class BrokerAccounts(Struct, frozen=True):
    """What a lane knows of accounts: nothing, of those that are not named."""

    gateways: frozenset[str] = frozenset()
    """These are believed when they say who asks."""
    scopes: Mapping[str, frozenset[str]] = {}
    """By account, for the rules of commands that it publishes for itself."""

    reply_queues: Mapping[str, frozenset[str]] = {}
    """By queue, the accounts whose outcomes may be sent to it."""

    def is_queue_of_others(self, queue: str | None, user: str | None) -> bool:
        """Whether outcomes are sent to this queue, and none of what this account, or nobody known, has asked for."""
        accounts = None if queue is None else self.reply_queues.get(queue)
        return accounts is not None and user not in accounts

    def scopes_of(self, user: str) -> frozenset[str]:
        """Those of an account; none where it is not named."""
        return self.scopes.get(user, NO_SCOPES)


NO_ACCOUNTS: Final = BrokerAccounts()


OF_THE_BROKER: Final = ("writes", "effects.", "amq.")
"""How the names of queues and exchanges begin that are RabbitMQ's, or the system's own."""
QUEUE_NAME_BYTES_MAX: Final = 255


@cache
def broker_accounts(gateways: str, scopes: str, reply_queues: str = "") -> BrokerAccounts:
    """The accounts in three settings: names, `account=scope` and `account=queue`, each with spaces between.

    Raises ValueError, which names the setting and what is wrong with it, for a person.
    """
    try:
        named = frozenset(words_of(gateways))
    except ValueError as error:
        raise ValueError(f"LANE_GATEWAY_ACCOUNTS: {error}") from None
    try:
        found = _scopes(scopes, named)
    except ValueError as error:
        raise ValueError(f"LANE_ACCOUNT_SCOPES: {error}") from None
    try:
        queues = _reply_queues(reply_queues)
    except ValueError as error:
        raise ValueError(f"LANE_REPLY_QUEUES: {error}") from None
    return BrokerAccounts(named, found, queues)


def _scopes(scopes: str, named: frozenset[str]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for pair in words_of(scopes):
        account, equals, scope = pair.partition("=")
        if not (account and equals and is_scope(scope)):
            raise ValueError(
                f"{shown_word(pair)} is not an account, =, and a scope of 1 to {SCOPE_CHARACTERS_MAX} visible ASCII "
                "characters: write `billing=refunds billing=staff` for two scopes of one account"
            )
        if account in named:
            raise ValueError(
                f"{shown_word(account)} is a gateway (LANE_GATEWAY_ACCOUNTS), and has the scopes of those for whom it "
                "asks: name it in one of the two"
            )
        found[account] = found.get(account, NO_SCOPES) | {scope}
    for account, its in found.items():
        principal = Principal(subject=f"{BROKER_USER}{account}", scopes=its)
        if (defect := defect_of(principal, may_be_broker_user=True)) is not None:
            raise ValueError(f"{shown_word(account)} cannot ask for anything: {defect}")
    return found


def _reply_queues(pairs: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for pair in words_of(pairs):
        account, equals, queue = pair.partition("=")
        if not (account and equals and queue) or len(queue.encode()) > QUEUE_NAME_BYTES_MAX:
            raise ValueError(
                f"{shown_word(pair)} is not an account, =, and the name of a queue of at most {QUEUE_NAME_BYTES_MAX} "
                "bytes: write `billing=billing.outcomes`"
            )
        if queue.startswith(OF_THE_BROKER):
            raise ValueError(
                f"{shown_word(queue)} is not for outcomes: names that begin with {', '.join(OF_THE_BROKER)} are "
                "RabbitMQ's or the lanes'; give the queue another name"
            )
        found[queue] = found.get(queue, frozenset()) | {account}
    return found


class BrokerAccountSettings(BaseModel):
    """Settings that say what a lane knows of accounts."""

    gateway_accounts: str = Field(
        default="",
        description="RabbitMQ's accounts of gateways, with spaces between: one of them is believed when it says who "
        "asks. Without any nobody is.",
    )
    account_scopes: str = Field(
        default="",
        description="Scopes of RabbitMQ's other accounts, `account=scope` with spaces between, such as "
        "`billing=refunds billing=staff`: rules see them where a message has the account as `user_id`.",
    )

    reply_queues: str = Field(
        default="",
        description="Queues to which outcomes may be sent beside those of gateways, `account=queue` with spaces "
        "between, such as `billing=billing.outcomes`: of commands that have the account as `user_id`.",
    )

    @property
    def accounts(self) -> BrokerAccounts:
        """What is known of RabbitMQ's accounts."""
        return broker_accounts(self.gateway_accounts, self.account_scopes, self.reply_queues)

    @model_validator(mode="after")
    def _accounts_can_be_read(self) -> Self:
        _ = self.accounts
        return self
