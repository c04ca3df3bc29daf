"""What amounts of money are written with."""

from typing import Annotated

from msgspec import Meta

Currency = Annotated[str, Meta(pattern=r"\A[A-Z]{3}\Z", min_length=3, max_length=3)]
"""An ISO 4217 code, as far as its form goes."""
