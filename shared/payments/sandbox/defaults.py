"""Values that the sandbox and its users share. They may be public, since they protect nothing of value."""

from typing import Final

PORT: Final = 8090
API_KEY: Final = "sk_test_sandbox"
WEBHOOK_SECRET: Final = "whsec_sandbox"
METADATA_KEY: Final = "metadata_key_sandbox"
WEBHOOK_PATH: Final = "/webhooks/stripe"
"""The path at which the gateway of payments takes Stripe's events."""
