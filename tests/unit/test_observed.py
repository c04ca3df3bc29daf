"""The gauges of a lane, which are set only where they change."""

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from coordinator.lane.delivery import Settlement
from coordinator.service.personal import Personal
from coordinator.service.rows import Row
from coordinator.stores.port import Lease
from coordinator.worker.observed import Observed
from tests.support.trips import Trip

LANE = "gaugelane"


def _shown(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"coordinator_lane_{name}", {"lane": LANE})


@pytest.mark.parametrize("epochs", [(3, 3, 4), (5, 0, 5)], ids=["raised", "lost and renewed"])
def test_the_epoch_and_the_takeovers_are_shown_after_each_change(epochs: tuple[int, ...]) -> None:
    observed, before = Observed(LANE, ()), _shown("takeovers_total") or 0.0
    for takeovers, epoch in enumerate(epochs, 1):
        observed.has_lease(Lease(epoch, 7, 0, None, None, "holder") if epoch else None, takeovers)
        observed.has_lease(Lease(epoch, 8, 0, None, None, "holder") if epoch else None, takeovers)
        assert (_shown("epoch"), _shown("takeovers_total")) == (epoch, before + takeovers)


def test_the_gaps_are_shown_after_each_change_and_by_the_next_one_who_has_the_lane() -> None:
    observed = Observed(LANE, ())
    for gaps in (0, 2, 2, 5):
        observed.settled(Settlement(), gaps, 1)
        assert _shown("publisher_gaps") == gaps
    Observed(LANE, ()).settled(Settlement(), 0, 1)
    assert _shown("publisher_gaps") == 0


class Claim(Row, table="claims", key=("holder", "number"), review=("is_odd", True)):
    holder: Personal[str]
    number: int
    is_odd: bool = False
    reason_code: Personal[str] | None = None


def test_rows_that_need_a_review_are_counted_from_nought_and_named() -> None:
    def reviews() -> list[float | None]:
        tables = ("trips", "claims")
        return [
            REGISTRY.get_sample_value("coordinator_lane_reviews_total", {"lane": LANE, "table": table})
            for table in tables
        ]

    observed = Observed(LANE, (), reviewed=["trips", "claims"])
    assert reviews() == [0, 0], "so that an alert sees the first one"
    trip = Trip(id=17, status="needs_review", reason_code="lost_ticket")
    claim = Claim(holder="ada", number=2, is_odd=True, reason_code="ill")
    with capture_logs() as lines:
        observed.settled(Settlement(reviews=[trip, claim]), 0, 1)
    assert reviews() == [1, 1]
    level = {"log_level": "warning", "event": "row_needs_review", "lane": LANE}
    assert lines == [
        {**level, "table": "trips", "key": "17", "code": "lost_ticket"},
        {**level, "table": "claims", "personal": {"key": "ada/2", "code": "ill"}},
    ]


def test_of_many_rows_that_need_a_review_at_once_the_log_has_some_and_their_number() -> None:
    with capture_logs() as lines:
        rows: list[Row] = [Trip(id=number, status="needs_review") for number in range(13)]
        Observed(LANE, ()).settled(Settlement(reviews=rows), 0, 1)
    assert [line.get("key") for line in lines] == [*map(str, range(10)), None]
    assert (lines[-1]["event"], lines[-1]["rows"]) == ("more_rows_need_review", 3)
