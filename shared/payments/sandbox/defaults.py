"""What the sandbox and those who use it agree on. None of it is a secret: nothing of value is behind it."""

from typing import Final

PORT: Final = 8090
API_KEY: Final = "sk_test_sandbox"
WEBHOOK_SECRET: Final = "whsec_sandbox"
METADATA_KEY: Final = "metadata_key_sandbox"
WEBHOOK_PATH: Final = "/webhooks/stripe"
"""Where the gateway of payments takes Stripe's events."""
