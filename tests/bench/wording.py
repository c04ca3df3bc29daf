"""Figures as one writes them in a sentence."""

from typing import Final

NOTHING: Final = "-"
_ALIKE: Final = 0.1


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits, thousands grouped."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    decimals = max(0, digits - len(str(int(abs(value))))) if abs(value) >= 1 else digits
    return f"{value:,.{min(decimals, 2) if abs(value) >= 1 else decimals}f}"


def factor(ratio: float) -> str:
    """As few digits as a reader keeps: `28`, `2.5`, `0.42`."""
    if ratio >= 10:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2g}"


def as_fast_as(ratio: float, other: str) -> str:
    """How one rate is to another: `28 times as fast as x`, `about as fast as x`, `42 % as fast as x`."""
    if abs(ratio - 1) < _ALIKE:
        return f"about as fast as {other}"
    if ratio < 1:
        return f"{100 * ratio:.0f} % as fast as {other}"
    return f"{factor(ratio)} times as fast as {other}"
