"""What a lane's counters say of its commands: by type and outcome, with as many series as the service has types."""

from uuid import uuid4

from prometheus_client import REGISTRY

from coordinator.lane.delivery import Settlement
from coordinator.service.outcome import Outcome, Status
from coordinator.worker.observed import Observed


def settlement(*outcomes: Outcome) -> Settlement:
    return Settlement(outcomes=list(outcomes))


def outcome(command_type: str | None, status: Status, *, replayed: bool = False) -> Outcome:
    return Outcome(command_id=str(uuid4()), type=command_type, status=status, sequence=1, replayed=replayed)


def test_commands_are_counted_by_type_and_outcome_and_repetitions_by_themselves() -> None:
    observed = Observed("counted", {"notes.add", "notes.pin"})
    fresh = [outcome("notes.add", "applied")] * 3 + [outcome("notes.add", "rejected"), outcome("notes.pin", "applied")]
    observed.settled(settlement(*fresh, outcome("notes.add", "applied", replayed=True)), 0, 5)
    observed.settled(settlement(outcome("notes.pin", "applied")), 0, 6)
    # Strangers, and a message without a type.
    strange = [outcome(f"made.up.{number}", "failed") for number in range(100)]
    observed.settled(settlement(*strange, outcome(None, "failed")), 0, 6)
    counted = {
        (sample.labels["type"], sample.labels["status"]): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "coordinator_lane_commands_total" and sample.labels["lane"] == "counted"
    }
    assert counted == {
        ("notes.add", "applied"): 3,
        ("notes.add", "rejected"): 1,
        ("notes.pin", "applied"): 2,
        ("other", "failed"): 101,
    }
    assert REGISTRY.get_sample_value("coordinator_lane_replayed_total", {"lane": "counted"}) == 1
