"""Rows as MongoDB's documents."""

from typing import Any

import pytest

from coordinator.stores.mongodb.documents import LEVELS_MAX, document_of
from coordinator.stores.port import BatchFault
from tests.support.store_contract import account


def nested(levels: int, in_what: str) -> Any:
    """So many arrays or documents, each in the one before."""
    value: Any = [] if in_what == "arrays" else {}
    for _ in range(levels - 1):
        value = [value] if in_what == "arrays" else {"a": 1, "b": value}
    return value


@pytest.mark.parametrize("in_what", ["arrays", "documents"])
def test_a_row_has_as_many_levels_as_mongodb_takes(in_what: str) -> None:
    most = nested(LEVELS_MAX - 1, in_what)
    assert document_of(account(1, note=most))["note"] is most
    for levels in (LEVELS_MAX, 5000):
        with pytest.raises(BatchFault, match=r"Account\.note has more levels than the 100"):
            document_of(account(1, note=nested(levels, in_what)))
