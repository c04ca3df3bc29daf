"""The bench of columns: that it measures lanes which apply what they are given, and says when a figure is missed."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coordinator.stores.open import open_store
from tests.bench import columns
from tests.bench import service as reference
from tests.bench.columns import VALUES, WORKLOADS, Subject, compare, declared, of_accounts, of_columns, opened, shown


def test_lanes_take_turns_and_apply_their_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH", 20)
    monkeypatch.setattr(reference, "ACCOUNTS", 1000)
    with ExitStack() as stack:
        made = [of_columns("mixed", [*VALUES]), of_accounts(declared("declared"), WORKLOADS[0])]
        subjects = [opened(stack, tmp_path, title, each) for title, each in zip(("wide", "hot"), made, strict=True)]
        compare(subjects, turns=2, batches=1)
        assert [len(subject.costs_us) for subject in subjects] == [2, 2]
        assert all(cost > 0 for subject in subjects for cost in subject.costs_us)
        model: Any = made[0][0].models[0]
        store = open_store(f"sqlite:///{tmp_path}/wide.sqlite", made[0][0])
        stack.callback(store.close)
        transaction = store.begin()
        rows = [row for row in transaction.scan(model, 100) if row.version > 1]
        transaction.rollback()
        # Each of three turns was another twenty rows.
        assert len(rows) == 60
        values = {type(getattr(rows[0], name)).__name__ for name in model.__struct_fields__}
        assert values == {"Decimal", "datetime", "UUID", "dict", "Mood", "str", "bytes", "bool", "int", "date"}


def test_a_lane_that_does_not_apply_its_commands_is_not_measured(tmp_path: Path) -> None:
    service, _, sent = of_columns("ints", ["int"])
    with ExitStack() as stack:
        subject = opened(stack, tmp_path, "empty", (service, [], sent))
        with pytest.raises(RuntimeError, match="empty: not all commands were applied"):
            subject.turn(1)


def test_a_figure_that_is_missed_is_said_to_be() -> None:
    def subject(title: str, *costs: float) -> Subject:
        nothing: Any = None
        return Subject(title, nothing, iter(()), iter(()), list(costs))

    base = subject("base", 10.0, 11.0, 9.0)
    twice = shown(subject("twice", 20.0, 19.0, 30.0), base, 2.0)
    assert twice.endswith("20.0 µs (19.0 … 30.0), 2.00 of base; at most 2.00: met")
    assert shown(subject("more", 21.0), base, 2.0).endswith("2.10 of base; at most 2.00: MISSED")
