"""Who asks for the commands of a message: as somebody says who is believed, or as the broker knows.

Anybody may write a header. The broker vouches for two things only: through which exchange a message came, and which
user published it, where the message says so (`user_id`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.protocol.actors import (
    HEADER_ACTOR,
    HEADER_ACTORS,
    HEADER_NO_ACTOR,
    UnreadableActor,
    decoded_actor,
    decoded_actors,
)
from coordinator.protocol.senders import HEADER_SENDER
from coordinator.protocol.wire import INVALID_HEADER, CommandMessage, Defect, Envelope, is_yes, with_sender
from coordinator.service.principal import BROKER_USER, NO_SCOPES, Principal, of_broker_user


def claims_an_actor(envelope: Envelope) -> bool:
    """Whether the message says who asks."""
    return _names_somebody(envelope.headers)


def say_nobody_asks(headers: dict[str, Any]) -> None:
    """Add to the headers of a message that it is not its account that asks, unless they name somebody."""
    if not _names_somebody(headers):
        headers[HEADER_NO_ACTOR] = True


def says_nobody_asks(envelope: Envelope) -> bool:
    """Whether its account only carries the message. Anybody is believed who says so, since nobody may do less."""
    return not claims_an_actor(envelope) and is_yes(envelope.headers.get(HEADER_NO_ACTOR))


def attributed(envelope: Envelope, commands: tuple[CommandMessage, ...]) -> tuple[CommandMessage, ...]:
    """The commands of a message with their actors.

    What a gateway, or the system, says counts; of anybody else only what the broker knows. A command whose actor was
    said and cannot be read is refused: without him it would be another one's, or nobody's.
    """
    if envelope.is_system or envelope.is_gateway:
        commands = _as_claimed(envelope, commands) if claims_an_actor(envelope) else commands
        return _as_it_was_sent(envelope, commands) if HEADER_SENDER in envelope.headers else commands
    if envelope.is_strangers:
        commands = tuple(msgspec.structs.replace(command, is_strangers=True) for command in commands)
    if envelope.user_id is None or says_nobody_asks(envelope):
        return commands
    actor = of_broker_user(envelope.user_id, envelope.scopes, names_another=claims_an_actor(envelope))
    return tuple(msgspec.structs.replace(command, actor=actor) for command in commands)


def _names_somebody(headers: Mapping[str, object]) -> bool:
    return HEADER_ACTOR in headers or HEADER_ACTORS in headers


def _as_claimed(envelope: Envelope, commands: tuple[CommandMessage, ...]) -> tuple[CommandMessage, ...]:
    try:
        actors = _claimed(envelope, len(commands))
    except UnreadableActor as error:
        defect = Defect(INVALID_HEADER, f"it cannot be read who asks: {error}")
        return tuple(msgspec.structs.replace(command, defect=command.defect or defect) for command in commands)
    return tuple(msgspec.structs.replace(command, actor=actor) for command, actor in zip(commands, actors, strict=True))


def _as_it_was_sent(envelope: Envelope, commands: tuple[CommandMessage, ...]) -> tuple[CommandMessage, ...]:
    """Who is believed may say of a command of the public that it is worth less."""
    sender = envelope.headers[HEADER_SENDER]
    if not isinstance(sender, str):
        return commands
    return tuple(with_sender(each, sender) if each.origin == "public" else each for each in commands)


def _claimed(envelope: Envelope, count: int) -> Sequence[Principal | None]:
    """By place. Raises UnreadableActor."""
    for_all, by_place = envelope.headers.get(HEADER_ACTOR), envelope.headers.get(HEADER_ACTORS)
    if by_place is None:
        return [_named(envelope, decoded_actor(_text(for_all), _may_name_accounts(envelope)))] * count
    if for_all is not None:
        raise UnreadableActor(f"{HEADER_ACTOR} and {HEADER_ACTORS} exclude each other")
    actors = decoded_actors(_text(by_place), may_be_broker_user=_may_name_accounts(envelope))
    if len(actors) != count:
        # Of a pack that is refused unread, not every command is there.
        raise UnreadableActor(f"{HEADER_ACTORS} names those of {len(actors)} commands, and there are {count}")
    return [None if actor is None else _named(envelope, actor) for actor in actors]


def _may_name_accounts(envelope: Envelope) -> bool:
    return envelope.is_system or envelope.account_scopes is not None


def _named(envelope: Envelope, actor: Principal) -> Principal:
    """The actor whom somebody who is believed has named. For an account of the broker's a gateway asks that has taken
    the command from it (`coordinator ingress`). What such an account may is for the lane's settings alone to say.

    Raises UnreadableActor.
    """
    if envelope.is_system or not actor.subject.startswith(BROKER_USER):
        return actor
    if actor.tenant is not None or actor.scopes:
        raise UnreadableActor(f"{actor.subject} is an account of RabbitMQ's: its scopes are the lane's to give")
    account = actor.subject.removeprefix(BROKER_USER)
    scopes = (envelope.account_scopes or {}).get(account, NO_SCOPES)
    return Principal(subject=actor.subject, scopes=scopes)


def account_asking(envelope: Envelope, commands: Sequence[CommandMessage]) -> str | None:
    """The account of the broker's for which a message was published: its publisher's, or, where that is a gateway, the
    one for which that asks."""
    actor = commands[0].actor if envelope.is_gateway and commands else None
    if actor is not None and actor.subject.startswith(BROKER_USER):
        return actor.subject.removeprefix(BROKER_USER)
    return envelope.user_id


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UnreadableActor(f"{HEADER_ACTOR} and {HEADER_ACTORS} are texts, not a {type(value).__name__}")
    return value
