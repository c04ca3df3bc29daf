"""The types with which amounts of money are written."""

from typing import Annotated

from msgspec import Meta

Currency = Annotated[str, Meta(pattern=r"\A[A-Z]{3}\Z", min_length=3, max_length=3)]
"""A text with the form of an ISO 4217 code."""
