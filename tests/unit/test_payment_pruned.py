"""A command that is applied again, since `log prune` took its entry: what it causes is not taken for what it caused."""

import itertools
from datetime import timedelta

from msgspec import structs

from coordinator.effects.attempts import EffectResult
from coordinator.lane.delivery import Delivery
from coordinator.lane.outbox import message_of
from coordinator.stores.lane_tables import LogEntry, OutboxEntry
from shared.payments.commands import CapturePayment, RefundPayment, ResolvePayment
from shared.payments.results import CaptureResult, RefundResult
from tests.support.lane_contract import delivery
from tests.support.payment_lane import PaymentLane

_tags = itertools.count(10**6)


def asked(lane: PaymentLane, number: int, amount: int) -> OutboxEntry:
    """The effect that a refund emits."""
    (entry,) = lane.lane.settle(delivery(number, RefundPayment(id=1, amount=amount))).emitted
    return entry


def result(lane: PaymentLane, effect: OutboxEntry, refund_id: int, provider_id: str, total: int) -> str:
    """What becomes of its result, as the effect worker says it."""
    result = RefundResult(id=1, refund_id=refund_id, verdict="refunded", provider_id=provider_id, total=total)
    return bring(lane, effect, EffectResult(command=result, is_fact=True))


def bring(lane: PaymentLane, effect: OutboxEntry, result: EffectResult) -> str:
    result_id = result.command_id(message_of(effect), int(effect.created_at.timestamp()))
    (message,) = delivery(None, result.command).commands
    named = structs.replace(message, command_id=result_id)
    (outcome,) = lane.lane.outcomes(Delivery(tag=next(_tags), commands=(named,)))
    return outcome.status if outcome.error is None else outcome.error.code


def test_a_refund_that_is_applied_again_is_told_of_its_own_money() -> None:
    lane = PaymentLane()
    lane.captured()
    first = asked(lane, 70, 30)
    assert result(lane, first, 1, "re_1", 30) == "applied"
    (forgotten,) = (entry for entry in lane.lane.log() if entry.type == RefundPayment.type)
    del lane.database.tables[LogEntry][forgotten.command_id]
    second = asked(lane, 70, 30)
    assert second.command_id != first.command_id, "the provider would know it"
    assert result(lane, second, 2, "re_2", 60) == "applied"
    assert [(refund.status, refund.provider_id) for refund in lane.refunds] == [
        ("succeeded", "re_1"),
        ("succeeded", "re_2"),
    ]
    assert (lane.payment.refunded, lane.payment.pending_action) == (60, None)


def test_a_capture_that_is_asked_again_in_the_same_words_is_told_of_its_own_answer() -> None:
    lane = PaymentLane()
    lane.authorized()
    lost = EffectResult(
        command=CaptureResult(id=1, verdict="answer_lost", code="x", message="no answer"), is_fact=False
    )
    for _ in range(2):
        (effect,) = lane.lane.settle(delivery(71, CapturePayment(id=1))).emitted
        assert bring(lane, effect, lost) == "applied"
        assert (lane.payment.status, lane.payment.pending_action) == ("needs_review", None)
        lane.applied(ResolvePayment(id=1, status="authorized", reason="nothing was taken"))
        (forgotten,) = (entry for entry in lane.lane.log() if entry.type == CapturePayment.type)
        del lane.database.tables[LogEntry][forgotten.command_id]
        lane.lane.now += timedelta(days=3)


def test_what_is_asked_again_has_the_id_that_it_had() -> None:
    """As after a restored backup, whose lane applies a command that the others know already."""
    ids = set()
    for _ in range(2):
        lane = PaymentLane()
        lane.captured()
        ids.add(asked(lane, 70, 30).command_id)
    assert len(ids) == 1
