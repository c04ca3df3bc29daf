"""What the release before dead letters were rows left behind: its tables, its queues, its messages."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pika
from alembic import command
from sqlalchemy import text

from coordinator.migrations.histories import ENVIRONMENT, alembic_config
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.service import Service
from coordinator.stores import lane_tables
from tests.support.databases import sql_engine

AT = datetime(2026, 1, 1, tzinfo=UTC)
LANE_HEAD = "lane_0003"
HEADS = {"users": "users_0002", "payments": "payments_0002"}
DELIVERY_LIMIT = 1_000_000_000
_DEAD = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


def derived_id(parent_id: str, name: str) -> str:
    """The id of what a command emitted (`0`, `1`, …), of its continuation, of its replay: UUID version 5."""
    return str(uuid5(UUID(parent_id), name))


def make_tables(service: Service, url: str, sequence: int = 10) -> None:
    """The tables as that release had them."""
    engine = sql_engine(url)
    with engine.connect() as connection:
        for versions, table, metadata, head in (
            (ENVIRONMENT / "versions", "lane_schema_version", lane_tables.metadata, LANE_HEAD),
            (service.migrations, f"{service.name}_schema_version", service.metadata, HEADS[service.name]),
        ):
            assert versions is not None
            assert metadata is not None
            command.upgrade(alembic_config(connection, versions, table, metadata), head)
        connection.execute(
            text(
                "INSERT INTO lane_lease (lane, epoch, sequence, batches, revision, holder, taken_at) "
                "VALUES (:lane, 3, :sequence, 10, 0, 'the previous release', :at)"
            ),
            {"lane": service.name, "sequence": sequence, "at": AT},
        )
    engine.dispose()


def insert(url: str, table: str, *rows: dict[str, Any]) -> None:
    """Rows, by the columns that the table had then."""
    engine = sql_engine(url)
    with engine.connect() as connection:
        for row in rows:
            columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)
    engine.dispose()


def emitted(
    number: int, lane: str, command_id: str, command_type: str, arguments: object, continuation: str | None = None
) -> dict[str, Any]:
    """An entry of the outbox."""
    return {
        "id": number,
        "lane": lane,
        "command_id": command_id,
        "type": command_type,
        "arguments": json.dumps(arguments).encode(),
        "created_at": AT,
        "continuation": continuation,
    }


def logged(
    number: int, command_id: str, command_type: str, code: str | None, arguments: bytes = b"{}"
) -> dict[str, Any]:
    """An entry of the command log; with a code, of a command that failed."""
    message = CommandMessage(command_id=command_id, type=command_type, arguments=arguments)
    return {
        "command_id": command_id,
        "sequence": number,
        "epoch": 3,
        "type": command_type,
        "fingerprint": UNKEYED.of(message),
        "status": "applied" if code is None else "failed",
        "error_code": code,
        "settled_at": AT,
    }


def declare(channel: Any, lanes: tuple[str, ...], effects: tuple[str, ...]) -> None:
    """The exchanges and queues of that release: effects are bound to `writes`, like commands."""
    bytes_max = BrokerSettings.model_fields["queue_bytes_max"].default
    common = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length-bytes": bytes_max}
    for exchange in ("writes", "writes.dead"):
        channel.exchange_declare(exchange, "direct", durable=True)
    for lane in lanes:
        arguments = {
            **common,
            "x-single-active-consumer": True,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "writes.dead",
            "x-dead-letter-routing-key": lane,
            "x-dead-letter-strategy": "at-least-once",
        }
        _queue(channel, f"writes.{lane}", "writes", lane, arguments)
        _queue(channel, f"writes.{lane}.dead", "writes.dead", lane, _DEAD)
    for service in effects:
        key = f"effects.{service}"
        _queue(channel, key, "writes", key, {**common, "x-delivery-limit": DELIVERY_LIMIT})
        _queue(channel, f"{key}.dead", "writes.dead", key, _DEAD)


def _queue(channel: Any, name: str, exchange: str, key: str, arguments: dict[str, Any]) -> None:
    channel.queue_declare(name, durable=True, arguments=arguments)
    channel.queue_bind(name, exchange, key)


def bury(channel: Any, key: str, command_id: str | None, command_type: str | None, body: bytes, **headers: Any) -> None:
    """A dead letter as that release published it."""
    reasons = {"reason": "handler_error", "error": "KeyError: 'x'", "lane": key, "publish-number": 7}
    properties = pika.BasicProperties(
        message_id=command_id,
        type=command_type,
        content_type="application/json",
        delivery_mode=2,
        headers=reasons | headers,
    )
    channel.basic_publish("writes.dead", key, body, properties, mandatory=True)
