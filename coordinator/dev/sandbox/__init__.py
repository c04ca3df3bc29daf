"""A payment provider for development and tests: it speaks the part of Stripe's API that we use, and charges nobody."""
