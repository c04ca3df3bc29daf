"""The payment provider, as the effect workers see it: hold an amount, take it, let it go, give it back.

Amounts are integers in minor units of the currency (ISO 4217); if a provider counts in other units, its implementation
converts them. Every call takes an idempotency key. Repeated with the same key and arguments it has its effect once; and
a capture, a void or a refund that was made already is reported as made, even when the provider has forgotten the key.

The provider's values are fit to be sent and stored when they leave here: a text is short and any database takes it, an
id is a `ProviderId`, an amount a `Total`.

The provider's decision is a result. EffectRetry is raised if we know of no decision:

    it refused the connection, or our key (401, 403); too many requests (429)    may_have_happened is False
    no answer in time, the connection was lost, a fault of its own (5xx);
    an earlier call with the same key is still under way (409)                   may_have_happened is True

A key may have been used for another payment, if the log has forgotten its command. So an answer is about this payment,
or the call raises EffectRetry.

A `look_up_…` asks for the results of such calls, and changes nothing. None: the provider certainly knows of no call
that had its effect. This rests on reads that show the latest writes, and not on a search that lags. EffectRetry is
raised if it is uncertain.
"""

from datetime import datetime
from typing import Protocol

from msgspec import Struct


class Authorized(Struct, frozen=True, kw_only=True):
    """The amount is held, and not taken. `provider_id` names the payment at the provider from here on."""

    provider_id: str


class Declined(Struct, frozen=True, kw_only=True):
    """The payer's bank, or the provider for its own reasons, does not pay. `code` is the provider's."""

    code: str
    message: str


class Captured(Struct, frozen=True, kw_only=True):
    """The amount that the provider took, even if an earlier call asked for another amount."""

    amount: int


class Voided(Struct, frozen=True):
    """Nothing is held any more, and nothing was taken."""


class Refunded(Struct, frozen=True, kw_only=True):
    """The amount is on its way back to the payer, as the refund of this id; None: by refunds that are not ours.

    `total` is the sum that went back so far, including this: others may give back too, such as in the provider's
    dashboard.
    """

    refund_id: str | None
    amount: int
    total: int


class Refused(Struct, frozen=True, kw_only=True):
    """The provider refuses the call, and will refuse it again; nothing changed.

    `code` is the provider's, or that of a check before the call. If the payment's state forbids the call, such as a
    capture after a void, `status` is the provider's word for that state.
    """

    code: str
    message: str
    status: str | None = None


class PaymentProvider(Protocol):
    """One account at a provider. Its methods may run concurrently, and raise EffectRetry."""

    async def authorize(
        self,
        *,
        payment_id: int,
        amount: int,
        currency: str,
        payment_method: str,
        key: str,
        asked_at: datetime,
        is_repeated: bool,
        traceparent: str | None = None,
    ) -> Authorized | Declined | Refused:
        """Hold an amount. `payment_method` is the provider's token for a card or the like.

        `asked_at`: the first call with this key was not before that. `is_repeated`: there may have been one.
        `traceparent`: the trace to which what the provider tells of the payment is to belong.
        """

    async def capture(
        self, *, payment_id: int, provider_id: str, amount: int, currency: str, key: str
    ) -> Captured | Refused:
        """Take the held amount, or less; the rest is let go."""

    async def void(self, *, payment_id: int, provider_id: str, key: str) -> Voided | Captured | Refused:
        """Let go of the hold. Captured: it was taken before, or a part of it, and the rest let go."""

    async def refund(
        self,
        *,
        payment_id: int,
        refund_id: int,
        provider_id: str,
        amount: int,
        currency: str,
        key: str,
        asked_at: datetime,
        is_repeated: bool,
        traceparent: str | None = None,
    ) -> Refunded | Refused:
        """Give back the money that was taken, or a part. `asked_at` and the rest as for `authorize`."""

    async def look_up_authorization(
        self, *, payment_id: int, amount: int, currency: str, key: str, asked_at: datetime
    ) -> Authorized | Declined | Refused | None:
        """The result of an earlier authorize()."""

    async def look_up_capture(self, *, payment_id: int, provider_id: str) -> Captured | Refused | None:
        """The result of an earlier capture()."""

    async def look_up_void(self, *, payment_id: int, provider_id: str) -> Voided | Captured | Refused | None:
        """The result of an earlier void()."""

    async def look_up_refund(
        self, *, payment_id: int, refund_id: int, provider_id: str, key: str
    ) -> Refunded | Refused | None:
        """The result of an earlier refund()."""

    async def close(self) -> None:
        """Release connections."""
