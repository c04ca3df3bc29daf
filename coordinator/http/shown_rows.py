"""Which rows of a model whoever asks may see, by the rule that its service declares."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import structlog
from aiohttp import web

from coordinator.client.repository import ALL, Repository
from coordinator.http.authentication import AUTHENTICATION, forbidden
from coordinator.http.keys import CONTEXT
from coordinator.service.allowing import RowsRule, anybody
from coordinator.service.errors import ConfigurationError, UnreadableRow
from coordinator.service.principal import Principal
from coordinator.service.rows import Key, R, Row, Value, WrongSelection
from coordinator.stores.row_checks import InvalidRow, RowCheck, WrongValue

log = structlog.get_logger("gateway")


class ShownRows:
    """The rows of one model that somebody may see.

    Raises ConfigurationError for a rule that names columns of which there is no index, or values that are none of
    theirs, if it does so for anybody.
    """

    def __init__(self, model: type[Row], check: RowCheck, rule: RowsRule | None) -> None:
        self._model = model
        self._check = check
        self._rule = rule
        if rule is not None:
            self._try(rule)

    def condition(self, request: web.Request) -> Mapping[str, Value] | None:
        """The values that rows have which this request may see, by column; None: it may see none.

        Raises TypeError for a rule that gives no answer, or values that are none of their columns'.
        """
        if self._rule is None:
            return ALL
        allowed = condition_for(request, self._rule, self._model.__name__)
        return self._checked(allowed) if allowed else allowed

    def _checked(self, allowed: Mapping[str, Value]) -> Mapping[str, Value] | None:
        if any(value is None and self._check.is_never_none(column) for column, value in allowed.items()):
            # As of somebody without a tenant, where every row has one.
            return None
        try:
            self._check.selection(self._model.where(limit=1, after=None, **allowed))
        except (WrongSelection, WrongValue) as error:
            raise TypeError(f"`allow` of {self._model.__name__}: {error}") from None
        except InvalidRow:
            # A text that no row can have, such as a stranger's subject, shows none.
            return allowed
        return allowed

    def _try(self, rule: RowsRule) -> None:
        """Whether rows can be found by what a rule names, if it tells that of somebody without scopes."""
        try:
            allowed = rule(Principal(subject="somebody", tenant="some"))
        except Exception:  # noqa: BLE001  # a function of the service's author
            return
        if isinstance(allowed, Mapping):
            try:
                self._checked(allowed)
            except TypeError as error:
                raise ConfigurationError(str(error)) from None

    async def one(self, request: web.Request, rows: Repository[R], key: Key) -> R | None:
        """The row with this key, if this request may see it. Raises as `Repository.get`, and TypeError."""
        condition = self.condition(request)
        if condition is None:
            return None
        try:
            row = await rows.get(key)
        except UnreadableRow as error:
            if not condition:
                raise
            # Whose it is, nobody can read: that it is there is not for everybody to know.
            log.error(
                "row_unreadable",
                personal={"url.path": request.path},
                table=error.table,
                key=error.key,
                column=error.column,
            )
            return None
        return row if row is not None and is_shown(row, condition) else None


def rows_for(request: web.Request, rule: RowsRule) -> Mapping[str, Value]:
    """The values, by column, that rows have which whoever asks may see by this rule; none: he may see all.

    For a list of a route of one's own. A gateway that does not ask who asks shows all to everybody, as it says at its
    start. Raises RequestRefused (403) for somebody who may see none, and TypeError for a rule that gives no answer.
    """
    condition = condition_for(request, rule, "a rule")
    if condition is None:
        raise forbidden("these rows are not for whoever this credential is for")
    return condition


def may_see(request: web.Request, rule: RowsRule, row: Row) -> bool:
    """Whether whoever asks may see this row by this rule. For a route of one's own, which answers 404 if not.

    Raises TypeError for a rule that gives no answer.
    """
    condition = condition_for(request, rule, type(row).__name__)
    return condition is not None and is_shown(row, condition)


def condition_for(request: web.Request, rule: RowsRule, whose: str) -> Mapping[str, Value] | None:
    """The values that rows have which whoever asks may see by this rule; None: he may see none.

    Raises TypeError for a rule that gives no answer; `whose` it is, the error says.
    """
    if AUTHENTICATION not in request.app or rule is anybody:
        return ALL
    principal = request[CONTEXT].principal
    if principal is None:
        # A route that is open to all, whose rows are not.
        return None
    allowed: object = rule(principal)
    if isinstance(allowed, bool):
        return ALL if allowed else None
    if not isinstance(allowed, Mapping) or not allowed:
        raise TypeError(
            f"`allow` of {whose} must return True, False, or the values of columns of an index, and returned "
            f"{allowed!r:.100}"
        )
    return allowed


def is_shown(row: Row, condition: Mapping[str, Value]) -> bool:
    """Whether a row has these values. As in a list, one of another type is none of its column, though it is equal."""
    return all(_is(getattr(row, column), value) for column, value in condition.items())


def _is(kept: Any, value: Value) -> bool:
    if isinstance(value, Enum) and not isinstance(kept, Enum):
        value = value.value
    return type(kept) is type(value) and bool(kept == value)
