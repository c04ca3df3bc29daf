"""Which rows of a model whoever asks may see, by the rule that its service declares."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from aiohttp import web

from coordinator.client.repository import ALL
from coordinator.http.authentication import AUTHENTICATION
from coordinator.http.keys import CONTEXT
from coordinator.service.allowing import RowsRule
from coordinator.service.errors import ConfigurationError
from coordinator.service.principal import Principal
from coordinator.service.rows import Row, Value, WrongSelection


class ShownRows:
    """The rows of one model that somebody may see.

    Raises ConfigurationError for a rule that names columns of which there is no index.
    """

    def __init__(self, model: type[Row], rule: RowsRule | None) -> None:
        self._model = model
        self._rule = rule
        if rule is not None:
            _try(model, rule)

    def condition(self, request: web.Request) -> Mapping[str, Value] | None:
        """The values that rows have which this request may see, by column; None: it may see none.

        Raises TypeError for a rule that gives no answer.
        """
        if self._rule is None or AUTHENTICATION not in request.app:
            return ALL
        principal = request[CONTEXT].principal
        if principal is None:
            # A route that is open to all: its rule is `anybody`.
            return ALL
        allowed: object = self._rule(principal)
        if isinstance(allowed, bool):
            return ALL if allowed else None
        if not isinstance(allowed, Mapping) or not allowed:
            raise TypeError(
                f"`allow` of {self._model.__name__} must return True, False, or the values of columns of an index, and "
                f"returned {allowed!r:.100}"
            )
        return allowed


def is_shown(row: Row, condition: Mapping[str, Value]) -> bool:
    """Whether a row has these values. As in a list, one of another type is none of its column, though it is equal."""
    return all(_is(getattr(row, column), value) for column, value in condition.items())


def _is(kept: Any, value: Value) -> bool:
    if isinstance(value, Enum) and not isinstance(kept, Enum):
        value = value.value
    return type(kept) is type(value) and bool(kept == value)


def _try(model: type[Row], rule: RowsRule) -> None:
    """Whether an index serves what a rule names, if it tells that of somebody without scopes."""
    try:
        allowed = rule(Principal(subject="somebody"))
        if isinstance(allowed, Mapping):
            model.where(limit=1, after=None, **allowed)
    except WrongSelection as error:
        raise ConfigurationError(f"`allow` of {model.__name__}: {error}") from None
    except Exception:  # noqa: BLE001, S110  # a function of the service's author, which may want a tenant
        pass
