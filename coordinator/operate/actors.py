"""Who asked for something, as operators see him: his subject and tenant, not what his credential was good for."""

import msgspec

from coordinator.protocol.actors import Logged, logged_actor
from coordinator.service.options import Options


def actor_of_options(options: str | None) -> Logged | None:
    """Who asked for an emitted command, by the options of its row; None: nobody who is known."""
    actor = Options.decode(options).actor
    return None if actor is None else Logged(actor.subject, actor.tenant)


def actor_of_text(text: str | None) -> Logged | None:
    """Who asked, by the JSON text of a row."""
    return None if text is None else logged_actor(text)


def named(actor: Logged | None) -> str | None:
    """For a table."""
    if actor is None:
        return None
    return actor.subject if actor.tenant is None else f"{actor.subject} ({actor.tenant})"


def shown_actor(options: str | None) -> object:
    """Who asked for an emitted command, for --json."""
    return msgspec.to_builtins(actor_of_options(options))
