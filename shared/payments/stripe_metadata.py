"""The mark on our payments and refunds at Stripe: other systems may have payments on the same account.

Their numbers may be the same as ours, so a number alone proves nothing. Our payments and refunds carry a keyed digest
(HMAC-SHA256, RFC 2104) of the payment's number beside it; the key is this deployment's own. An event without the
digest, or with another one, counts only for a payment that is already known by its id at Stripe.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from coordinator import ConfigurationError
from shared.payments.settings import StripeSettings

KEY_METADATA: Final = "idempotency_key"
PAYMENT_METADATA: Final = "payment_id"
DIGEST_METADATA: Final = "payment_digest"
REFUND_METADATA: Final = "refund_id"
TRACE_METADATA: Final = "traceparent"
"""The trace of whatever asked for it (W3C Trace Context): what Stripe tells of it belongs to that, too."""


class MetadataKey:
    """Makes the metadata of our objects, and recognizes it."""

    def __init__(self, settings: StripeSettings) -> None:
        """Raises ConfigurationError if there is no STRIPE_METADATA_KEY."""
        if settings.metadata_key is None:
            raise ConfigurationError(
                "STRIPE_METADATA_KEY: it marks what is ours at Stripe, so that events of others are told from ours; "
                "it is unset. Make one (`openssl rand -hex 32`), the same for effect workers and gateways, and keep it"
            )
        self._key = settings.metadata_key.get_secret_value().encode()

    def metadata(
        self, payment_id: int, idempotency_key: str, refund_id: int | None = None, traceparent: str | None = None
    ) -> dict[str, str]:
        """The metadata of a payment, or of a refund of it."""
        made = {
            PAYMENT_METADATA: str(payment_id),
            DIGEST_METADATA: self._digest(str(payment_id)),
            KEY_METADATA: idempotency_key,
        }
        if refund_id is not None:
            made[REFUND_METADATA] = str(refund_id)
        if traceparent is not None:
            made[TRACE_METADATA] = traceparent
        return made

    def is_ours(self, metadata: Mapping[str, str]) -> bool:
        """Whether this deployment made the object that has it."""
        given = metadata.get(DIGEST_METADATA, "")
        return hmac.compare_digest(self._digest(metadata.get(PAYMENT_METADATA, "")).encode(), given.encode())

    def _digest(self, payment_id: str) -> str:
        return hmac.new(self._key, f"payment {payment_id}".encode(), hashlib.sha256).hexdigest()
