"""The bench of the audit: both services apply the same, and only one keeps what its commands changed."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from coordinator.stores.audit_tables import RowChange
from coordinator.stores.open import open_store
from tests.bench import columns
from tests.bench import service as reference
from tests.bench.audit import NAMES, compare_beside
from tests.bench.columns import WORKLOADS, declared, of_accounts, opened


def test_only_the_audited_one_keeps_its_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH", 20)
    monkeypatch.setattr("tests.bench.audit.BATCH", 20)
    monkeypatch.setattr(reference, "ACCOUNTS", 1000)
    services = [declared(f"bench{name}", audited=name == "audited") for name in NAMES]
    with ExitStack() as stack:
        subjects = [opened(stack, tmp_path, service.name, of_accounts(service, WORKLOADS[0])) for service in services]
        assert compare_beside(None, subjects, turns=2, batches=1) == [[0.0, 0.0], [0.0, 0.0]]
        assert [len(subject.costs_us) for subject in subjects] == [2, 2]
        kept = []
        for service in services:
            store = open_store(f"sqlite:///{tmp_path}/{service.name}.sqlite", service)
            stack.callback(store.close)
            transaction = store.begin()
            kept.append(len(transaction.scan(RowChange, 1000)))
            transaction.rollback()
    # Each of three turns was twenty commands.
    assert kept == [0, 60]
