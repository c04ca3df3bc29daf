"""The gauges of a lane, which are set only where they change."""

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from coordinator.lane.delivery import Settlement
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


def test_flows_that_need_a_review_are_counted_from_nought_and_named() -> None:
    def reviews() -> float | None:
        return REGISTRY.get_sample_value("coordinator_lane_saga_reviews_total", {"lane": LANE, "saga": "trip"})

    observed = Observed(LANE, (), sagas=["trip"])
    assert reviews() == 0, "so that an alert sees the first one"
    with capture_logs() as lines:
        observed.settled(Settlement(reviews=[Trip(id=17, status="needs_review", reason_code="lost_ticket")]), 0, 1)
    assert reviews() == 1
    (line,) = lines
    assert (line["event"], line["saga"], line["id"], line["code"]) == ("saga_needs_review", "trip", 17, "lost_ticket")
