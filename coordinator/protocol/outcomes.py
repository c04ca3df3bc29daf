"""Turns outcomes into bytes and bytes into outcomes."""

import msgspec

from coordinator.service.outcome import Outcome

_OUTCOMES = msgspec.json.Decoder(list[Outcome])


def encode_outcomes(outcomes: list[Outcome]) -> bytes:
    """The body of an outcome message, or of several packed."""
    return msgspec.json.encode(outcomes)


def encode_outcome(outcome: Outcome) -> bytes:
    """The body of an outcome message."""
    return msgspec.json.encode(outcome)


def decode_outcomes(body: bytes) -> list[Outcome]:
    """The packed outcomes in a message's body. Raises msgspec.MsgspecError."""
    return _OUTCOMES.decode(body)


def decode_outcome(body: bytes) -> Outcome:
    """The outcome in a message's body. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(body, type=Outcome)
