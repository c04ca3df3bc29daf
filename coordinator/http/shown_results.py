"""What of commands' results whoever asks may see: a row in one is shown to those to whom reads would show it.

The rules are those of the rows' classes. Of a row that is not for whoever asks a result has the key alone.
"""

from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from coordinator.client.writes import Written
from coordinator.http.authentication import AUTHENTICATION
from coordinator.http.shown_rows import condition_for, is_shown
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.allowing import RowsRule, anybody
from coordinator.service.json_text import to_json
from coordinator.service.outcome import NO_RESULT
from coordinator.service.rows import Row, key_columns
from coordinator.service.rows_within import may_have_rows, may_pass_for_rows, without_rows
from coordinator.service.service import Service

_NOT_ITS_OWN: Final = "its handler promises a base of the class of a row"

log = structlog.get_logger("gateway")


class ShownResults:
    """The results of the commands of some services, as whoever asks may see them."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._rules: dict[type[Row], RowsRule] = {}
        self._lanes: set[str] = set()
        """Those of which a result may have a row that is not for everybody."""
        self._known: set[str] = set()
        """The types of commands of which it is known that their results have none."""
        self._as_base: set[str] = set()
        """Those of which it is not known whose rows their results have: they are promised as a base of their class."""
        self._with_rows: dict[str, msgspec.json.Decoder[Any]] = {}
        self._line, self._unlogged = RepeatedLine(), dict[str, int]()
        ruled = list(services)
        for service in ruled:
            rules = {model: rule for model, rule in service.row_rules.items() if rule is not anybody}
            self._rules.update(rules)
            self._lanes |= {service.name} if rules else set()
        for service in ruled:
            for handler in service.handlers:
                # What a handler of which that cannot be read returns is withheld, like what nobody knows.
                with suppress(TypeError, NameError, ValueError):
                    self._take(handler.command.type, handler.result or type(None))

    def _take(self, kind: str, promised: Any) -> None:
        if may_pass_for_rows(promised, self._rules):
            # A row that is read as its base does not say whose it is, whatever is beside it.
            self._as_base.add(kind)
            return
        if may_have_rows(promised, self._rules):
            self._with_rows[kind] = msgspec.json.Decoder(promised)
        else:
            self._known.add(kind)

    def of_written(self, request: web.Request, kind: str, written: Written[Any]) -> Written[Any]:
        """What a write of this type returned, with what may be shown of it (`Written.shown`)."""
        if not self._rules or AUTHENTICATION not in request.app or written.value is None:
            return written
        if kind in self._as_base:
            self._tell(kind, _NOT_ITS_OWN)
            return msgspec.structs.replace(written, shown=None)
        shown = without_rows(written.value, _Shortened(self._rules, request))
        return written if shown is written.value else msgspec.structs.replace(written, shown=shown)

    def of_logged(self, request: web.Request, kind: str | None, result: msgspec.Raw) -> msgspec.Raw:
        """What may be shown of the result of a command of this type, as its lane has it: JSON text.

        Nothing of one that cannot be read, or of a type that is no longer known: nobody knows whose rows it has.
        """
        if kind is None or kind in self._known or AUTHENTICATION not in request.app or bytes(result) == b"null":
            return result
        decoder = self._with_rows.get(kind)
        if decoder is None and kind.partition(".")[0] not in self._lanes:
            return result
        try:
            value = None if decoder is None else decoder.decode(result)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._tell(kind, str(error))
            return NO_RESULT
        if decoder is None:
            self._tell(kind, _NOT_ITS_OWN if kind in self._as_base else "no command of this type is known")
            return NO_RESULT
        shown = without_rows(value, _Shortened(self._rules, request))
        return result if shown is value else msgspec.Raw(to_json(shown))

    def _tell(self, kind: str, reason: str) -> None:
        times = self._unlogged.get(kind, 0) + 1
        is_due = self._line.is_due(kind, monotonic())
        self._unlogged[kind] = 0 if is_due else times
        if is_due:
            log.warning("result_withheld", type=kind, reason=reason, times=times)


class _Shortened:
    """What stands for a row in the answer to one request: the row itself, or its key."""

    def __init__(self, rules: dict[type[Row], RowsRule], request: web.Request) -> None:
        self._rules = rules
        self._request = request

    def __call__(self, row: Row) -> Any:
        model = type(row)
        rule = next((self._rules[each] for each in model.__mro__ if each in self._rules), None)
        if rule is None or self._is_shown(row, rule):
            return row
        return {name: getattr(row, name) for name in key_columns(model)}

    def _is_shown(self, row: Row, rule: RowsRule) -> bool:
        try:
            condition = condition_for(self._request, rule, type(row).__name__)
            return condition is not None and is_shown(row, condition)
        except Exception:
            # The command is settled, and an error would say that nobody knows it.
            log.exception("row_rule_failed", table=type(row).table)
            return False


SHOWN_RESULTS: Final = web.AppKey("SHOWN_RESULTS", ShownResults)
