"""The provider port through Stripe's own client, against the sandbox as a process: nobody is charged twice."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import stripe

from coordinator.service.outside_calls import EffectRetry
from shared.payments.provider import Authorized, Captured, Declined, Refunded, Refused, Voided
from shared.payments.stripe_provider import StripeProvider
from tests.support.sandbox import RunningSandbox

ATTEMPTS_MAX = 20

_Decided = TypeVar("_Decided")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    running = RunningSandbox(tmp_path_factory.mktemp("sandbox"))
    yield running
    running.stop()


@pytest.fixture
def sandbox(running: RunningSandbox) -> RunningSandbox:
    """Without the faults of the test before."""
    running.set_faults()
    return running


@pytest.fixture
async def provider(sandbox: RunningSandbox) -> AsyncIterator[StripeProvider]:
    provider = sandbox.provider()
    yield provider
    await provider.close()


def new_key() -> str:
    return str(uuid.uuid4())


async def authorize(
    provider: StripeProvider,
    payment_method: str = "pm_card_visa",
    key: str | None = None,
    amount: int = 1099,
    currency: str = "EUR",
    payment_id: int = 1,
    asked_s_ago: float = 0.0,
    is_repeated: bool = False,
) -> Authorized | Declined | Refused:
    return await provider.authorize(
        asked_at=datetime.now(UTC) - timedelta(seconds=asked_s_ago),
        is_repeated=is_repeated,
        payment_id=payment_id,
        amount=amount,
        currency=currency,
        payment_method=payment_method,
        key=key or new_key(),
    )


async def hold(provider: StripeProvider, payment_method: str = "pm_card_visa", **asked: Any) -> Authorized:
    """Of an authorization that is granted."""
    held = await authorize(provider, payment_method, **asked)
    assert isinstance(held, Authorized)
    return held


async def capture(
    provider: StripeProvider,
    held: Authorized,
    amount: int = 1099,
    currency: str = "EUR",
    key: str | None = None,
    payment_id: int = 1,
) -> Captured | Refused:
    return await provider.capture(
        payment_id=payment_id, provider_id=held.provider_id, amount=amount, currency=currency, key=key or new_key()
    )


async def void(
    provider: StripeProvider, held: Authorized, key: str | None = None, payment_id: int = 1
) -> Voided | Captured | Refused:
    return await provider.void(payment_id=payment_id, provider_id=held.provider_id, key=key or new_key())


async def refund(
    provider: StripeProvider,
    held: Authorized,
    amount: int = 1099,
    currency: str = "EUR",
    key: str | None = None,
    payment_id: int = 1,
    refund_id: int = 1,
    asked_s_ago: float = 0.0,
    is_repeated: bool | None = None,
) -> Refunded | Refused:
    return await provider.refund(
        payment_id=payment_id,
        refund_id=refund_id,
        provider_id=held.provider_id,
        amount=amount,
        currency=currency,
        key=key or new_key(),
        asked_at=datetime.now(UTC) - timedelta(seconds=asked_s_ago),
        is_repeated=key is not None if is_repeated is None else is_repeated,
    )


async def give_back(provider: StripeProvider, held: Authorized, amount: int = 1099, **asked: Any) -> Refunded:
    """Of a refund that is made."""
    given_back = await refund(provider, held, amount, **asked)
    assert isinstance(given_back, Refunded)
    return given_back


def refusal_of(answer: object) -> Refused:
    assert isinstance(answer, Refused)
    return answer


def charge(sandbox: RunningSandbox, held: Authorized) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [line for line in sandbox.charges() if line["payment_intent"] == held.provider_id]
    return found


def money(sandbox: RunningSandbox, held: Authorized) -> tuple[int, int, int, int]:
    line = charge(sandbox, held)
    return line["authorized"], line["captured"], line["voided"], line["refunded"]


async def repeated(call: Callable[[], Awaitable[_Decided]]) -> _Decided:
    """What a worker does: the same call with the same key, until the provider decides."""
    for _ in range(ATTEMPTS_MAX):
        try:
            return await call()
        except EffectRetry as retry:
            last = retry
    raise AssertionError(f"{ATTEMPTS_MAX} attempts decided nothing: {last}")


CHANGED = {"capture": (1099, 1099, 0, 0), "void": (1099, 0, 1099, 0), "refund": (1099, 1099, 0, 500)}
"""What a held payment's money is after each kind of call."""


async def prepared(
    provider: StripeProvider, action: str, held: Authorized
) -> Callable[[], Awaitable[Captured | Voided | Refunded | Refused]]:
    """A call that changes a held payment, with a key of its own."""
    key = new_key()
    if action == "refund":
        await capture(provider, held)
    return {
        "capture": lambda: capture(provider, held, key=key),
        "void": lambda: void(provider, held, key),
        "refund": lambda: refund(provider, held, amount=500, key=key),
    }[action]


async def test_an_amount_is_held_taken_and_given_back(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    held = await hold(provider, payment_id=4711)
    assert money(sandbox, held) == (1099, 0, 0, 0)
    assert await capture(provider, held, payment_id=4711) == Captured(amount=1099)
    assert isinstance(await refund(provider, held, payment_id=4711), Refunded)
    assert money(sandbox, held) == (1099, 1099, 0, 1099)
    assert charge(sandbox, held)["payment_id"] == "4711"


async def test_a_hold_is_let_go(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    held = await hold(provider)
    assert await void(provider, held) == Voided()
    assert money(sandbox, held) == (1099, 0, 1099, 0)


@pytest.mark.parametrize(
    ("currency", "amount", "at_stripe"), [("JPY", 500, 500), ("ISK", 5, 500), ("KWD", 5120, 5120), ("MGA", 500, 5)]
)
async def test_currencies_without_two_decimals_cross_and_come_back(
    sandbox: RunningSandbox, provider: StripeProvider, currency: str, amount: int, at_stripe: int
) -> None:
    held = await hold(provider, amount=amount, currency=currency)
    assert await capture(provider, held, amount, currency) == Captured(amount=amount)
    given_back = await give_back(provider, held, amount, currency=currency)
    assert given_back.amount == amount
    assert money(sandbox, held) == (at_stripe, at_stripe, 0, at_stripe)


async def test_what_stripe_cannot_take_is_refused_before_the_call(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    before = len(sandbox.charges())
    refused = await authorize(provider, amount=5124, currency="KWD")
    assert isinstance(refused, Refused)
    assert refused.code == "amount_not_representable"
    assert len(sandbox.charges()) == before


@pytest.mark.parametrize(
    ("payment_method", "code"),
    [
        ("pm_card_visa_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
        ("pm_card_authenticationRequired", "authentication_required"),
    ],
)
async def test_a_decline_is_a_result_and_the_same_when_asked_again(
    sandbox: RunningSandbox, provider: StripeProvider, payment_method: str, code: str
) -> None:
    key = new_key()
    declined = await authorize(provider, payment_method, key=key, payment_id=1)
    assert isinstance(declined, Declined)
    assert declined.code == code
    before = len(sandbox.charges())
    assert await authorize(provider, payment_method, key=key, payment_id=1) == declined
    assert len(sandbox.charges()) == before


async def test_an_unknown_payment_method_is_refused(provider: StripeProvider) -> None:
    refused = await authorize(provider, "pm_nobody")
    assert isinstance(refused, Refused)
    assert (refused.code, refused.status) == ("resource_missing", None)
    assert "pm_nobody" in refused.message


async def test_the_same_key_charges_once(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    key = new_key()
    first = await hold(provider, key=key, payment_id=2)
    before = len(sandbox.charges())
    assert await authorize(provider, key=key, payment_id=2) == first
    assert len(sandbox.charges()) == before


async def test_the_same_key_with_another_amount_decides_nothing(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    key = new_key()
    held = await hold(provider, key=key, payment_id=3)
    with pytest.raises(EffectRetry, match="bears the key") as retry:
        await authorize(provider, key=key, payment_id=3, amount=1100)
    assert retry.value.may_have_happened
    assert money(sandbox, held) == (1099, 0, 0, 0)


async def test_the_same_key_with_other_parameters_is_the_call_that_was_made(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    """As when a worker of another release goes on."""
    key = new_key()
    held = await hold(provider, key=key, payment_id=3)
    before = len(sandbox.charges())
    assert await authorize(provider, "pm_card_mastercard", key=key, payment_id=3) == held
    assert len(sandbox.charges()) == before


async def test_a_key_that_is_under_way_is_to_be_tried_again_and_may_have_charged(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    sandbox.set_faults(delay_s=600)
    key = new_key()
    before = len(sandbox.charges(status="requires_capture"))
    first = asyncio.create_task(authorize(provider, "pm_sandbox_delay", key=key, payment_id=5))
    await asyncio.to_thread(sandbox.charges, at_least=before + 1, status="requires_capture")
    with pytest.raises(EffectRetry, match="idempotency_key_in_use") as retry:
        await authorize(provider, "pm_sandbox_delay", key=key, payment_id=5)
    assert retry.value.may_have_happened
    first.cancel()
    await asyncio.wait([first])


@pytest.mark.parametrize(
    ("fault", "may_have_happened", "shown"),
    [
        ("429", False, "429"),
        ("500_before", True, "500"),
        ("500_after", True, "500"),
        ("lost_request", True, "cannot be reached"),
        ("lost_answer", True, "cannot be reached"),
    ],
)
async def test_a_failed_authorization_that_is_repeated_charges_once(
    sandbox: RunningSandbox, provider: StripeProvider, fault: str, may_have_happened: bool, shown: str
) -> None:
    key = new_key()

    async def call() -> Authorized:
        return await hold(provider, f"pm_sandbox_{fault}", key=key, payment_id=6)

    before = len(sandbox.charges())
    with pytest.raises(EffectRetry, match=shown) as retry:
        await call()
    assert retry.value.may_have_happened is may_have_happened
    assert retry.value.after_s == (1.0 if fault == "429" else None)
    held = await repeated(call)
    assert len(sandbox.charges()) == before + 1
    assert money(sandbox, held) == (1099, 0, 0, 0)


async def test_many_failures_in_a_row_charge_once(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    key = new_key()
    before = len(sandbox.charges())
    for _ in range(5):
        with pytest.raises(EffectRetry):
            await authorize(provider, "pm_sandbox_lost_answer_5", key=key, payment_id=7)
    held = await hold(provider, "pm_sandbox_lost_answer_5", key=key, payment_id=7)
    assert len(sandbox.charges()) == before + 1
    assert money(sandbox, held) == (1099, 0, 0, 0)


async def test_an_authorization_whose_key_is_spent_with_nothing_made_stays_undecided(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    key = new_key()
    before = len(sandbox.charges())
    for _ in range(3):
        with pytest.raises(EffectRetry) as retry:
            await authorize(provider, "pm_sandbox_500_kept", key=key, payment_id=8)
        assert retry.value.may_have_happened
    assert len(sandbox.charges()) == before


async def test_an_authorization_whose_key_is_spent_with_nothing_made_is_made_with_another_after_a_while(
    sandbox: RunningSandbox,
) -> None:
    hurried = sandbox.provider(spent_key_s=60)
    key = new_key()
    before = len(sandbox.charges())
    sandbox.set_faults(search_lag_s=3600)
    try:
        for _ in range(2):
            with pytest.raises(EffectRetry):
                await authorize(hurried, "pm_sandbox_500_kept", key=key, payment_id=8, asked_s_ago=50)
        held = await repeated(
            lambda: hold(hurried, "pm_sandbox_500_kept", key=key, payment_id=8, asked_s_ago=61, is_repeated=True)
        )
    finally:
        await hurried.close()
    assert len(sandbox.charges()) == before + 1
    assert money(sandbox, held) == (1099, 0, 0, 0)


@pytest.mark.parametrize("how", [{"is_repeated": True}, {"asked_s_ago": 2 * 86_400}])
async def test_an_authorization_that_may_have_been_made_is_looked_for_first(
    sandbox: RunningSandbox, provider: StripeProvider, how: dict[str, Any]
) -> None:
    """Though Stripe has forgotten the key, and its search does not know of it yet."""
    key = new_key()
    held = await hold(provider, key=key, payment_id=10)
    sandbox.forget_keys()
    sandbox.set_faults(search_lag_s=3600)
    before = len(sandbox.charges())
    assert await authorize(provider, key=key, payment_id=10, **how) == held
    assert len(sandbox.charges()) == before


@pytest.mark.parametrize("how", [{"is_repeated": True}, {"is_repeated": False, "asked_s_ago": 2 * 86_400}])
async def test_a_refund_that_may_have_been_made_is_looked_for_first(
    sandbox: RunningSandbox, provider: StripeProvider, how: dict[str, Any]
) -> None:
    """The outbox of a restored database sends it once more, as if it were new, and Stripe has forgotten the key."""
    held, key = await hold(provider), new_key()
    await capture(provider, held)
    given_back = await give_back(provider, held, 300, key=key)
    sandbox.forget_keys()
    assert await give_back(provider, held, 300, key=key, **how) == given_back
    assert money(sandbox, held)[3] == 300


async def test_what_became_of_a_call_can_be_looked_up(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    sandbox.set_faults(search_lag_s=3600)
    now = datetime.now(UTC)

    async def authorized(key: str) -> Authorized | Declined | Refused | None:
        return await provider.look_up_authorization(payment_id=1, amount=1099, currency="EUR", key=key, asked_at=now)

    async def refunded_with(key: str) -> Refunded | Refused | None:
        return await provider.look_up_refund(payment_id=1, refund_id=1, provider_id=held.provider_id, key=key)

    key = new_key()
    assert await authorized(key) is None
    held = await hold(provider, key=key)
    assert await authorized(key) == held
    assert await provider.look_up_capture(payment_id=1, provider_id=held.provider_id) is None
    assert await provider.look_up_void(payment_id=1, provider_id=held.provider_id) is None
    await capture(provider, held)
    assert await provider.look_up_capture(payment_id=1, provider_id=held.provider_id) == Captured(amount=1099)
    assert await provider.look_up_void(payment_id=1, provider_id=held.provider_id) == Captured(amount=1099)
    keys = [new_key() for _ in range(12)]
    for number, each in enumerate(keys, start=1):
        assert await refunded_with(each) is None
        assert (await give_back(provider, held, number, key=each)).total == sum(range(number + 1))
    sandbox.forget_keys()
    for number, each in enumerate(keys, start=1):
        known = await refunded_with(each)
        assert isinstance(known, Refunded)
        assert known.amount == number
        assert (await give_back(provider, held, number, key=each)).amount == number
    assert money(sandbox, held)[3] == sum(range(1, 13))

    declined, voided = new_key(), await hold(provider)
    await authorize(provider, "pm_card_chargeDeclined", key=declined)
    assert isinstance(await authorized(declined), Declined)
    await void(provider, voided)
    assert await provider.look_up_void(payment_id=1, provider_id=voided.provider_id) == Voided()
    looked_up = await provider.look_up_capture(payment_id=1, provider_id=voided.provider_id)
    assert refusal_of(looked_up).status == "canceled"
    assert isinstance(await provider.look_up_capture(payment_id=1, provider_id="pi_nobody"), Refused)


async def test_what_was_made_with_the_same_key_for_another_payment_is_not_ours(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    """The log forgot the command, and somebody sent it again: it is another payment, with an effect of the same key."""
    key, asked_at = new_key(), datetime.now(UTC)
    hurried = sandbox.provider(spent_key_s=0)
    first = await hold(provider, key=key, payment_id=21)

    async def known(payment_id: int) -> Authorized | Declined | Refused | None:
        return await provider.look_up_authorization(
            payment_id=payment_id, amount=1099, currency="EUR", key=key, asked_at=asked_at
        )

    try:
        assert await known(22) is None
        with pytest.raises(EffectRetry) as retry:  # Stripe remembers the key for the first
            await authorize(provider, key=key, payment_id=22)
        assert retry.value.may_have_happened
        second = await hold(hurried, key=key, payment_id=22, is_repeated=True)
    finally:
        await hurried.close()
    assert isinstance(second, Authorized)
    assert second.provider_id != first.provider_id
    assert charge(sandbox, second)["payment_id"] == "22"
    assert (await known(21), await known(22)) == (first, second)


async def test_what_bears_the_number_of_a_payment_without_our_mark_leaves_it_in_doubt(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    """As what a release made that knew no mark, or who marks with another STRIPE_METADATA_KEY."""
    others = sandbox.provider(metadata_key="another deployment's key")
    key, asked_at = new_key(), datetime.now(UTC)
    try:
        held = await hold(others, key=key, payment_id=23)
        await capture(others, held, payment_id=23)
        await refund(others, held, amount=30, key=f"{key} refund", payment_id=23)
    finally:
        await others.close()
    before = len(sandbox.charges())
    doubtful = [
        authorize(provider, key=key, payment_id=23, is_repeated=True),
        provider.look_up_authorization(payment_id=23, amount=1099, currency="EUR", key=key, asked_at=asked_at),
        refund(provider, held, amount=30, key=f"{key} refund", payment_id=23),
        provider.look_up_refund(payment_id=23, refund_id=1, provider_id=held.provider_id, key=f"{key} refund"),
    ]
    for call in doubtful:
        with pytest.raises(EffectRetry, match="no mark of ours") as retry:
            await call
        assert retry.value.may_have_happened
    assert len(sandbox.charges()) == before
    assert money(sandbox, held) == (1099, 1099, 0, 30)


async def test_a_refund_with_the_key_of_another_one_is_made(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    key = new_key()
    held = await hold(provider)
    await capture(provider, held)
    first = await give_back(provider, held, amount=30, key=key, refund_id=1)

    async def looked_up(refund_id: int) -> Refunded | Refused | None:
        return await provider.look_up_refund(payment_id=1, refund_id=refund_id, provider_id=held.provider_id, key=key)

    assert await looked_up(2) is None
    second = await give_back(provider, held, amount=30, key=key, refund_id=2)
    assert second.refund_id != first.refund_id
    assert (second.amount, second.total) == (30, 60)
    for number, made in ((1, first), (2, second)):
        known = await looked_up(number)
        assert isinstance(known, Refunded)
        assert known.refund_id == made.refund_id
    assert money(sandbox, held) == (1099, 1099, 0, 60)


async def test_what_another_payment_took_or_let_go_is_no_answer_about_ours(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    taken, voided = await hold(provider, payment_id=24), await hold(provider, payment_id=25)
    await capture(provider, taken, payment_id=24)
    await void(provider, voided, payment_id=25)
    for call in (
        capture(provider, taken, payment_id=26),
        void(provider, voided, payment_id=26),
        provider.look_up_capture(payment_id=26, provider_id=taken.provider_id),
        provider.look_up_void(payment_id=26, provider_id=voided.provider_id),
    ):
        with pytest.raises(EffectRetry, match="and not 26") as retry:
            await call
        assert retry.value.may_have_happened
    assert await capture(provider, taken, payment_id=24) == Captured(amount=1099)


async def test_of_many_payments_every_page_is_looked_through(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    sandbox.set_faults(search_lag_s=3600)
    now, key = datetime.now(UTC), new_key()
    held = await hold(provider, key=key)
    await asyncio.gather(*(authorize(provider) for _ in range(110)))
    assert (
        await provider.look_up_authorization(payment_id=1, amount=1099, currency="EUR", key=key, asked_at=now) == held
    )


@pytest.mark.parametrize("fault", ["429", "500_before", "500_kept", "500_after", "lost_request", "lost_answer"])
@pytest.mark.parametrize("action", ["capture", "void", "refund"])
async def test_a_failed_call_that_is_repeated_has_its_effect_once(
    sandbox: RunningSandbox, provider: StripeProvider, action: str, fault: str
) -> None:
    held = await hold(provider, f"pm_sandbox_{action}_{fault}")
    call = await prepared(provider, action, held)
    with pytest.raises(EffectRetry):
        await call()
    done = await repeated(call)
    assert isinstance(done, Captured | Voided | Refunded)
    assert (await call()) == done
    assert money(sandbox, held) == CHANGED[action]


@pytest.mark.parametrize("fault", ["500_kept", "500_after"])
@pytest.mark.parametrize("action", ["capture", "void", "refund"])
async def test_a_call_whose_keys_are_spent_one_after_another_has_its_effect_once(
    sandbox: RunningSandbox, provider: StripeProvider, action: str, fault: str
) -> None:
    held = await hold(provider, f"pm_sandbox_{action}_{fault}_6")
    call = await prepared(provider, action, held)
    done = await repeated(call)
    assert isinstance(done, Captured | Voided | Refunded)
    assert money(sandbox, held) == CHANGED[action]


async def test_what_was_done_with_a_forgotten_key_is_reported_as_done(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    held, other = await hold(provider), await hold(provider)
    first = None
    for _ in range(2):
        assert await capture(provider, held, amount=1000, key="forgotten-1") == Captured(amount=1000)
        given_back = await give_back(provider, held, amount=400, key="forgotten-2")
        assert first in {None, given_back}
        first = given_back
        assert await void(provider, other, "forgotten-3") == Voided()
        sandbox.forget_keys()
    assert money(sandbox, held) == (1099, 1000, 0, 400)
    assert money(sandbox, other) == (1099, 0, 1099, 0)


async def test_a_capture_reports_what_was_taken_and_not_what_was_asked(provider: StripeProvider) -> None:
    held = await hold(provider)
    await capture(provider, held, amount=1000)
    assert await capture(provider, held, amount=1099) == Captured(amount=1000)


async def test_what_the_state_forbids_is_refused_with_the_state(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    taken = await hold(provider)
    await capture(provider, taken)
    assert await void(provider, taken) == Captured(amount=1099)
    voided = await hold(provider)
    sandbox.expire(voided.provider_id)
    refused = refusal_of(await capture(provider, voided))
    assert (refused.code, refused.status) == ("payment_intent_unexpected_state", "canceled")
    refused = refusal_of(await refund(provider, voided))
    assert refused.code == "payment_intent_unexpected_state"
    assert money(sandbox, voided) == (1099, 0, 1099, 0)


async def test_more_than_was_held_or_taken_is_refused(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    held = await hold(provider)
    assert refusal_of(await capture(provider, held, amount=1100)).code == "amount_too_large"
    await capture(provider, held)
    assert refusal_of(await refund(provider, held, amount=1100)).code == "amount_too_large"
    whole = await refund(provider, held)
    assert await refund(provider, held) == whole
    assert money(sandbox, held) == (1099, 1099, 0, 1099)


async def test_what_others_gave_back_is_no_refund_of_ours_unless_it_is_of_its_amount(provider: StripeProvider) -> None:
    held = await hold(provider)
    await capture(provider, held, amount=30)
    for _ in range(3):
        by_hand = await give_back(provider, held, amount=10)
    assert await refund(provider, held, amount=30) == Refunded(refund_id=None, amount=30, total=30)
    assert await refund(provider, held, amount=10) == Refunded(refund_id=by_hand.refund_id, amount=10, total=30)
    # These say that they are refund 1.
    assert await refund(provider, held, amount=10, refund_id=2) == Refunded(refund_id=None, amount=10, total=30)


async def test_an_unknown_payment_is_refused(provider: StripeProvider) -> None:
    nobody = Authorized(provider_id="pi_nobody")
    for refused in (await capture(provider, nobody), await refund(provider, nobody)):
        assert isinstance(refused, Refused)
        assert refused.code == "resource_missing"


async def test_a_wrong_key_waits_for_the_operator(sandbox: RunningSandbox) -> None:
    provider = sandbox.provider(api_key="sk_test_wrong")
    try:
        with pytest.raises(EffectRetry, match="check STRIPE_API_KEY") as retry:
            await authorize(provider)
        assert not retry.value.may_have_happened
        assert "sk_test_wrong" not in str(retry.value)
    finally:
        await provider.close()


async def test_nothing_listens_so_nothing_happened(sandbox: RunningSandbox) -> None:
    provider = sandbox.provider(api_base="http://127.0.0.1:9")
    try:
        with pytest.raises(EffectRetry, match="cannot be reached") as retry:
            await authorize(provider)
        assert not retry.value.may_have_happened
    finally:
        await provider.close()


async def test_no_answer_in_time_may_have_charged(sandbox: RunningSandbox, provider: StripeProvider) -> None:
    sandbox.set_faults(delay_s=600)
    hurried = sandbox.provider(timeout_s=0.5)
    try:
        with pytest.raises(EffectRetry, match="cannot be reached") as retry:
            await authorize(hurried, "pm_sandbox_delay")
        assert retry.value.may_have_happened
    finally:
        await hurried.close()


async def test_under_random_faults_every_payment_ends_charged_once_or_undecided(
    sandbox: RunningSandbox, provider: StripeProvider
) -> None:
    rates = dict.fromkeys(("429", "500_before", "500_after", "lost_request", "lost_answer"), 0.05)
    before = {line["payment_intent"] for line in sandbox.charges()}
    sandbox.set_faults(seed=7, **rates)

    async def pay(number: int) -> None:
        held = await repeated(lambda: hold(provider, key=f"random-{number}", payment_id=number))
        await repeated(lambda: capture(provider, held, key=f"random-{number}-capture", payment_id=number))
        await repeated(lambda: refund(provider, held, amount=99, key=f"random-{number}-refund", payment_id=number))

    await asyncio.gather(*(pay(number) for number in range(1, 31)))
    made = [line for line in sandbox.charges() if line["payment_intent"] not in before]
    assert sorted(int(line["payment_id"]) for line in made) == list(range(1, 31))
    assert {(line["captured"], line["refunded"]) for line in made} == {(1099, 99)}


async def test_killed_between_the_charge_and_its_answer_it_comes_back_with_the_charge(tmp_path: Path) -> None:
    sandbox = RunningSandbox(tmp_path)
    provider = sandbox.provider()
    key = new_key()
    try:
        sandbox.set_faults(delay_s=600)
        call = asyncio.create_task(authorize(provider, "pm_sandbox_delay", key=key, payment_id=9))
        (charged,) = await asyncio.to_thread(sandbox.charges, at_least=1, status="requires_capture")
        sandbox.kill()
        with pytest.raises(EffectRetry) as retry:
            await call
        assert retry.value.may_have_happened
        with pytest.raises(EffectRetry, match="cannot be reached"):
            await authorize(provider, "pm_sandbox_delay", key=key, payment_id=9)
        sandbox.start()
        sandbox.set_faults(delay_s=0)
        held = await hold(provider, "pm_sandbox_delay", key=key, payment_id=9)
        assert sandbox.charges() == [charged]
        assert held.provider_id == charged["payment_intent"]
    finally:
        await provider.close()
        sandbox.kill()


async def test_the_official_client_is_answered_as_by_stripe(sandbox: RunningSandbox) -> None:
    http = stripe.AIOHTTPClient()
    client = stripe.StripeClient("sk_test_sandbox", base_addresses={"api": sandbox.url}, http_client=http)
    try:
        with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
            await client.v1.customers.create_async({"name": "Ada"})
        with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: customer"):
            await client.v1.payment_intents.create_async({"amount": 1, "currency": "eur", "customer": "cus_1"})
        with pytest.raises(stripe.CardError) as declined:
            await client.v1.payment_intents.create_async(
                {
                    "amount": 100,
                    "currency": "eur",
                    "payment_method": "pm_card_chargeDeclinedInsufficientFunds",
                    "capture_method": "manual",
                    "confirm": True,
                }
            )
        assert declined.value.code == "card_declined"
        assert (declined.value.request_id or "").startswith("req_")
        error = declined.value.error
        assert error is not None
        assert error.payment_intent is not None
        assert error.payment_intent.status == "requires_payment_method"
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]  # of Stripe's
