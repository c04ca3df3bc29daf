"""The wire protocol as an AsyncAPI 3.1 document, made from the services' handlers: docs/asyncapi.json.

It describes the coordinator: what it receives is what a client sends.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from inspect import cleandoc
from typing import Any, Final

import msgspec

from coordinator.dev.settings import DevSettings
from coordinator.protocol import actors, fields, senders, tracestates, wire
from coordinator.runtime.settings import BrokerSettings, IngressSettings
from coordinator.service.json_schemas import Json, portable
from coordinator.service.outcome import Outcome
from coordinator.service.outside_calls import effects_key
from coordinator.service.service import Service
from coordinator.service.trace_context import TRACESTATE_CHARACTERS_MAX
from coordinator.service.unit_of_work import Handler
from coordinator.transports.rabbitmq.ingress.topology import ingress_name, ingress_queue_arguments
from coordinator.transports.rabbitmq.properties import PERSISTENT
from coordinator.transports.rabbitmq.topology import (
    DEAD_EXCHANGE,
    SYSTEM_EXCHANGE,
    WRITES_EXCHANGE,
    effects_queue_arguments,
    queue_arguments,
    queue_name,
)

_SCHEMAS: Final = "#/components/schemas/"
_OPTIONS: Final = (*fields.OPTIONS, fields.ORIGIN)
"""What a command may carry, as a header of its own message or as a field in a pack."""
_EXCHANGES: Final[dict[str, str]] = {
    WRITES_EXCHANGE: "Commands of anybody who may write to it.",
    SYSTEM_EXCHANGE: "Commands and effects of the system itself, and of its operators: lanes, effect workers, "
    "operators and the gateway that takes the provider's events may write to it, and nobody else. Only from here are "
    "internal types, operators' types and ids of UUID version 8 taken.",
    DEAD_EXCHANGE: "What RabbitMQ itself takes out of a lane's queue. Nobody publishes to it; the lane takes it in.",
}
_OF_ACCOUNT: Final = ingress_name("{account}")
_WHOSE_EXCHANGE: Final = (
    "Commands of one outside account, which alone may write to it, and to nothing else: `coordinator ingress` hands "
    "them on to the lanes that their routing keys name."
)


def document(services: Sequence[Service]) -> Json:
    """The document. The same code makes the same document."""
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    schemas = _schemas(services)
    for service in services:
        _describe_lane(service, channels, operations, messages)
    _describe_ingress(services, channels, operations)
    channels["outcomes"] = {
        "address": None,
        "title": "Where the outcome of a command goes: the queue that its property reply_to names, "
        "or RabbitMQ's direct reply-to.",
        "messages": {name: _ref("messages", name) for name in messages if name.endswith(".outcome")}
        | {"outcome-pack": _ref("messages", "outcome-pack")},
    }
    messages |= _shared_messages()
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "write-coordinator",
            "version": version("write-coordinator"),
            "description": "One ordered queue of commands for each database. docs/PROTOCOL.md is the prose to this.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": wire.JSON_CONTENT,
        "servers": {
            "development": {
                "host": f"127.0.0.1:{DevSettings.model_fields['amqp_port'].default}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The RabbitMQ of `make run` and of compose.yaml.",
            }
        },
        "channels": channels,
        "operations": operations,
        "x-exchanges": {
            name: {"type": "direct", "durable": True, "description": text}
            for name, text in (_EXCHANGES | {_OF_ACCOUNT: _WHOSE_EXCHANGE}).items()
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def to_json(value: Json) -> str:
    """The text of docs/asyncapi.json."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _describe_lane(service: Service, channels: Json, operations: Json, messages: Json) -> None:
    lane = service.lane
    types = [handler.command.type for handler in service.public_handlers]
    bytes_max = BrokerSettings.model_fields["queue_bytes_max"].default
    channels[lane] = _queue(
        queue_name(lane), WRITES_EXCHANGE, {"x-routing-key": lane}, queue_arguments(lane, bytes_max)
    ) | {
        "x-system-exchange": SYSTEM_EXCHANGE,
        "messages": {name: _ref("messages", name) for name in (*types, "pack")},
    }
    if service.effects is not None:
        key = effects_key(lane)
        channels[key] = _queue(
            queue_name(key), SYSTEM_EXCHANGE, {"x-routing-key": key}, effects_queue_arguments(bytes_max)
        ) | {
            "title": f"Calls to the outside that the lane {lane} asks its effect workers for, and nobody else does.",
        }
    for handler in service.public_handlers:
        name = handler.command.type
        messages[name] = _command_message(handler)
        messages[f"{name}.outcome"] = _outcome_message(handler)
        operations[name] = _receive(lane, [lane], [name], [f"{name}.outcome"])
    operations[f"{lane}.pack"] = _receive(lane, [lane], ["pack"], ["outcome-pack"])


def _describe_ingress(services: Sequence[Service], channels: Json, operations: Json) -> None:
    """What an outside publisher sees: one exchange, and behind it one queue for all lanes."""
    lanes = [service.lane for service in services]
    types = [handler.command.type for service in services for handler in service.public_handlers]
    arguments = ingress_queue_arguments(IngressSettings())
    channels["ingress"] = _queue(_OF_ACCOUNT, _OF_ACCOUNT, {"x-routing-keys": lanes}, arguments) | {
        "title": "In the place of the lanes' own queues, for whoever has an account of INGRESS_ACCOUNTS.",
        "parameters": {"account": {"description": "The publisher's account of RabbitMQ."}},
        "messages": {name: _ref("messages", name) for name in (*types, "pack")},
    }
    outcomes = [f"{name}.outcome" for name in types]
    operations["ingress"] = _receive("ingress", lanes, [*types, "pack"], [*outcomes, "outcome-pack"])


def _queue(name: str, exchange: str, keys: Json, arguments: dict[str, str | int | bool]) -> Json:
    return {
        "address": name,
        "x-exchange": exchange,
        **keys,
        "x-arguments": arguments,
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {"name": name, "durable": True, "exclusive": False, "autoDelete": False, "vhost": "/"},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _receive(channel: str, lanes: Sequence[str], messages: Sequence[str], outcomes: Sequence[str]) -> Json:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
        "bindings": {
            "amqp": {
                "cc": list(lanes),
                "deliveryMode": PERSISTENT,
                "mandatory": True,
                "ack": True,
                "bindingVersion": "0.3.0",
            }
        },
        "reply": {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property reply_to. Without it no outcome is sent.",
            },
            "channel": {"$ref": "#/channels/outcomes"},
            "messages": [{"$ref": f"#/channels/outcomes/messages/{name}"} for name in outcomes],
        },
    }


def _command_message(handler: Handler[Any]) -> Json:
    command = handler.command
    return {
        "name": command.type,
        "contentType": wire.JSON_CONTENT,
        "summary": cleandoc(command.__doc__ or ""),  # Python 3.13 has it without indentation
        "headers": _schema("CommandHeaders"),
        "payload": _schema(command.__name__),
        "bindings": {"amqp": {"messageType": command.type, "bindingVersion": "0.3.0"}},
        "x-amqp-properties": _properties(command.type),
        "x-takes-expected-version": handler.target is not None,
        "x-command-version": command.command_version,
    }


def _outcome_message(handler: Handler[Any]) -> Json:
    result = handler.result
    return {
        "name": f"{handler.command.type}.outcome",
        "contentType": wire.JSON_CONTENT,
        "payload": {
            "allOf": [
                _schema("Outcome"),
                {
                    "properties": {
                        "type": {"const": handler.command.type},
                        "result": {"type": "null"}
                        if result is None
                        else {"anyOf": [_schema(result.__name__), {"type": "null"}]},
                    }
                },
            ]
        },
    }


def _shared_messages() -> Json:
    return {
        "pack": {
            "name": "pack",
            "contentType": wire.PACK_CONTENT,
            "summary": "Several commands, applied in this order, each with its own outcome. Not atomic.",
            "headers": _schema("PackHeaders"),
            "payload": {
                "type": "array",
                "minItems": 1,
                "maxItems": wire.PACK_COMMANDS_MAX,
                "items": _schema("PackedCommand"),
            },
        },
        "outcome-pack": {
            "name": "outcome-pack",
            "contentType": wire.PACK_CONTENT,
            "summary": f"The outcomes of one message, in its order, where it had the header {wire.HEADER_REPLY_PACKS}; "
            "without it each outcome is a message.",
            "payload": {"type": "array", "items": _schema("Outcome")},
        },
    }


def _properties(command_type: str) -> Json:
    """AsyncAPI has no place of its own for AMQP's properties."""
    return {
        "message_id": {
            **_form(fields.ID),
            "description": f"The command id. Required here or as header {fields.ID.header}.",
        },
        "type": {"const": command_type, "description": f"Required here or as header {fields.TYPE.header}."},
        "reply_to": {"type": "string", "description": "The queue for the outcome, or amq.rabbitmq.reply-to."},
        "correlation_id": {"type": "string", "description": "Comes back with the outcome."},
        "delivery_mode": {"const": PERSISTENT},
    }


def _schemas(services: Sequence[Service]) -> Json:
    handlers = [handler for service in services for handler in service.public_handlers]
    results = [handler.result for handler in handlers if handler.result is not None]
    # `result` is JSON text of any kind, for which msgspec has no schema.
    outcome = msgspec.defstruct(
        "Outcome",
        [
            (field.name, Any, None)
            if field.type is msgspec.Raw
            else (field.name, field.type, field.default)
            if not field.required
            else (field.name, field.type)
            for field in msgspec.structs.fields(Outcome)
        ],
        namespace={"__doc__": Outcome.__doc__},
        kw_only=True,
    )
    types = [*(handler.command for handler in handlers), *dict.fromkeys(results), outcome]
    _, made = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    made["Outcome"]["required"] = list(made["Outcome"]["properties"])
    written = {
        "CommandHeaders": _object(
            {
                fields.ID.header: (_form(fields.ID), "For clients that cannot set the property message_id."),
                fields.TYPE.header: (_form(fields.TYPE), "For clients that cannot set the property type."),
                **{field.header: (_form(field), field.meaning) for field in _OPTIONS},
                tracestates.HEADER_TRACESTATE: _TRACESTATE,
                actors.HEADER_ACTOR: _ACTOR,
                actors.HEADER_NO_ACTOR: _NO_ACTOR,
                senders.HEADER_SENDER: _SENDER,
                wire.HEADER_REPLAYED: ({"const": True}, "An operator has had it sent once more. It changes nothing."),
                wire.HEADER_RESULT_OF: (
                    {"type": "string"},
                    "What it comes of, the system's alone: a result of its effect, an effect of a command (`TYPE ID`).",
                ),
            }
        ),
        "PackHeaders": _object(
            {
                wire.HEADER_REPLY_PACKS: (
                    {"enum": [True, 1, "true"]},
                    "The outcomes come back as one pack.",
                ),
                tracestates.HEADER_TRACESTATE: _TRACESTATE,
                tracestates.HEADER_TRACESTATES: (
                    {"type": "string"},
                    "That of some commands, where they differ: JSON text, by `tracestate` the places of its commands.",
                ),
                actors.HEADER_ACTOR: _ACTOR,
                actors.HEADER_NO_ACTOR: _NO_ACTOR,
                actors.HEADER_ACTORS: (
                    {"type": "string"},
                    "Who asks for each command, as a gateway says: JSON text; `of` has its place in `actors`, or null.",
                ),
            }
        ),
        "PackedCommand": _object(
            {
                "id": (_form(fields.ID), fields.ID.meaning),
                "type": (_form(fields.TYPE), fields.TYPE.meaning),
                "args": ({"type": "object"}, "The arguments: the body that the command would have by itself."),
                **{field.name: (_form(field), field.meaning) for field in _OPTIONS},
            }
        )
        | {"required": ["id", "type", "args"]},
    }
    return dict(sorted({**{name: portable(schema) for name, schema in made.items()}, **written}.items()))


_TRACESTATE: Final = (
    {"type": "string", "maxLength": TRACESTATE_CHARACTERS_MAX},
    "W3C Trace Context: goes with `traceparent`.",
)
_ACTOR: Final = (
    {"type": "string"},
    "Who asks, as a gateway says: JSON text of an object with `subject`, `tenant` and `scopes`.",
)
_SENDER: Final = (
    {"type": "string"},
    "What a lane knew of who sent a command that the system passes on: words, such as `stranger` and `unbelieved`.",
)
_NO_ACTOR: Final = ({"enum": [True, 1, "true"]}, "Nobody who is known asks, and so not the account in `user_id`.")


def _form(field: fields.Field) -> Json:
    """What the values of a field are. An integer may be text."""
    schema: Json = portable(msgspec.json.schema(field.form.type))
    if schema.get("type") == "integer":
        return {"anyOf": [schema, {"type": "string", "pattern": "^[0-9]{1,16}$"}]}
    return schema


def _object(properties: dict[str, tuple[Json, str]]) -> Json:
    return {
        "type": "object",
        "properties": {name: {**schema, "description": text} for name, (schema, text) in properties.items()},
    }


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _schema(name: str) -> Json:
    return {"$ref": _SCHEMAS + name}
