"""Who asked for something, as operators see him: his subject and tenant, not what his credential was good for."""

from typing import Final, overload

import msgspec

from coordinator.protocol.actors import Logged, logged_actor
from coordinator.service.json_text import to_json
from coordinator.service.options import Options

SHORTENED: Final = "…"
"""In no name but one that was cut (`coordinator.operations.lane_access.author_of`)."""
_QUOTED: Final = frozenset(f'("{SHORTENED}')


def actor_of_options(options: str | None) -> Logged | None:
    """Who asked for an emitted command, by the options of its row; None: nobody who is known."""
    actor = Options.decode(options).actor
    return None if actor is None else Logged(actor.subject, actor.tenant)


def actor_of_text(text: str | None) -> Logged | None:
    """Who asked, by the JSON text of a row."""
    return None if text is None else logged_actor(text)


@overload
def named(actor: Logged) -> str: ...


@overload
def named(actor: Logged | None) -> str | None: ...


def named(actor: Logged | None) -> str | None:
    """In one text, which is nobody else's: `ada`, or `ada (acme)` with the tenant. A subject that could be taken for
    that is quoted, as JSON text."""
    if actor is None:
        return None
    subject = actor.subject if _QUOTED.isdisjoint(actor.subject) else to_json(actor.subject).decode()
    return subject if actor.tenant is None else f"{subject} ({actor.tenant})"


def shown_actor(options: str | None) -> object:
    """Who asked for an emitted command, for --json."""
    return msgspec.to_builtins(actor_of_options(options))
