"""Every limit that has a name is tried: one less, just as much, one more. A new limit without a test fails here.

`PROBES` try a limit here, `TRIED_IN` names the file of tests that does. `OWN` are those that refuse nothing.
"""

import ast
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pika
import pytest

from coordinator.access.key_sets import keys_of
from coordinator.http import headers, problems, requests
from coordinator.lane import control, parking, trying
from coordinator.operate import dead, output
from coordinator.operations.settings import OperationsSettings
from coordinator.protocol import decoding, fields
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope
from coordinator.runtime import cache_settings, effect_settings
from coordinator.runtime import settings as settings_module
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import GatewaySettings, LaneSettings, Limits
from coordinator.service import descriptions
from coordinator.service.commands import INTEGER_MAX, Command, parse
from coordinator.service.errors import ConfigurationError, InvalidCommand
from coordinator.service.ids import new_command_id
from coordinator.service.nesting import is_too_deep
from coordinator.service.outside_calls import EffectRetry
from coordinator.service.paging import page_of
from coordinator.service.principal import Principal, defect_of
from coordinator.service.rows import Digits, Row
from coordinator.service.upgrades import Upgrade, UpgradeFailed, parse_sent
from coordinator.stores.row_checks import InvalidRow, RowChecks
from coordinator.transports.rabbitmq.incoming import delivery_of
from coordinator.transports.redis.entries import entry_of
from shared.items.commands import CreateItem
from shared.payments.commands import OpenPayment
from shared.users.commands import CreateUser, CreditUser
from shared.users.purchases.commands import ResumePurchase
from tests.support.issuer import SigningKey

ROOT = Path(__file__).parents[2]
KEY = SigningKey("one", "EdDSA")
SMALL = LaneSettings(message_bytes_max=2000, pack_commands_max=500)
ID = new_command_id()

Probe = Callable[[int], bool]
"""Whether so much is taken, as it is."""


def parses(model: type, **arguments: object) -> bool:
    try:
        parse(model, msgspec.json.encode(arguments))
    except InvalidCommand:
        return False
    return True


def loads(make: Callable[[], object]) -> bool:
    try:
        make()
    except (ConfigurationError, ValueError):
        return False
    return True


class Priced(Command, type="priced.price"):
    price: Decimal


class Told(Command, type="told.tell", version=2):
    text: str


def upgrades(made_bytes: int, sent: bytes) -> bool:
    """Whether an upgrade may make arguments of so many bytes from what was sent."""
    text = "a" * (made_bytes - len(b'{"text":""}'))
    try:
        parse_sent(Told, sent, 1, (Upgrade(Told, 1, lambda _: {"text": text}),))
    except UpgradeFailed:
        return False
    return True


class Counted(Row, table="counted", key="id"):
    id: int
    count: int


class Labelled(Row, table="labelled", key="label"):
    label: str


def accepts(convert: Callable[[], object], refusal: type[Exception] = Exception) -> bool:
    try:
        convert()
    except refusal:
        return False
    return True


def pack(commands: int, size_bytes: int = 0) -> bytes:
    each = b'{"id":"%s","type":"t.t","args":{}}'
    body = b"[" + b",".join(each % new_command_id().encode() for _ in range(commands)) + b"]"
    return body + b" " * (size_bytes - len(body))


def decoded(body: bytes, **limits: int) -> tuple[CommandMessage, ...]:
    return decoding.decode(Envelope(content_type=PACK_CONTENT), body, **limits)


def has_defect(commands: tuple[CommandMessage, ...]) -> bool:
    return any(command.defect is not None for command in commands)


def delivered(body: bytes, content_type: str | None = None) -> bool:
    """Whether a lane with small limits reads a message without a defect."""
    method = pika.spec.Basic.Deliver(delivery_tag=1, exchange="writes")
    properties = pika.BasicProperties(message_id=ID, type="t.t", content_type=content_type)
    return not has_defect(delivery_of(method, properties, body, SMALL).commands)


WITHDRAWAL = {"by": "me"}
DEAD_EFFECT = {"command_id": ID, "effect_type": "t.t", "code": "c", "reason": "r"}
RESUMPTION = {"id": 1, "step": ID, "verdict": "done"}
ITEM = {"price": 1, "currency": "EUR", "stock": 1}


class Long(Row, table="long", key="id"):
    id: int
    text: str


def rows_of_bytes(count: int) -> list[Long]:
    """Two rows that have so many bytes as JSON text."""
    bare = len(msgspec.json.encode(Long(id=1, text="")))
    return [Long(id=1, text="a" * 9), Long(id=2, text="a" * (count - 2 * bare - 9))]


def names(**parts: Any) -> bool:
    return defect_of(Principal(**({"subject": "ada"} | parts))) is None


def reads_keys(count: int = 1, size_bytes: int = 0) -> bool:
    keys = [KEY.jwk | {"kid": str(number)} for number in range(count)]
    text = msgspec.json.encode({"keys": keys})
    return accepts(lambda: keys_of(text.ljust(size_bytes), frozenset({"EdDSA"})))


PROBES: dict[str, Probe] = {
    "coordinator.service.decimal_sizes.EXPONENT_MAX": lambda n: parses(Priced, price=Decimal(f"1e{n}")),
    "coordinator.access.key_sets.BYTES_MAX": lambda n: reads_keys(size_bytes=n),
    "coordinator.access.key_sets.KEYS_MAX": reads_keys,
    "coordinator.service.principal.SUBJECT_CHARACTERS_MAX": lambda n: names(subject="a" * n),
    "coordinator.service.principal.TENANT_CHARACTERS_MAX": lambda n: names(tenant="a" * n),
    "coordinator.service.principal.SCOPE_CHARACTERS_MAX": lambda n: names(scopes=frozenset({"a" * n})),
    "coordinator.runtime.broker_accounts.QUEUE_NAME_BYTES_MAX": lambda n: accepts(
        lambda: LaneSettings(reply_queues=f"billing={'q' * n}")
    ),
    "coordinator.service.principal.SCOPES_MAX": lambda n: names(scopes=frozenset(map(str, range(n)))),
    "coordinator.service.principal.SCOPES_CHARACTERS_MAX": lambda n: names(
        scopes=frozenset(f"{number:0{50 + (n % 40 if number == 0 else 0)}}" for number in range(n // 50))
    ),
    "coordinator.service.commands.INTEGER_MAX": lambda n: parses(CreditUser, id=n, amount=1),
    "coordinator.service.commands.AMOUNT_MAX": lambda n: parses(OpenPayment, user_id=1, amount=n, currency="EUR"),
    "coordinator.service.commands.NAME_CHARACTERS_MAX": lambda n: parses(CreateItem, name="a" * n, **ITEM),
    "shared.users.emails.EMAIL_CHARACTERS_MAX": lambda n: parses(CreateUser, name="A", email="a" * (n - 2) + "@b"),
    "shared.users.emails.ENCODED_CHARACTERS_MAX": lambda n: parses(
        CreateUser, name="A", email="a@xn--" + "a" * (n - 4)
    ),
    "coordinator.service.upgrades.UPGRADED_BYTES_MAX": lambda n: upgrades(n, b"{}"),
    "coordinator.service.nesting.NESTING_MAX": lambda n: not is_too_deep(b"[" * n + b"]" * n),
    "coordinator.service.saga_table.REASON_CHARACTERS_MAX": lambda n: parses(
        ResumePurchase, reason="a" * n, **RESUMPTION
    ),
    "coordinator.service.outside_calls.REASON_CHARACTERS_MAX": lambda n: len(str(EffectRetry("a" * n))) == n,
    "coordinator.service.rows.SELECTED_MAX": lambda n: accepts(lambda: Counted.where(limit=n), TypeError),
    "coordinator.service.paging.PAGE_MAX": lambda n: accepts(
        lambda: msgspec.convert({"limit": n}, requests.PageQuery), msgspec.ValidationError
    ),
    "coordinator.service.paging.PAGE_BYTES_MAX": lambda n: page_of(rows_of_bytes(n), 2).next is None,
    "coordinator.protocol.fields.TYPE_CHARACTERS_MAX": lambda n: fields.TYPE.form.check("a" * n) is not None,
    "coordinator.protocol.fields.LANE_CHARACTERS_MAX": lambda n: (
        {field.attribute: field for field in fields.OPTIONS}["continuation"].form.check("a" * n + ".b") is not None
    ),
    "coordinator.protocol.wire.BODY_BYTES_MAX": lambda n: (
        not has_defect(decoding.decode(Envelope(message_id=ID, type="t.t"), b"{}" + b" " * (n - 2)))
    ),
    "coordinator.protocol.wire.PACK_COMMANDS_MAX": lambda n: not has_defect(decoded(pack(n))),
    "coordinator.protocol.decoding.UNPACKED_BYTES_MAX": lambda n: (
        decoded(pack(1, n), bytes_max=1)[0].command_id is not None
    ),
    "coordinator.protocol.decoding.UNPACKED_COMMANDS_MAX": lambda n: all(
        command.command_id is not None for command in decoded(pack(n), commands_max=1)
    ),
    # The pack begins with a run of brackets, five texts and a bracket, and ends with a run.
    "coordinator.protocol.decoding.TOKENS_MAX": lambda n: (
        decoded(b'[{"id":"%s","type":"t.t","args":{x%s}}]' % (ID.encode(), b'""' * (n - 8)))[0].command_id is not None
    ),
    "coordinator.protocol.decoding.KEPT_BYTES_MAX": lambda n: (
        len(decoding.decode(Envelope(), b"{" * n, bytes_max=INTEGER_MAX)[0].arguments) == n
    ),
    "coordinator.http.headers.KEY_CHARACTERS_MAX": lambda n: accepts(
        lambda: headers.idempotency_key(["a" * n]), problems.RequestRefused
    ),
    "coordinator.http.headers.PREFERENCES_MAX": lambda n: (
        headers.preferences(["x," * (n - 1) + "respond-async"]).respond_async
    ),
    "coordinator.http.problems.DETAIL_CHARACTERS_MAX": lambda n: len(problems._clean("a" * n)) == n,
    "coordinator.service.descriptions.DESCRIPTION_CHARACTERS_MAX": lambda n: (
        descriptions.described("a" * n, with_type=False) == "a" * n
    ),
    "coordinator.lane.control.ASKED_MAX": lambda n: parses(control.ForgetAsked, commands=["a"] * n, actor="ada"),
    "coordinator.lane.control.WITHDRAWN_MAX": lambda n: parses(
        control.WithdrawEmitted, entries=[*range(1, n + 1)], **WITHDRAWAL
    ),
    "coordinator.lane.control.EFFECT_TEXT_CHARACTERS_MAX": lambda n: parses(
        control.DeadEffect, body="a" * n, **DEAD_EFFECT
    ),
    "coordinator.lane.parking.ADDRESS_CHARACTERS_MAX": lambda n: parking._short("a" * n) is not None,
    "coordinator.lane.trying.CODE_CHARACTERS_MAX": lambda n: trying._CODE.fullmatch("a" * n) is not None,
    "coordinator.stores.lane_tables.ORDERING_KEY_CHARACTERS_MAX": lambda n: parses(
        control.Release, ordering_key="a" * n, command_id=ID
    ),
    "coordinator.stores.sql.column_types.COMPARED_CHARACTERS_MAX": lambda n: accepts(
        lambda: RowChecks().of(Labelled).new(Labelled(label="a" * n)), InvalidRow
    ),
    "coordinator.service.rows.DIGITS_MAX": lambda n: accepts(lambda: Digits(n, 0), ValueError),
    "coordinator.stores.value_types.INTEGER_MAX": lambda n: accepts(
        lambda: RowChecks().of(Counted).new(Counted(id=1, count=n)), InvalidRow
    ),
    "coordinator.operate.output.REASON_CHARACTERS_MAX": lambda n: accepts(lambda: output.reason("a" * n)),
    "coordinator.operate.dead.ARGUMENTS_BYTES_MAX": lambda n: accepts(
        lambda: dead._object('{"a":"' + "b" * (n - 8) + '"}'), output.CommandRefused
    ),
    "coordinator.operate.processes.PROCESSES_MAX": lambda n: loads(
        lambda: OperationsSettings(coordinators=" ".join(f"http://10.0.0.1:{port}" for port in range(1, n + 1)))
    ),
    "coordinator.runtime.addresses.PORT_MAX": lambda n: loads(lambda: parse_address(f"postgresql://host:{n}/data")),
    "coordinator.runtime.longest_time.SECONDS_MAX": lambda n: loads(lambda: GatewaySettings(wait_s=n)),
    "coordinator.transports.redis.entries.HEAD_BYTES_MAX": lambda n: (
        entry_of([b"1-0", [b"head", b'{"id":"a"}'.ljust(n)]], is_system=False).head.id == "a"
    ),
    "LANE_MESSAGE_BYTES_MAX": lambda n: delivered(b"{}" + b" " * (n - 2)),
    "LANE_PACK_COMMANDS_MAX": lambda n: has_defect(decoded(pack(n), commands_max=SMALL.pack_commands_max)) is False,
}
CHOSEN = {"LANE_MESSAGE_BYTES_MAX": SMALL.message_bytes_max, "LANE_PACK_COMMANDS_MAX": SMALL.pack_commands_max}
"""What the limits of settings are in these probes."""

HOSTILE_HTTP = "tests/unit/gateways/test_gateways_hostile.py"
OPERATIONS = "tests/unit/test_operations_limits.py"
TRIED_IN = {
    "coordinator.operations.kept_admins.KEPT_MAX": "tests/unit/test_kept_admins.py",
    "coordinator.stores.lineages.SUPERSEDED_MAX": "tests/support/lineage_contract.py",
    "coordinator.stores.lineages.SUPERSEDED_CHARACTERS_MAX": "tests/unit/test_lineages.py",
    "coordinator.transports.rabbitmq.replies.KEPT_BYTES_MAX": "tests/unit/test_consumer.py",
    "coordinator.lane.request.READ_FIRST_BYTES_MAX": "tests/unit/test_hostile_costs.py",
    "coordinator.stores.api_keys.KEYS_MAX": "tests/integration/test_api_keys.py",
    "coordinator.stores.api_keys.SECRETS_MAX": "tests/integration/test_api_keys.py",
    "coordinator.runtime.secret_files.SECRET_BYTES_MAX": "tests/unit/test_secret_files.py",
    "REDIS_MEMORY_ENTRIES_MAX": "tests/unit/test_cache_memory.py",
    "coordinator.cache.redis_breaker.PAUSE_S_MAX": "tests/unit/test_cache_lease.py",
    "coordinator.http.descriptors.BACKLOG_MAX": "tests/unit/gateways/test_gateways_connections.py",
    "coordinator.http.runner.FIELDS_MAX": HOSTILE_HTTP,
    "coordinator.http.runner.FIELD_BYTES_MAX": HOSTILE_HTTP,
    "coordinator.http.runner.LINE_BYTES_MAX": HOSTILE_HTTP,
    "coordinator.lane.accepted_loss.BEHIND_MAX": "tests/unit/test_accepted_loss.py",
    "coordinator.lane.accepted_loss.ON_WORD_MAX": "tests/unit/test_accepted_loss.py",
    "coordinator.lane.accepted_loss.SEQUENCE_MAX": "tests/unit/test_accepted_loss.py",
    "coordinator.service.trace_context.TRACEPARENT_CHARACTERS_MAX": "tests/unit/test_trace_context.py",
    "coordinator.service.trace_context.TRACESTATE_CHARACTERS_MAX": "tests/unit/test_trace_context.py",
    "coordinator.service.trace_context.TRACESTATE_MEMBERS_MAX": "tests/unit/test_trace_context.py",
    "coordinator.stores.audit_tables.KEY_CHARACTERS_MAX": "tests/unit/test_key_texts.py",
    "coordinator.stores.clocks.CLOCKS_APART_MAX": "tests/unit/test_operate_commands.py",
    "coordinator.stores.passages.CHILDREN_MAX": "tests/unit/test_passages.py",
    "coordinator.stores.json_values.LEVELS_MAX": "tests/unit/test_value_types.py",
    "coordinator.stores.json_values.READ_LEVELS_MAX": "tests/unit/test_value_types.py",
    "coordinator.testing.outside.CALLS_MAX": "tests/unit/test_testing.py",
    "coordinator.transports.inprocess.journal.REMOVED_MAX": "tests/unit/test_journal.py",
    "coordinator.transports.inprocess.journal.REMOVED_WITHOUT_RESERVE_MAX": "tests/unit/test_journal.py",
    "coordinator.lane.high_water.MARK_BYTES_MAX": "tests/support/loss_contract.py",
    "coordinator.lane.subjects.SUBJECTS_MAX": "tests/support/forget_contract.py",
    "coordinator.lane.publisher_order.KNOWN_MAX": "tests/unit/test_publisher_order.py",
    "coordinator.lane.results.RESULT_BYTES_MAX": "tests/unit/test_authors.py",
    "coordinator.lane.subjects.REMEMBERED_CHARACTERS_MAX": "tests/unit/test_long_subjects.py",
    "coordinator.protocol.packing.ENVELOPE_BYTES_MAX": "tests/unit/test_settings.py",
    "coordinator.protocol.tracestates.TRACESTATES_BYTES_MAX": "tests/unit/test_trace_context.py",
    "coordinator.protocol.actors.ACTORS_BYTES_MAX": "tests/unit/test_actors.py",
    "coordinator.protocol.packing.PACK_BYTES_MAX": "tests/unit/test_packing.py",
    "coordinator.protocol.packing.PACK_COMMANDS_MAX": "tests/unit/test_packing.py",
    "coordinator.runtime.garbage.YOUNG_OBJECTS_MAX": "tests/unit/test_garbage.py",
    "coordinator.stores.mongodb.documents.LEVELS_MAX": "tests/unit/test_documents.py",
    "coordinator.transports.inbox.DECODED_COMMANDS_MAX": "tests/unit/test_inbox.py",
    "coordinator.transports.inprocess.journal.WRITE_BYTES_MAX": "tests/unit/test_journal.py",
    "coordinator.transports.inprocess.queue.QUEUE_BYTES_MAX": "tests/unit/test_inprocess_crash.py",
    "coordinator.transports.rabbitmq.acknowledgements.WAITING_MAX": "tests/unit/test_acknowledgements.py",
    "coordinator.transports.rabbitmq.direct_reply.ID_MAX": "tests/unit/test_direct_reply.py",
    "coordinator.transports.rabbitmq.direct_reply.SERIAL_MAX": "tests/unit/test_direct_reply.py",
    "coordinator.transports.rabbitmq.publisher.UNSENT_BYTES_MAX": "tests/unit/test_broker_faults.py",
    "coordinator.transports.outcome_packs.REPLY_BYTES_MAX": "tests/unit/test_consumer.py",
    "coordinator.transports.redis.outcomes.UNSENT_BYTES_MAX": "tests/integration/test_redis_transport.py",
    "coordinator.transports.redis.scripts.JUMPS_MAX": "tests/integration/test_redis_spoiled.py",
    "coordinator.transports.redis.scripts.NUMBER_MAX": "tests/integration/test_redis_transport.py",
    "coordinator.transports.redis.scripts.RUNS_MAX": "tests/integration/test_redis_transport.py",
    "coordinator.transports.redis.window.BYTES_MAX": "tests/integration/test_redis_transport.py",
    "coordinator.transports.rabbitmq.streams.FEED_BYTES_MAX": "tests/unit/test_streams.py",
    "coordinator.transports.brokered_writes.SETTLED_MAX": "tests/unit/test_publisher_certainty.py",
    "coordinator.transports.brokered_writes.UNSETTLED_MAX": "tests/unit/test_publisher_certainty.py",
    "shared.payments.stripe_http.ANSWER_BYTES_MAX": "tests/unit/test_stripe_nonsense.py",
    "shared.users.purchases.model.RUNNING_MAX": "tests/unit/test_purchases.py",
    "AMQP_QUEUE_BYTES_MAX": "tests/integration/test_transports.py",
    "AMQP_RECONNECT_DELAY_S_MAX": "tests/unit/test_reconnecting.py",
    "EFFECTS_BREAKER_PAUSE_S_MAX": "tests/unit/test_effect_attempts.py",
    "EFFECTS_RETRY_DELAY_S_MAX": "tests/unit/test_effect_attempts.py",
    "GATEWAY_BODY_BYTES_MAX": HOSTILE_HTTP,
    "GATEWAY_COMMANDS_MAX": HOSTILE_HTTP,
    "GATEWAY_HEAD_BYTES_MAX": "tests/unit/gateways/test_gateways_connections.py",
    "GATEWAY_CONNECTIONS_MAX": "tests/unit/gateways/test_gateways_connections.py",
    "GATEWAY_IN_FLIGHT_MAX": "tests/unit/gateways/test_gateways_waiting.py",
    "GATEWAY_PRINCIPAL_BURST_MAX": "tests/unit/gateways/test_gateways_limits.py",
    "GATEWAY_PRINCIPAL_IN_FLIGHT_MAX": "tests/unit/gateways/test_gateways_limits.py",
    "GATEWAY_PRINCIPAL_RATE_MAX": "tests/unit/gateways/test_gateways_limits.py",
    "coordinator.http.principal_limits.PRINCIPALS_MAX": "tests/unit/gateways/test_gateways_limits.py",
    **dict.fromkeys(
        (
            "INGRESS_ACCOUNT_BURST_MAX",
            "INGRESS_ACCOUNT_IN_FLIGHT_MAX",
            "INGRESS_ACCOUNT_RATE_MAX",
            "INGRESS_LANE_READY_BYTES_MAX",
            "INGRESS_LANE_READY_MAX",
            "INGRESS_QUEUE_BYTES_MAX",
            "INGRESS_QUEUE_MESSAGES_MAX",
        ),
        "tests/e2e/test_ingress.py",
    ),
    "LANE_BATCH_COMMANDS_MAX": "tests/unit/test_lane_refusals.py",
    "LANE_EARLY_MAX": "tests/unit/test_publisher_order.py",
    "LANE_NAMELESS_DEAD_MAX": "tests/support/letter_contract.py",
    "LANE_SENDERS_DEAD_BYTES_MAX": "tests/support/letter_contract.py",
    "LANE_OUTBOX_MAX": "tests/unit/test_lane_outbox.py",
    "LANE_PARKED_BYTES_MAX": "tests/unit/test_lane_parking.py",
    "LANE_PARKED_MAX": "tests/unit/test_lane_parking.py",
    "coordinator.http.receipts.RECEIPTS_MAX": "tests/unit/gateways/test_gateways_timelines.py",
    "coordinator.runtime.bounded_port.CONNECTIONS_MAX": "tests/unit/test_bounded_port.py",
    "coordinator.operate.processes.LANES_MAX": "tests/unit/test_odd_processes.py",
    "coordinator.operate.forget_rows.ROWS_MAX": "tests/unit/test_operate_forget.py",
    "coordinator.operate.processes.TEXT_CHARACTERS_MAX": "tests/unit/test_odd_processes.py",
    "coordinator.operations.content.LAID_OUT_BYTES_MAX": "tests/unit/test_operations_content.py",
    "coordinator.operations.lane_threads.READS_OF_ONE_MAX": OPERATIONS,
    "coordinator.operations.lane_threads.SEARCHES_OF_ONE_MAX": OPERATIONS,
    "coordinator.operations.lane_threads.WAITING_MAX": OPERATIONS,
    "coordinator.operations.letters.STEP_MAX": OPERATIONS,
    "coordinator.operations.sessions.CREDENTIAL_CHARACTERS_MAX": OPERATIONS,
    "coordinator.operations.sessions.SESSIONS_MAX": OPERATIONS,
    "coordinator.operations.sessions.SESSIONS_OF_ONE_MAX": OPERATIONS,
    "coordinator.operations.settled_commands.SCANNED_MAX": OPERATIONS,
}
"""By the file that tries the limit, and says its name."""

CUT = "a text for people is cut there"
TRIES = "our own tries are counted"
BROKERS = "RabbitMQ is asked to keep it"
AT_ONCE = "so much is taken, sent or remembered at once, and the rest after it"
OWN = {
    "coordinator.operate.moving.LEFT_MAX": "when the switch begins",
    "coordinator.operate.moving.DIFFERENT_MAX": "above it a move is refused, whose copy somebody else writes",
    "coordinator.operate.moving.PASSES_MAX": TRIES,
    "coordinator.stores.moves.PAUSE_CHARACTERS_MAX": CUT,
    "coordinator.access.tokens.REMEMBERED_MAX": AT_ONCE,
    "coordinator.access.tokens.REMEMBERED_CHARACTERS_MAX": "tests/unit/test_access_tokens.py",
    "coordinator.transports.rabbitmq.rights.PUBLISHER_CHANNELS_MAX": BROKERS,
    "coordinator.transports.rabbitmq.rights.PUBLISHER_CONNECTIONS_MAX": BROKERS,
    "coordinator.dev.plan.PORT_MAX": "the last port to look at",
    "coordinator.dev.servers.rabbitmq.FRAME_BYTES_MAX": "a setting of a developer's broker",
    "coordinator.dev.servers.rabbitmq.MESSAGE_BYTES_MAX": "a setting of a developer's broker",
    "coordinator.dev.supervisor.DEATHS_MAX": TRIES,
    "coordinator.http.command_bodies.SHOWN_CHARACTERS_MAX": CUT,
    "coordinator.http.request_log.ERROR_CHARACTERS_MAX": CUT,
    "coordinator.lane.basis.ERROR_CHARACTERS_MAX": CUT,
    "coordinator.lane.dead_letters.ARGUMENTS_BYTES_MAX": CUT,
    "coordinator.lane.dead_letters.NAMELESS_BYTES_MAX": CUT,
    "coordinator.lane.dead_letters.REASON_CHARACTERS_MAX": CUT,
    "coordinator.lane.dead_letters.TRACEBACK_CHARACTERS_MAX": CUT,
    "coordinator.lane.forgetting.COUNTED_MAX": "a trial counts no further",
    "coordinator.lane.forgetting.LETTERS_OF_ONE_MAX": "letters of one command, of which there are a few",
    "coordinator.lane.forgetting.NAMED_MAX": CUT,
    "coordinator.lane.forgetting.STEP_ENTRIES_MAX": AT_ONCE,
    "coordinator.lane.high_water.SERIES_MAX": AT_ONCE,
    "coordinator.lane.pieces.CARRIED_MAX": AT_ONCE,
    "coordinator.lane.publisher_progress.GAPS_MAX": AT_ONCE,
    "coordinator.lane.reading.READS_MAX": AT_ONCE,
    "coordinator.lane.subjects.REMEMBERED_MAX": AT_ONCE,
    "coordinator.lane.timers.MOVED_MAX": AT_ONCE,
    "coordinator.lane.unit_of_work.TIMERS_OF_ONE_MAX": "timers of one command, of which there are two",
    "coordinator.lane.window.BATCH_CONFLICTS_MAX": TRIES,
    "coordinator.lane.window.BATCH_TRIES_MAX": TRIES,
    "coordinator.lane.window.COMMAND_TRIES_MAX": TRIES,
    "coordinator.lane.window.PIECE_CONFLICTS_MAX": TRIES,
    "coordinator.operate.finding.ASKED_CHARACTERS_MAX": CUT,
    "coordinator.operate.finding.FOUND_MAX": "so many commands of one idempotency key are shown",
    "coordinator.operate.finding.LOOKED_THROUGH_MAX": "so many entries of the log are looked through for a type",
    "coordinator.operate.finding.OF_TYPE_MAX": "so many commands of a type are shown",
    "coordinator.operate.finding.STEPS_MAX": "so many steps of a saga are shown",
    "coordinator.operate.keyed_commands.PRINCIPALS_MAX": "of so many owners of API keys it is tried whose key it is",
    "coordinator.operate.processes.BYTES_MAX": "of a process's answer no more is read",
    "coordinator.operate.forget_waiting.ACTS_MAX": AT_ONCE,
    "coordinator.operate.forget_waiting.STEPS_MAX": AT_ONCE,
    "coordinator.operations.lane_routes.KEYS_MAX": "so many parked keys are listed",
    "coordinator.accounts.database.ELSEWHERE_SHOWN_MAX": CUT,
    "coordinator.operate.forget_steps.UNSENT_MAX": "more emitted commands are not counted",
    "coordinator.operate.output.BY_CHARACTERS_MAX": CUT,
    "coordinator.operations.collector.POINTS_MAX": AT_ONCE,
    "coordinator.operations.lane_watch.LATENCIES_MAX": AT_ONCE,
    "coordinator.operations.lane_watch.RECENT_MAX": AT_ONCE,
    "coordinator.operate.row_waits.LETTERS_LOOKED_AT_MAX": "further letters are not looked at",
    "coordinator.operate.selected_letters.SHOWN_CHARACTERS_MAX": CUT,
    "coordinator.service.saga_table.CODE_CHARACTERS_MAX": CUT,
    "coordinator.stores.mongodb.kind.IDLE_MS_MAX": "a connection that is idle for longer is replaced",
    "coordinator.stores.mongodb.store.VALUES_MAX": "tests/integration/test_composite_keys.py",
    "coordinator.stores.mysql.statements.KEYS_MAX": "tests/integration/test_composite_keys.py",
    "coordinator.stores.audit_tables.TABLE_CHARACTERS_MAX": "no class of rows has a table with a longer name",
    "coordinator.stores.mysql.statements.STATEMENT_CHARACTERS_MAX": AT_ONCE,
    "coordinator.stores.sqlite.store.VARIABLES_MAX": "tests/integration/test_composite_keys.py",
    "coordinator.stores.one_lane.LANES_READ_MAX": AT_ONCE,
    "coordinator.testing.differences.SHOWN_MAX": "the rest of a text is left out of what a test says",
    "coordinator.testing.elsewhere.ANSWER_S_MAX": "a process of a simulation that does not answer ends it",
    "coordinator.testing.simulation.ELSEWHERE_MAX": "the other histories are tried in one process alone",
    "coordinator.testing.lane.DELIVERED_MAX": "commands that emit one another for ever end a test",
    "coordinator.testing.running.TIMER_ROUNDS_MAX": "timers that set the next one end with a simulation",
    "coordinator.testing.running.COMMANDS_MAX": "commands that emit one another for ever end a simulation",
    "coordinator.transports.emitting.RETRY_DELAY_S_MAX": "a pause of ours",
    "coordinator.transports.rabbitmq.pika_connection.ADDED_BYTES_MAX": AT_ONCE,
    "coordinator.transports.outcome_packs.REPLY_OUTCOMES_MAX": AT_ONCE,
    "coordinator.transports.redis.reading.READ_BYTES_MAX": AT_ONCE,
    "coordinator.transports.redis.reading.READ_ENTRIES_MAX": AT_ONCE,
    "coordinator.transports.redis.window.SETTLED_MAX": AT_ONCE,
    "coordinator.transports.redis.window.TAKEN_OUT_MAX": AT_ONCE,
    "coordinator.worker.observed.LOGGED_MAX": AT_ONCE,
    "shared.payments.model.DEFERRED_CHARACTERS_MAX": CUT,
    "shared.payments.model.OTHERS_MAX": "tests/unit/test_payment_life.py",
    "shared.payments.model.REASON_CHARACTERS_MAX": CUT,
    "shared.payments.model.REASON_CODE_CHARACTERS_MAX": CUT,
    "shared.users.purchases.watch.LOOK_AGAIN_S_MAX": "a pause of ours",
    "shared.users.purchases.watch.READ_AT_ONCE_MAX": AT_ONCE,
    "coordinator.runtime.effect_settings.READ_AHEAD_S_MAX": "further effects wait with the broker",
    "coordinator.stores.sql.migration_waits.WAIT_S_MAX": "a migration waits no longer for a lock",
    "EFFECTS_READ_AHEAD_MAX": "further effects wait with the broker",
    "GATEWAY_READ_POOL_MAX": "further reads wait",
    "LANE_BATCH_BYTES_MAX": AT_ONCE,
    "LANE_RETRY_DELAY_S_MAX": "a pause of ours",
}
"""Limits that refuse nothing, by what they do."""


SETTINGS = (settings_module, cache_settings, effect_settings)


def constants() -> Iterator[tuple[str, int]]:
    """The public limits of modules, and how much they are where that is a number."""
    for folder in ("coordinator", "shared", "gateways"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                targets += [node.target] if isinstance(node, ast.AnnAssign) else []
                named = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
                for name in (each.id for each in named if re.fullmatch(r"[A-Z][A-Z_]*_MAX(_[A-Z]+)*", each.id)):
                    yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def of_settings() -> Iterator[tuple[str, int]]:
    """The limits that are settings, under their names in the environment."""
    groups = {id(group): group for module in SETTINGS for group in vars(module).values()}
    for group in groups.values():
        if isinstance(group, type) and issubclass(group, Limits):
            for field, known in group.model_fields.items():
                if field.endswith("_max"):
                    yield group.shown(field), known.default


LIMITS = dict(constants()) | dict(of_settings())


def test_every_limit_is_tried_and_none_is_that_is_gone() -> None:
    groups = [PROBES.keys(), TRIED_IN.keys(), OWN.keys()]
    assert sorted(itertools.chain(*groups)) == sorted(LIMITS), "a new limit needs a test: see the top of this file"


@pytest.mark.parametrize("limit", PROBES)
def test_a_limit_is_taken_and_one_more_is_not(limit: str) -> None:
    most, takes = CHOSEN.get(limit, LIMITS[limit]), PROBES[limit]
    assert [takes(most - 1), takes(most), takes(most + 1)] == [True, True, False]


@pytest.mark.parametrize(("limit", "file"), TRIED_IN.items())
def test_a_limit_that_is_tried_elsewhere_is_named_there(limit: str, file: str) -> None:
    name = limit.rpartition(".")[2]
    field = name.partition("_")[2].lower() if "." not in limit else name
    assert re.search(rf"\b({name}|{field})\b", (ROOT / file).read_text())
