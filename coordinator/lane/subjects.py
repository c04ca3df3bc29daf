"""Whose personal data settled commands have left: the index by which it is found when it is to be forgotten.

The index has digests, and neither names nor values. A lane without personal rows, and without an `of`, writes nothing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from coordinator.lane.authors import abandon, reference
from coordinator.lane.forgotten_keys import ForgottenKeys
from coordinator.lane.request import Request
from coordinator.lane.row_texts import row_text
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.personal import is_personal
from coordinator.service.rows import Key, Ref, Row
from coordinator.service.service import Service
from coordinator.stores.personal_tables import PersonalEntry
from coordinator.stores.row_checks import InvalidRow

DIGEST_BYTES: Final = 12
REMEMBERED_MAX: Final = 10_000
"""Of how many rows the digest is remembered: many commands are about the same ones."""
REMEMBERED_CHARACTERS_MAX: Final = 255
"""Of a text in what names such a row, as wide as a key is that says no width. Whoever sends a command chooses it: what
is longer is kept no longer than the command."""
SUBJECTS_MAX: Final = 100
"""Of how many persons one command may have data."""


class Subjects:
    """The personal rows of one service, and whose data its commands have."""

    def __init__(self, service: Service) -> None:
        self.models = {model.table: model for model in service.models}
        """All classes of rows, by table."""
        self._personal = tuple(model for model in service.models if is_personal(model))
        self.keys = ForgottenKeys(self._personal)
        self.are_any = bool(self._personal) or any(handler.of is not None for handler in service.handlers)
        """Whether any command may leave personal data."""

    def named_by(self, request: Request) -> list[Ref[Row]]:
        """Those that a command names. Raises an error of any kind, of the author's function."""
        handler, command = request.handler, request.command
        if handler is None or command is None:
            return []
        if handler.of is None:
            target = None if handler.target is None else reference(handler.target(command))
            return [target] if target is not None and target.model in self._personal else []
        given = handler.of(command)
        if isinstance(given, Ref):
            return [given]
        try:
            refs = [reference(each) for each in islice(given, SUBJECTS_MAX + 1)]
        except TypeError as error:
            abandon(given)
            raise TypeError(f"`of` returns a reference, or a list of them: {error}") from None
        if len(refs) > SUBJECTS_MAX:
            raise ValueError(f"`of` names more than {SUBJECTS_MAX} rows")
        return refs

    def changed_by(self, work: BatchWork) -> list[Ref[Row]]:
        """Those whose rows the command has changed. Raises an error of any kind, of the author's `personal_of`."""
        found: list[Ref[Row]] = []
        for model, key, before, now in work.changed(self._personal):
            if model.personal_of is Row.personal_of:
                found.append(Ref(model, model.key, key))
            else:
                found += [reference(row.personal_of()) for row in (before, now) if row is not None]
        return found

    def digests_of(self, work: BatchWork, refs: Iterable[Ref[Row]]) -> tuple[str, ...]:
        """Their digests: by the key where there is a row, and else by what names it. Raises StoreError.

        Of a row that belongs to somebody, his, too: an error may quote what the row says of him.
        """
        found: dict[str, None] = {}
        for ref in refs:
            row, is_by_key = None, ref.column == ref.model.key
            belongs = ref.model.personal_of is not Row.personal_of
            if (belongs or not is_by_key) and self.models.get(ref.model.table) is ref.model:
                row = _row(work, ref)
            if row is None or is_by_key:
                found[digest_of(ref)] = None
            if row is not None:
                found[digest_of(reference(row.personal_of()))] = None
        return tuple(found)

    def of_unapplied(self, work: BatchWork, request: Request) -> tuple[str, ...]:
        """Whose data is in the error or the dead letter of a command that was not applied. Raises StoreError."""
        try:
            return self.digests_of(work, self.named_by(request))
        except BaseException as error:
            if error is work.interruption:
                raise
            # Of a function of the service's author: the command has failed for it, or was never tried.
            return ()


def digest_of(ref: Ref[Row]) -> str:
    """The digest of one person, as the index has it."""
    parts = ref.value if isinstance(ref.value, tuple) else (ref.value,)
    is_long = any(isinstance(part, str) and len(part) > REMEMBERED_CHARACTERS_MAX for part in parts)
    return (_digest if is_long else _remembered_digest)(ref.model, ref.column, ref.value)


def _digest(model: type[Row], column: str | tuple[str, ...], value: Key) -> str:
    return hashlib.blake2b(row_text(Ref(model, column, value)).encode(), digest_size=DIGEST_BYTES).hexdigest()


# Typed, since True is equal to 1. Within a tuple both give one text, as `row_text` does not tell them apart.
_remembered_digest = lru_cache(maxsize=REMEMBERED_MAX, typed=True)(_digest)


def entries_of(digests: Iterable[str], sequence: int, command_id: str, emitted: Sequence[str]) -> list[PersonalEntry]:
    """The rows of the index for one settled command, and for what it has emitted with personal data."""
    entries: list[PersonalEntry] = []
    for digest in digests:
        head = f"{digest}:{sequence:019d}"
        entries.append(PersonalEntry(id=head, sequence=sequence, command_id=command_id))
        entries += [
            PersonalEntry(id=f"{head}:{place}", sequence=sequence, command_id=each)
            for place, each in enumerate(emitted, 1)
        ]
    return entries


def is_of_emitted(entry: PersonalEntry) -> bool:
    """Whether it is for what a command has emitted, and not for the command itself."""
    return entry.id.count(":") > 1


def _row(work: BatchWork, ref: Ref[Row]) -> Row | None:
    try:
        return work.find(ref.model, ref.column, ref.value)
    except InvalidRow:
        # No row has such a value.
        return None
