"""What a lane knows of who has sent it a command, beside who asks: words that stay with the command wherever it waits.

A command waits as a dead letter, behind its key, and in the outbox once an operator has had it sent again, as does the
continuation that it named. Whoever reads it there knows neither its exchange nor its account any more, and would take
it for better than it came.
"""

from typing import Final

from coordinator.service.principal import Principal, UnbelievedAccount

HEADER_SENDER: Final = "sender"
"""The words, on a stranger's command that the system passes on. They can only lower what a lane believes."""
STRANGER: Final = "stranger"
"""No gateway that the lane knew has sent it, nor the system: no lane waits for a newer release at it."""
_UNBELIEVED: Final = "unbelieved"
"""Its actor is an account that said that it asks for somebody else."""


def sender_words(actor: Principal | None, *, is_strangers: bool) -> str | None:
    """What is to be remembered of the sender of a command with this actor, with spaces between; None: nothing."""
    is_unbelieved = isinstance(actor, UnbelievedAccount)
    if is_strangers:
        return f"{STRANGER} {_UNBELIEVED}" if is_unbelieved else STRANGER
    return _UNBELIEVED if is_unbelieved else None


def says_stranger(sender: str) -> bool:
    """Whether the words say that a stranger has sent it. Unknown words have no weight."""
    return STRANGER in sender.split()


def actor_of(actor: Principal | None, sender: str) -> Principal | None:
    """The actor that was kept beside the words, as whoever wrote them had him."""
    if actor is None or _UNBELIEVED not in sender.split():
        return actor
    return UnbelievedAccount(subject=actor.subject, tenant=actor.tenant, scopes=actor.scopes)
