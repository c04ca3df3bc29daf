"""Who may issue what, and to whom a continuation may go: decided when a command is admitted."""

import time
from typing import Any

import msgspec
import pytest

from coordinator.lane.control import CONTROL_HANDLERS, ReplayLetter
from coordinator.lane.delivery import Delivery, Settlement
from coordinator.lane.lane import Lane
from coordinator.lane.request import prepare
from coordinator.protocol.decoding import decode
from coordinator.protocol.wire import CommandMessage, Envelope
from coordinator.registry import registry, targets_of
from coordinator.runtime.settings import LaneSettings
from coordinator.service.continuation import Continuation
from coordinator.service.ids import continuation_command_id
from coordinator.service.options import Origin
from coordinator.service.service import Service
from coordinator.service.targets import Targets
from coordinator.service.unit_of_work import Handler, UnitOfWork
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from shared.payments import SERVICE as PAYMENTS
from shared.users import SERVICE as USERS
from tests.support.lane_contract import codes, command_id, delivery
from tests.support.ledger import LEDGER, Forward, OpenAccount
from tests.support.store_contract import NOW

TARGETS = Targets("users", targets_of(registry().services))
USERS_HANDLERS = {handler.command.type: handler for handler in USERS.handlers}


HEARD_BODY = b'{"command_id":"x","command_type":"t","status":"applied"}'


class Heard(Continuation, type="users.heard"):
    """What became of whatever. Anybody may name it: its handler is not internal."""


def heard(_work: UnitOfWork, _command: Heard) -> None: ...


HEARS = Service("users", handlers=[Handler(Heard, heard)])
MADE = continuation_command_id(f"users.create {command_id(1)}")


def defect_of(service: Service, message: CommandMessage) -> str | None:
    handlers = {handler.command.type: handler for handler in (*service.handlers, *CONTROL_HANDLERS)}
    defect = prepare(message, handlers, redelivered=False, targets=TARGETS).defect
    return None if defect is None else defect.code


def message(command_type: str, origin: Origin, **options: Any) -> CommandMessage:
    return CommandMessage(command_id=command_id(1), type=command_type, arguments=b"{}", origin=origin, **options)


def hidden(service: Service) -> list[str]:
    handlers = (*service.handlers, *CONTROL_HANDLERS)
    return [each.command.type for each in handlers if each.is_internal or each.is_operators]


@pytest.mark.parametrize("service", registry().services, ids=lambda service: service.name)
def test_of_every_service_strangers_may_issue_the_public_types_and_no_others(service: Service) -> None:
    assert {"lane.replay", "lane.discard", "lane.withdraw", "lane.release", "lane.dead_effect"} <= set(hidden(service))
    for command_type in hidden(service):
        assert defect_of(service, message(command_type, "public")) == "forbidden_command_type"
        assert defect_of(service, message(command_type, "system")) != "forbidden_command_type"
    for handler in service.public_handlers:
        assert defect_of(service, message(handler.command.type, "public")) != "forbidden_command_type"


@pytest.mark.parametrize(
    ("origin", "continuation", "defect"),
    [
        ("public", "users.continue_purchase", "forbidden_command_type"),
        ("system", "users.continue_purchase", None),
        ("public", "lane.replay", "unknown_lane"),
        ("public", "payments.capture_result", None),  # that lane refuses it, told who says it
        ("public", "nolane.whatever", "unknown_lane"),
        ("system", "nolane.whatever", "unknown_lane"),
        ("public", "effects.payments", "unknown_lane"),
    ],
)
def test_a_continuation_goes_to_a_lane_that_there_is(origin: Origin, continuation: str, defect: str | None) -> None:
    asked = message("users.delete", origin, continuation=continuation)
    asked = msgspec.structs.replace(asked, arguments=b'{"id":1}')
    assert defect_of(USERS, asked) == defect
    refused = prepare(asked, {}, redelivered=False, targets=TARGETS).message.continuation
    assert refused == (None if defect == "unknown_lane" else continuation)


@pytest.mark.parametrize(
    ("origin", "own_id", "defect"),
    [("public", command_id(1), "forbidden_command_type"), ("public", MADE, None), ("system", command_id(1), None)],
)
def test_what_became_of_a_command_only_a_lane_says(origin: Origin, own_id: str, defect: str | None) -> None:
    """Whoever may name a continuation for his own command cannot say it of another's, such as a saga's step."""
    asked = CommandMessage(command_id=own_id, type=Heard.type, arguments=HEARD_BODY, origin=origin)
    assert defect_of(HEARS, asked) == defect
    named = msgspec.structs.replace(message("lane.marker", "public"), continuation=Heard.type)
    handlers = {handler.command.type: handler for handler in HEARS.handlers}
    assert prepare(named, handlers, redelivered=False, targets=TARGETS).message.continuation == Heard.type


def test_nor_does_it_become_true_by_a_replay() -> None:
    database = MemoryDatabase()
    lane = Lane(HEARS, MemoryStore(database), lambda: NOW, "me", LaneSettings(), time.monotonic, TARGETS.known)
    forged = [decode(Envelope(message_id=own_id, type=Heard.type), HEARD_BODY) for own_id in (command_id(1), MADE)]
    settlement = lane.apply([Delivery(tag=tag, commands=each, reply_to="q") for tag, each in enumerate(forged, 1)], 1)
    assert isinstance(settlement, Settlement)
    assert codes(settlement.outcomes) == ["forbidden_command_type", "reserved_command_id"]
    orders = [delivery(10 + row.id, ReplayLetter(letter=row.id)) for row in database.rows(DeadLetter)]
    replayed = lane.apply(orders, 1)
    assert isinstance(replayed, Settlement)
    assert codes(replayed.outcomes) == ["forbidden_command_type", "forbidden_command_type"]


def test_effects_are_not_told_of_as_lanes() -> None:
    defect = prepare(message("lane.marker", "public", continuation="nolane.x"), {}, redelivered=False, targets=TARGETS)
    assert defect.defect is not None
    assert defect.defect.message.endswith("there is no lane 'nolane'; there are items, payments, users")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (b'{"nonsense":', "malformed_json", "truncated"),
        (b'{"nonsense": 1}', "invalid_arguments", "unknown field"),
        (b"", "malformed_json", "there are none"),
    ],
)
def test_what_is_no_json_is_not_told_of_its_fields(arguments: bytes, code: str, told: str) -> None:
    asked = msgspec.structs.replace(message("users.create", "public"), arguments=arguments)
    defect = prepare(asked, USERS_HANDLERS, redelivered=False).defect
    assert defect is not None
    assert (defect.code, told in defect.message) == (code, True)


def test_a_command_that_is_refused_for_its_continuation_sends_nothing_to_it() -> None:
    database = MemoryDatabase()
    lane = Lane(USERS, MemoryStore(database), lambda: NOW, "me", LaneSettings(), time.monotonic, TARGETS.known)
    batch = [
        delivery(number, b"{}", command_type="lane.marker", origin="public", continuation=continuation)
        for number, continuation in enumerate(("nolane.whatever", "users.continue_purchase"))
    ]
    settlement = lane.apply(batch, 1)
    assert isinstance(settlement, Settlement)
    assert codes(settlement.outcomes) == ["unknown_lane", "forbidden_command_type"]
    assert (settlement.emitted, database.rows(OutboxEntry)) == ([], [])


def test_a_handler_that_emits_to_nobody_fails_and_nothing_is_sent() -> None:
    database = MemoryDatabase()
    lane = Lane(LEDGER, MemoryStore(database), lambda: NOW, "me", LaneSettings(), time.monotonic, {"journal"})
    batch = [
        delivery(1, OpenAccount(owner="a")),
        delivery(2, Forward(id=1, amount=1)),
        delivery(3, OpenAccount(owner="b")),
    ]
    settlement = lane.apply(batch, 1)
    assert isinstance(settlement, Settlement)
    assert codes(settlement.outcomes) == ["applied", "handler_error", "applied"]
    assert database.rows(OutboxEntry) == []


def test_effects_of_a_service_are_targets_too() -> None:
    assert TARGETS.known is not None
    assert "effects.payments" in TARGETS.known
    assert PAYMENTS.name in TARGETS.known
