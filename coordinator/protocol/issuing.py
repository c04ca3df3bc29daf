"""What every door checks of a command before it is issued, whatever carries it.

A lane that gets messages of strangers from a broker checks them again (`decoding.py`): there, whatever is wrong becomes
the outcome.
"""

from operator import attrgetter
from typing import Any, Final, get_args

import msgspec

from coordinator.protocol.fields import ID, OPTIONS, TYPE
from coordinator.protocol.wire import CommandMessage
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import NOBODYS_WORDS, is_nobodys_id, is_system_id
from coordinator.service.options import Origin
from coordinator.service.principal import Principal, defect_of
from coordinator.service.trace_context import checked_tracestate

_check_id, _check_type = ID.form.check, TYPE.form.check
_ORIGINS: Final = get_args(Origin)
_options_of = attrgetter(*(field.attribute for field in OPTIONS))
_NO_OPTIONS: Final = (None,) * len(OPTIONS)


def issuable(message: CommandMessage, *, is_new: bool = True) -> CommandMessage:
    """The command as it is issued: its id in small letters, so that it is one command in each spelling.

    Not `is_new`: an earlier release, which took more, may have accepted it.
    An option that is wrong, and of no weight, is left out. Raises InvalidCommand for what is wrong beside, and for a
    stranger's command with an id of the form that only the system's own have.
    """
    command_id: str | None = _check_id(message.command_id)
    if command_id is None:
        raise _invalid("invalid_command_id", ID.attribute, ID.form.words, message.command_id)
    if message.origin == "public" and is_system_id(command_id):
        text = f"ids of UUID version 8 are the system's own: choose another version than that of {command_id}"
        raise InvalidCommand(text, code="reserved_command_id", field=ID.attribute)
    if is_new and is_nobodys_id(command_id):
        text = f"{command_id} is {NOBODYS_WORDS}"
        raise InvalidCommand(text, code="invalid_command_id", field=ID.attribute)
    if _check_type(message.type) is None:
        raise _invalid("missing_command_type", TYPE.attribute, TYPE.form.words, message.type)
    _check_content(message)
    if (message.publisher is None) != (message.publisher_seq is None):
        raise InvalidCommand("publisher and publisher_seq belong together", code="invalid_header", field="publisher")
    changes: dict[str, Any] = {} if command_id == message.command_id else {ID.attribute: command_id}
    _check_options(message, changes)
    return msgspec.structs.replace(message, **changes) if changes else message


def _check_options(message: CommandMessage, changes: dict[str, Any]) -> None:
    """Add to the changes what is otherwise in the options. Raises InvalidCommand."""
    options = _options_of(message)
    if options != _NO_OPTIONS:  # Most have none, and each look would cost as much as another check.
        for field, value in zip(OPTIONS, options, strict=True):
            if value is not None and (checked := field.form.check(value)) != value:
                if checked is None and field.form.words is not None:
                    raise _invalid("invalid_header", field.attribute, field.form.words, value)
                changes[field.attribute] = checked
    if message.tracestate is not None and (state := checked_tracestate(message.tracestate)) != message.tracestate:
        changes["tracestate"] = state


def _check_content(message: CommandMessage) -> None:
    """What a caller of ours can get wrong, and no message from a broker can have. Raises InvalidCommand."""
    if type(message.arguments) is not bytes:
        raise _invalid("invalid_arguments", "arguments", "bytes of JSON text", message.arguments)
    if message.origin not in _ORIGINS or message.defect is not None:
        raise _invalid("invalid_header", "origin", "public or system, of a command without a defect", message.origin)
    actor = message.actor
    if actor is not None and not (message.origin == "public" and type(actor) is Principal and actor.is_sound):
        _check_actor(actor, message.origin)


def _check_actor(actor: Principal, origin: Origin) -> None:
    """Raises InvalidCommand. What the system passes on may be a user's of RabbitMQ."""
    try:
        is_one = isinstance(actor, Principal) and bool(actor.as_json)
        defect = actor.defect if origin == "public" else defect_of(actor, may_be_broker_user=True)
    except (TypeError, AttributeError, ValueError):
        is_one, defect = False, None
    if not is_one:
        raise _invalid("invalid_actor", "actor", "a Principal with texts as its names and scopes", actor)
    if defect is not None:
        raise InvalidCommand(f"the actor {actor.subject[:100]!a}: {defect}", code="invalid_actor", field="actor")


def _invalid(code: str, name: str, words: str | None, value: object) -> InvalidCommand:
    return InvalidCommand(f"{name} must be {words}, not {str(value)[:100]!a}", code=code, field=name)
