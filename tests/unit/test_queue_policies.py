"""What an operator is told of policies by which a lane's queues would lose something."""

from typing import Any

import pytest

from coordinator.operate.queue_policies import harms_of
from coordinator.service.errors import ConfigurationError


def told(name: str, **definition: int) -> dict[str, Any]:
    return {"name": name, "policy": "all", "operator_policy": None, "effective_policy_definition": definition}


@pytest.mark.parametrize(
    ("queue", "key"),
    [
        ("writes.seats", "expires"),
        ("writes.seats", "message-ttl"),
        ("writes.seats", "delivery-limit"),
        ("writes.seats.mark", "expires"),
        ("writes.seats.dead", "max-length-bytes"),
        ("effects.seats", "message-ttl"),
        ("effects.seats.retry.10m", "message-ttl"),
        ("effects.seats.dead", "max-length"),
    ],
)
def test_what_takes_messages_out_is_said(queue: str, key: str) -> None:
    assert harms_of([told(queue, **{key: 5})], "seats") == [f"{queue} has {key} 5 by the policy all"]


def test_limits_of_queues_that_refuse_and_policies_of_others_are_no_harm() -> None:
    queues = [told("writes.seats", **{"max-length": 5}), told("writes.orders", expires=5), told("replies.x", expires=5)]
    assert harms_of(queues, "seats") == []


def test_a_queue_without_a_policy_has_none() -> None:
    assert harms_of([{"name": "writes.seats", "effective_policy_definition": []}], "seats") == []


def test_an_operator_policy_is_named_too() -> None:
    queue = told("writes.seats", expires=5) | {"operator_policy": "ours"}
    assert harms_of([queue], "seats") == ["writes.seats has expires 5 by the policy all and ours"]


def test_what_no_management_says_is_an_error_in_words() -> None:
    with pytest.raises(ConfigurationError, match="no management"):
        harms_of([{}], "seats")
