"""The keys of a person's rows in the audit: where a key is personal, an entry names the row no longer."""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.personal import personal_fields
from coordinator.service.rows import Key, Row, key_columns
from coordinator.stores.audit_tables import RowChange
from coordinator.stores.key_texts import key_text

CHANGES_AT_ONCE: Final = 100
MARK: Final = "*"
"""Stands in no key's text: in a path it is %2A."""


class ForgottenKeys:
    """Takes the keys of rows out of the audit, where a field of the key is marked as personal."""

    def __init__(self, personal: Iterable[type[Row]]) -> None:
        self._models = {
            model.table: model
            for model in personal
            if model.__audited__ and not set(key_columns(model)).isdisjoint(personal_fields(model))
        }

    def digest_of(self, model: type[Row], key: Key) -> str:
        """By what the entries of a person's own row are known; empty: none has his key, or it is not personal."""
        return _digest(model.table, key_text(key)) if model.table in self._models else ""

    def take_out(self, work: BatchWork, sequence: int, person: str, order: str) -> None:
        """Take out the key of this person's row, and those of rows that belong to somebody, from one command's entries.

        All of one order get the same text, so that the changes of a row are still told together.
        """
        if not self._models:
            return
        after: Key = (sequence, 0)
        while True:
            page = work.page(RowChange, CHANGES_AT_ONCE, after)
            its = [row for row in page if row.sequence == sequence]
            for change in its:
                model = self._models.get(change.row_table)
                if model is None or change.row_key.startswith(MARK):
                    continue
                belongs = model.personal_of is not Row.personal_of
                if belongs or _digest(change.row_table, change.row_key) == person:
                    work.replace(msgspec.structs.replace(change, row_key=f"{MARK}{order}"))
            if len(its) < CHANGES_AT_ONCE:
                return
            after = (page[-1].sequence, page[-1].place)


def _digest(table: str, text: str) -> str:
    return hashlib.blake2b(f"{table}/{text}".encode(), digest_size=16).hexdigest()
