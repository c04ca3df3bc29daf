"""Who asks, as it travels: what is believed of it, and what fits."""

import asyncio
from contextvars import copy_context
from typing import Any

import msgspec
import pika
import pytest
from structlog.testing import capture_logs

from coordinator.client.acting import begin_acting, note_issued
from coordinator.protocol.actors import (
    ACTORS_BYTES_MAX,
    HEADER_ACTOR,
    HEADER_ACTORS,
    HeaderRoom,
    encoded_actors,
    logged_actor,
)
from coordinator.protocol.decoding import decode
from coordinator.protocol.fingerprints import UNKEYED
from coordinator.protocol.issuing import issuable
from coordinator.protocol.wire import PACK_CONTENT, CommandMessage, Envelope, encode_pack, headers_of
from coordinator.runtime.settings import BrokerSettings, LaneSettings
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import new_command_id
from coordinator.service.principal import (
    SCOPES_CHARACTERS_MAX,
    SUBJECT_CHARACTERS_MAX,
    TENANT_CHARACTERS_MAX,
    Principal,
    UnbelievedAccount,
    defect_of,
)
from coordinator.transports.in_flight import InFlight, packs_of
from coordinator.transports.rabbitmq.incoming import dead_delivery_of, delivery_of
from coordinator.transports.rabbitmq.writes import RabbitWrites

ADA = Principal(subject="ada", tenant="acme", scopes=frozenset({"b", "a"}))
BOB = Principal(subject="bob")
ACCOUNT = Principal(subject="amqp:users_gateway")
UNBELIEVED = UnbelievedAccount(subject="amqp:users_gateway")
LARGEST = Principal(
    subject="\U0001f600" * SUBJECT_CHARACTERS_MAX,
    tenant="\U0001f600" * TENANT_CHARACTERS_MAX,
    scopes=frozenset(f"{number:040}" for number in range(SCOPES_CHARACTERS_MAX // 40)),
)


def message(actor: Principal | None = None, **fields: Any) -> CommandMessage:
    return CommandMessage(command_id=new_command_id(), type="t.t", arguments=b"{}", actor=actor, **fields)


def received(headers: dict[str, Any], body: bytes = b"{}", **properties: Any) -> list[CommandMessage]:
    known = {"message_id": new_command_id(), "type": "t.t", "headers": headers} | properties
    return list(decode(Envelope(**known), body))


@pytest.mark.parametrize(
    ("sender", "actor"),
    [
        ({"is_system": True}, ADA),
        ({"user_id": "gateway", "is_gateway": True}, ADA),
        ({"user_id": "gateway"}, UnbelievedAccount(subject="amqp:gateway")),
        ({"user_id": "\u200b"}, None),
        ({"user_id": "x" * 255}, None),
        ({}, None),
    ],
)
def test_who_is_believed_when_he_says_who_asks(sender: dict[str, Any], actor: Principal | None) -> None:
    (single,) = received(headers_of(message(ADA)), **sender)
    pack = received({HEADER_ACTOR: ADA.as_json}, encode_pack([message()] * 2), content_type=PACK_CONTENT, **sender)
    by_place = received(encoded_actors([ADA, BOB]), encode_pack([message()] * 2), content_type=PACK_CONTENT, **sender)
    assert [each.defect for each in (single, *pack, *by_place)] == [None] * 5
    assert [each.actor for each in (single, *pack, by_place[0])] == [actor] * 4
    assert by_place[1].actor == (BOB if actor == ADA else actor)


def test_without_a_word_of_it_nobody_is_known_but_the_broker_s_account() -> None:
    for sender, actor in (
        ({"is_system": True, "user_id": "lane"}, None),
        ({"user_id": "gateway", "is_gateway": True}, None),
        ({"user_id": "billing"}, Principal(subject="amqp:billing")),
    ):
        (single,) = received({}, **sender)
        assert single.actor == actor


def test_an_account_has_the_scopes_that_the_lane_s_settings_give_it_and_a_gateway_those_of_whom_it_names() -> None:
    settings = LaneSettings(gateway_accounts="gateway", account_scopes="billing=payments billing=staff stock=stock")

    def actor_of(user: str | None, exchange: str = "writes", **headers: str) -> Principal | None:
        properties = pika.BasicProperties(message_id=new_command_id(), type="t.t", user_id=user, headers=headers)
        method = pika.spec.Basic.Deliver(delivery_tag=1, exchange=exchange)
        (single,) = delivery_of(method, properties, b"{}", settings).commands
        (dead,) = dead_delivery_of("t", method, properties, b"{}", settings).commands
        assert exchange == "writes.system" or dead.actor == single.actor
        return single.actor

    claim = {"actor": ADA.as_json}
    billing = Principal(subject="amqp:billing", scopes=frozenset({"payments", "staff"}))
    assert actor_of("billing") == billing
    assert actor_of("billing", **claim) == UnbelievedAccount(subject=billing.subject, scopes=billing.scopes)
    assert actor_of("stock") == Principal(subject="amqp:stock", scopes=frozenset({"stock"}))
    assert actor_of("other") == Principal(subject="amqp:other")
    assert actor_of(None) is None
    assert (actor_of("gateway"), actor_of("gateway", **claim)) == (None, ADA)
    assert (actor_of("billing", "writes.system"), actor_of("billing", "writes.system", **claim)) == (None, ADA)


def test_outcomes_go_to_a_queue_of_an_account_for_what_that_account_has_asked() -> None:
    settings = LaneSettings(reply_queues="billing=told stock=told ada=ada.told")

    def reply_to(user: str | None, queue: str | None) -> str | None:
        properties = pika.BasicProperties(message_id=new_command_id(), type="t.t", user_id=user, reply_to=queue)
        method = pika.spec.Basic.Deliver(delivery_tag=1, exchange="writes")
        live = delivery_of(method, properties, b"{}", settings).reply_to
        assert dead_delivery_of("t", method, properties, b"{}", settings).reply_to == live
        return live

    with capture_logs() as logs:
        assert [reply_to(user, "told") for user in ("billing", "stock", "ada", None)] == ["told", "told", None, None]
        assert [reply_to(user, "ada.told") for user in ("billing", "ada")] == [None, "ada.told"]
    told = [(line["event"], line["reply_to"], line["user"]) for line in logs]
    assert told == [("reply_queue_not_his", "told", "ada"), ("reply_queue_not_his", "ada.told", "billing")]
    assert [reply_to(user, "replies.a") for user in ("billing", None)] == ["replies.a"] * 2
    assert reply_to("billing", None) is None


@pytest.mark.parametrize(
    ("as_account", "commands", "known", "unknown"),
    [
        # Of a lane that knows this gateway, and of one that was told of none.
        (False, [message()], [None], [None]),
        (False, [message(), message()], [None, None], [None, None]),
        (True, [message()], [None], [ACCOUNT]),
        (True, [message(), message()], [None, None], [ACCOUNT, ACCOUNT]),
        (False, [message(ADA)], [ADA], [UNBELIEVED]),
        (False, [message(ADA), message()], [ADA, None], [UNBELIEVED, UNBELIEVED]),
        (True, [message(ADA), message()], [ADA, None], [UNBELIEVED, UNBELIEVED]),
    ],
)
async def test_each_message_names_its_account_which_asks_for_nothing_unless_it_was_told_to(
    monkeypatch: pytest.MonkeyPatch,
    as_account: bool,
    commands: list[CommandMessage],
    known: list[Principal | None],
    unknown: list[Principal | None],
) -> None:
    """What everybody sends through an open gateway is nobody's, also where the lane does not know that it is one."""
    broker = BrokerSettings(url="amqp://users_gateway:secret@127.0.0.1:9")
    writes = RabbitWrites(
        broker, confirm_timeout_s=1, wait_s=1, in_flight_max=9, log=None, name="gateway.users", as_account=as_account
    )
    sent: list[tuple[str, pika.BasicProperties, bytes]] = []

    def publish(exchange: str, _: str, properties: pika.BasicProperties, body: bytes, **__: Any) -> Any:
        sent.append((exchange, properties, body))
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(writes._publisher, "publish", publish)
    loop = asyncio.get_running_loop()
    writes._publish("t", [InFlight(each, loop.create_future(), 1.0) for each in commands], is_alone=False)
    ((exchange, properties, body),) = sent
    assert properties.user_id == "users_gateway"
    for gateways, expected, is_strangers in (
        ("users_gateway", known, False),
        ("", unknown, False),
        ("x", unknown, True),
    ):
        method = pika.spec.Basic.Deliver(delivery_tag=1, exchange=exchange)
        found = delivery_of(method, properties, body, LaneSettings(gateway_accounts=gateways)).commands
        assert [each.actor for each in found] == expected
        assert {(each.defect, each.is_strangers) for each in found} == {(None, is_strangers)}


async def test_what_the_system_issues_names_its_account_and_says_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = RabbitWrites(BrokerSettings(), confirm_timeout_s=1, wait_s=1, in_flight_max=9, log=None, is_system=True)
    sent: list[pika.BasicProperties] = []

    def publish(_: str, __: str, properties: pika.BasicProperties, *___: Any, **____: Any) -> Any:
        sent.append(properties)
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(writes._publisher, "publish", publish)
    entry = InFlight(message(origin="system"), asyncio.get_running_loop().create_future(), 1.0)
    writes._publish("t", [entry], is_alone=True)
    assert [(each.user_id, each.headers) for each in sent] == [("guest", {})]


@pytest.mark.parametrize(
    ("headers", "actor"),
    [
        ({"no-actor": True}, None),
        # As amqp-publish writes it.
        ({"no-actor": "true"}, None),
        ({"no-actor": False}, ACCOUNT),
        ({"no-actor": "yes"}, ACCOUNT),
        ({"no-actor": [True]}, ACCOUNT),
        ({"no-actor": None}, ACCOUNT),
        # Who names somebody is not believed because he says that it is nobody.
        ({"no-actor": True, "actor": ADA.as_json}, UNBELIEVED),
    ],
)
def test_whoever_says_that_nobody_asks_is_believed_as_nobody_may_do_less(
    headers: dict[str, Any], actor: Principal | None
) -> None:
    (found,) = received(headers, user_id="users_gateway", scopes=frozenset())
    assert (found.actor, found.defect) == (actor, None)


@pytest.mark.parametrize(
    "headers",
    [
        {"actor": ""},
        {"actor": "ada"},
        {"actor": '{"subject":""}'},
        {"actor": '{"tenant":"acme"}'},
        {"actor": '{"subject":"amqp:billing"}'},
        {"actor": '{"subject":"ada","scopes":["a b"]}'},
        {"actor": '{"subject":["ada"]}'},
        {"actor": "[" * 100_000},
        {"actor": 7},
        {"actor": b"\xff"},
        {"actor": None},
        {"actors": '{"actors":[{"subject":"ada"}],"of":[0]}', "actor": '{"subject":"ada"}'},
        {"actors": '{"actors":[{"subject":"ada"}],"of":[0,0,0]}'},
        {"actors": '{"actors":[{"subject":"ada"}],"of":[1]}'},
        {"actors": '{"actors":[{"subject":"ada"}],"of":[-1]}'},
        {"actors": '{"actors":[{"subject":""}],"of":[0]}'},
        {"actors": '{"actors":[]}'},
        {"actors": 7},
    ],
)
def test_who_asks_and_cannot_be_read_is_nobody_and_nothing_is_applied_for_him(headers: dict[str, Any]) -> None:
    (found,) = received(headers, user_id="gateway", is_gateway=True)
    assert found.defect is not None
    assert (found.defect.code, found.actor) == ("invalid_header", None)
    # A stranger's words are not even read.
    (strangers,) = received(headers)
    assert (strangers.defect, strangers.actor) == (None, None)


def test_a_pack_that_is_refused_stays_refused_for_its_own_reason() -> None:
    body = encode_pack([message(), message()])
    envelope = Envelope(
        content_type=PACK_CONTENT, headers=encoded_actors([ADA, BOB]), user_id="gateway", is_gateway=True
    )
    for each in (decode(envelope, body, bytes_max=1), decode(envelope, body, commands_max=1)):
        assert {command.defect.code for command in each if command.defect} <= {"message_too_large", "pack_too_large"}
        assert all(command.defect for command in each)


def test_the_system_passes_on_an_account_of_the_broker_s() -> None:
    billing = Principal(subject="amqp:billing")
    (found,) = received(headers_of(message(billing)), is_system=True)
    assert (found.defect, found.actor) == (None, billing)
    assert issuable(message(billing, origin="system")).actor == billing
    assert defect_of(billing) is not None


@pytest.mark.parametrize("actor", [Principal(subject=""), Principal(subject="amqp:x"), "ada", Principal(subject=7)])  # type: ignore[arg-type]
def test_nobody_issues_a_command_for_who_cannot_be(actor: Any) -> None:
    for _ in ("found out", "remembered"):
        with pytest.raises(InvalidCommand, match="actor"):
            issuable(message(actor))


def test_it_is_the_same_command_whoever_asks() -> None:
    one = message(ADA)
    assert UNKEYED.of(one) == UNKEYED.of(CommandMessage(one.command_id, one.type, one.arguments, actor=BOB))


def test_the_log_has_the_subject_and_the_tenant() -> None:
    assert ADA.as_logged == '{"subject":"ada","tenant":"acme"}'
    assert (logged_actor(BOB.as_logged).subject, logged_actor(BOB.as_logged).tenant) == ("bob", None)


async def _packs(actors: list[Principal | None]) -> list[list[Principal | None]]:
    loop = asyncio.get_running_loop()
    issued = [InFlight(message(actor), loop.create_future(), 1.0) for actor in actors]
    return [[entry.message.actor for entry in pack] for pack, _ in packs_of(issued, lambda _: False)]


async def test_commands_of_several_who_ask_share_a_pack_while_its_head_has_room() -> None:
    assert await _packs([ADA, BOB, None, ADA]) == [[ADA, BOB, None, ADA]]
    assert await _packs([ADA] * 500) == [[ADA] * 500]
    many: list[Principal | None] = [Principal(subject=f"{number:0200}") for number in range(50)]
    packs = await _packs(many)
    assert [actor for pack in packs for actor in pack] == many
    assert 1 < len(packs) < 10
    widest: list[list[Principal | None]] = [[LARGEST, *[None] * 499], [LARGEST] * 500]
    for pack in (*packs, *widest):
        (header,) = encoded_actors(pack).values()
        # The rest of a message's head has about 700 bytes.
        assert len(header.encode()) < ACTORS_BYTES_MAX + 30 < 8192 - 700
    assert defect_of(LARGEST) is None
    assert await _packs([LARGEST, ADA, LARGEST]) == [[LARGEST, ADA, LARGEST]]
    other = msgspec.structs.replace(LARGEST, subject="\U0001f601" * SUBJECT_CHARACTERS_MAX)
    assert await _packs([LARGEST, other]) == [[LARGEST], [other]]


def test_the_header_of_a_pack_names_each_once() -> None:
    assert encoded_actors([None, None]) == {}
    assert list(encoded_actors([BOB, BOB])) == [HEADER_ACTOR]
    assert encoded_actors([BOB, None, BOB]) == {
        HEADER_ACTORS: '{"actors":[{"subject":"bob","tenant":null,"scopes":[]}],"of":[0,null,0]}'
    }


def test_a_task_issues_for_whom_it_acts() -> None:
    def actor_of(given: CommandMessage) -> Principal | None:
        return note_issued("t", given).message.actor

    def acting() -> None:
        acting = begin_acting()
        assert actor_of(message()) is None
        acting.actor = ADA
        assert actor_of(message()) == ADA
        assert actor_of(message(BOB)) == BOB
        assert [each.message.actor for each in acting.issued] == [None, ADA, BOB]

    copy_context().run(acting)
    assert actor_of(message()) is None


@pytest.mark.parametrize("scopes", ["non-staff", ["staff"], {"staff"}, None])
def test_the_scopes_of_a_principal_are_a_frozenset(scopes: Any) -> None:
    """In a text `in` would find a part of a scope."""
    with pytest.raises(TypeError, match="the scopes of a Principal are a frozenset of texts"):
        Principal(subject="ada", scopes=scopes)


def test_a_header_has_room_for_many_actors_and_counts_each_once() -> None:
    room = HeaderRoom()
    actors = [Principal(subject=f"client-{number}", tenant="shop", scopes=ADA.scopes) for number in range(200)]
    commands: list[Principal | None] = []
    for actor in actors:
        if not all(room.take(each) for each in (actor, actor, None)):
            break
        commands += [actor, actor, None]
    assert ACTORS_BYTES_MAX - 400 < len(encoded_actors(commands)[HEADER_ACTORS].encode()) < ACTORS_BYTES_MAX + 30


def test_a_pack_of_sixty_four_who_ask_has_room_for_each() -> None:
    """As many as there are connections of a busy gateway; two messages would cost broker and lane twice as much."""
    room = HeaderRoom()
    scopes = frozenset({"read", "credit"})
    assert all(room.take(Principal(subject=f"client-{number}", tenant="shop", scopes=scopes)) for number in range(64))
    assert HeaderRoom().take(LARGEST), "the first one travels in any case"


def test_a_lane_that_knows_its_gateways_knows_what_comes_from_none_of_them() -> None:
    def is_strangers(user: str | None, exchange: str = "writes", gateways: str = "users_gateway", **of: Any) -> bool:
        properties = pika.BasicProperties(message_id=new_command_id(), type="t.t", user_id=user, **of)
        method = pika.spec.Basic.Deliver(delivery_tag=1, exchange=exchange)
        (command,) = delivery_of(method, properties, b"{}", LaneSettings(gateway_accounts=gateways)).commands
        return command.is_strangers

    assert (is_strangers("public"), is_strangers(None), is_strangers("users_gateway")) == (True, True, False)
    assert is_strangers("public", headers={HEADER_ACTOR: ADA.as_json}), "he is not believed"
    assert not is_strangers("operator", "writes.system"), "only the system's accounts may publish there"
    assert not is_strangers("public", gateways=""), "it was told of no gateway"
