"""What handlers return, as the log and the outcome have it: JSON text that is of the type that the handler promises.

A gateway reads a result by that type. One that does not fit would be committed, and nobody could read the answer. A row
in a result is what the command leaves: a client would take one that was not saved for what was written.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from coordinator.lane.identity_map import IdentityMap
from coordinator.lane.returned_rows import unsaved_row
from coordinator.protocol.wire import BODY_BYTES_MAX
from coordinator.service.authors_code import shown_function
from coordinator.service.commands import Command
from coordinator.service.finite import is_flat, may_lack_numbers, not_finite
from coordinator.service.json_text import to_json
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.rows import Row
from coordinator.service.rows_within import may_return_rows
from coordinator.service.unit_of_work import Handler
from coordinator.stores.row_checks import is_read_back

RESULT_BYTES_MAX: Final = BODY_BYTES_MAX - 4096
"""The limit of a result. It leaves room for the rest of an outcome, and of the command that the outcome becomes."""
_UNFIT: Final = (TypeError, ValueError, OverflowError, RecursionError)


class UnfitResult(TypeError):
    """Raised for a result that is not what its handler promises, or has a row that was not saved; it says which."""


class Results:
    """The results of one lane's commands, by their types."""

    def __init__(self, lane: str, handlers: Iterable[Handler[Any]]) -> None:
        self.lane = lane
        self._promises: dict[str, msgspec.json.Decoder[Any]] = {}
        self._rows: dict[str, type[Row]] = {}
        """The promised rows that can be read if a batch has them: all of their values were checked."""
        self._with_rows: set[str] = set()
        """The types of commands whose results may have rows."""
        self._flat: set[str] = set()
        """The types of commands whose results have neither floats nor parts, which would have to be looked at."""
        self._handlers = {handler.command.type: handler for handler in handlers}
        for handler in self._handlers.values():
            # One that promises nothing that can be read is found at the start of its service.
            with suppress(TypeError, NameError, ValueError):
                self._promise(handler.command.type, handler.result or type(None))

    def _promise(self, kind: str, promised: Any) -> None:
        self._promises[kind] = msgspec.json.Decoder(promised)
        if isinstance(promised, type) and issubclass(promised, Row) and is_read_back(promised):
            self._rows[kind] = promised
        if may_return_rows(promised):
            self._with_rows.add(kind)
        if is_flat(promised):
            self._flat.add(kind)

    def check_handled(self, lane: str, command: type[Command]) -> None:
        """Raises ValueError for a command of this lane without a handler. Of other lanes nothing is known here."""
        if lane == self.lane and command.type not in self._handlers:
            raise ValueError(f"{command.__name__}: {lane} has no handler for {command.type}: declare one")

    def encoded(self, kind: str, done: object, work: IdentityMap) -> bytes:
        """A result of a command of this type, as JSON text. `work` has the rows of its batch. Raises UnfitResult."""
        try:
            result = to_json(done)
        except RecursionError:
            raise UnfitResult(f"{self._returned(kind, done)} with a value within itself, or nested too deep") from None
        except _UNFIT as error:
            raise UnfitResult(f"{self._returned(kind, done)}, which JSON does not hold: {error}") from None
        if len(result) > RESULT_BYTES_MAX:
            much = f"{len(result)} bytes of JSON: at most {RESULT_BYTES_MAX} can be returned"
            raise UnfitResult(f"{self._returned(kind, done)}, which has {much}")
        promise = self._promises.get(kind)
        is_checked = type(done) is self._rows.get(kind) and (work.has(done) or _is_of_kept(done, result, work))
        # It may have what is no number, whatever its annotation says.
        if not is_checked and (kind not in self._flat or b"null" in result):
            self._check_numbers(kind, done, result)
        # Also of rows that others have written: these may be deeper than rows that are written here.
        if kind not in self._flat and is_too_deep(result):
            raise UnfitResult(f"{self._returned(kind, done)} that is nested deeper than {NESTING_MAX} levels")
        if promise is not None and not is_checked:
            self._check_promise(promise, kind, done, result)
        if not is_checked and kind in self._with_rows and not work.has(done):
            unsaved = unsaved_row(done, work)
            if unsaved is not None:
                raise UnfitResult(f"{self._name(kind)} returned {unsaved}")
        return result

    def _check_promise(self, promise: msgspec.json.Decoder[Any], kind: str, done: object, result: bytes) -> None:
        try:
            read = promise.decode(result)
        except _UNFIT as error:
            raise self._broken(promise, kind, done, f": {error}") from None
        # One with other fields may be readable too, and its reader would get defaults that nobody has set.
        if type(read) is not type(done) and isinstance(read, Struct) and not isinstance(done, type(read)):
            raise self._broken(promise, kind, done, "")

    def _check_numbers(self, kind: str, done: object, result: bytes) -> None:
        if may_lack_numbers(result) and (wrong := not_finite(done)) is not None:
            raise UnfitResult(f"{self._returned(kind, done)} with {wrong} in it, and JSON has no such number")

    def _broken(self, promise: msgspec.json.Decoder[Any], kind: str, done: object, why: str) -> UnfitResult:
        of = promise.type
        name = "None" if of is type(None) else of.__name__ if isinstance(of, type) else str(of)
        return UnfitResult(f"{self._returned(kind, done)} where its annotation promises {name}{why}")

    def _returned(self, kind: str, done: object) -> str:
        return f"{self._name(kind)} returned {'None' if done is None else f'a {type(done).__name__}'}"

    def _name(self, kind: str) -> str:
        """The function that returns this type's results, and where it is."""
        handler = self._handlers.get(kind)
        return kind if handler is None else shown_function(handler.handle)


def _is_of_kept(done: object, result: bytes, work: IdentityMap) -> bool:
    """Whether a copy that a handler got has the text of the row that the batch has: nothing in it was changed."""
    kept = work.copied_from(done)
    # Most texts are as msgspec writes them.
    return kept is not None and (msgspec.json.encode(kept) == result or to_json(kept) == result)
