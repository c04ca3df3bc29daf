"""A soak that never fails proves nothing: what grows is named, and what is flat is not."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import insert

from coordinator.lane.control import Marker
from coordinator.stores.lane_tables import LogEntry, metadata
from tests.faults.growth import BOUNDS, Measure, Sample, grown, table_of
from tests.faults.tables import Tables
from tests.faults.vitals import unheard_of
from tests.support.databases import sql_engine


def samples(measure: Measure, *figures: float) -> list[Sample]:
    return [{measure: {"it": figure}, Measure.LOAD: {"machine": 1.0}} for figure in figures]


@pytest.mark.parametrize("measure", [measure for measure, bound in BOUNDS.items() if bound is not None])
def test_a_figure_may_reach_its_bound_and_not_pass_it(measure: Measure) -> None:
    bound = BOUNDS[measure]
    assert bound is not None
    at_most = bound.limit([10, 10])
    assert not [*grown(samples(measure, 10, 10, 10))]
    assert not [*grown(samples(measure, 10, 10, at_most))]
    (said,) = grown(samples(measure, 10, 10, at_most + 1))
    assert said.startswith(f"it: {measure} grew to ")
    assert [line for line in table_of(samples(measure, 10, 10, at_most + 1)) if line.endswith("GREW")]


def test_memory_may_fill_until_the_middle_and_no_longer() -> None:
    assert not [*grown(samples(Measure.MEMORY, 50, 500, 500))]
    assert [*grown(samples(Measure.MEMORY, 50, 100, 150))]


def test_what_only_comes_later_has_grown_from_nothing() -> None:
    later: Sample = {Measure.QUEUES: {"it": 5.0}}
    assert [*grown([{}, later, later])]


def test_a_busier_machine_excuses_nothing() -> None:
    """The system may be what keeps it busy."""
    slower = samples(Measure.LATENCY_P50, 100, 100, 250)
    slower[-1][Measure.LOAD] = {"machine": 4.0}
    assert [*grown(slower)]


def test_what_no_client_issues_waits_for_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/users.db"
    engine = sql_engine(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        for number, type_ in enumerate(["users.create", Marker.type, "users.create", Marker.type, "users.buy"], 1):
            connection.execute(insert(metadata.tables[LogEntry.table]).values(logged(number, type_)))
    engine.dispose()
    tables = Tables(url)
    assert tables.logged() == {"users.create": 2, "users.buy": 1, Marker.type: 2}
    assert unheard_of(tables.logged(), heard=1) == 2
    assert unheard_of(tables.logged(), heard=4) == 0
    tables.close()


def logged(number: int, type_: str) -> dict[str, object]:
    entry = LogEntry(
        command_id=f"{number}",
        sequence=number,
        epoch=1,
        type=type_,
        fingerprint="",
        status="applied",
        result=None,
        error_code=None,
        error_message=None,
        settled_at=datetime.now(UTC),
    )
    return msgspec.structs.asdict(entry)
