"""What the ingress makes of messages of outside accounts, and how fast it hands them on."""

from datetime import UTC, datetime
from typing import Any

import pika
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli import cli
from coordinator.protocol.wire import HEADER_MALFORMED, PACK_CONTENT, CommandMessage, encode_pack
from coordinator.runtime.settings import IngressSettings, LaneSettings
from coordinator.service.errors import ConfigurationError
from coordinator.service.ids import new_command_id
from coordinator.service.principal import Principal, UnbelievedAccount
from coordinator.transports.rabbitmq.incoming import delivery_of
from coordinator.transports.rabbitmq.ingress.carrying import Carrying, cost_of
from coordinator.transports.rabbitmq.ingress.holds import Hold, Holds
from coordinator.transports.rabbitmq.ingress.pace import Pace
from coordinator.transports.rabbitmq.ingress.sent_bytes import SentBytes
from coordinator.transports.rabbitmq.rights import BrokerNames, broker_accounts

AT_S = 1_700_000_000
CARRYING = Carrying("partner", "ingress", "ingress partner")
LANE = LaneSettings(
    gateway_accounts="ingress", account_scopes="partner=cashier ada=staff", reply_queues="partner=told billing=others"
)
CASHIER = Principal(subject="amqp:partner", scopes=frozenset({"cashier"}))
ADA = '{"subject": "ada", "scopes": ["staff"]}'


def named(**fields: Any) -> pika.BasicProperties:
    return pika.BasicProperties(**({"message_id": new_command_id(), "type": "t.t"} | fields))


def at_lane(properties: pika.BasicProperties, body: bytes = b"{}", exchange: str = "ingress.partner") -> Any:
    """The delivery that the lane makes of what the ingress hands on."""
    carried = CARRYING.carried(exchange, properties, AT_S)
    return delivery_of(pika.spec.Basic.Deliver(delivery_tag=1, exchange="writes"), carried, body, LANE)


@pytest.mark.parametrize(
    ("fields", "actor"),
    [
        ({}, CASHIER),
        ({"user_id": "partner"}, CASHIER),
        ({"headers": {"no-actor": False}}, CASHIER),
        ({"headers": {"sender": ""}}, CASHIER),
        # He says for whom he asks, and is no gateway: no rule allows that.
        ({"headers": {"actor": ADA}}, UnbelievedAccount(subject="amqp:partner", scopes=CASHIER.scopes)),
        (
            {"headers": {"actors": "x", "no-actor": True}},
            UnbelievedAccount(subject="amqp:partner", scopes=CASHIER.scopes),
        ),
        ({"headers": {"no-actor": True}}, None),
        ({"headers": {"no-actor": "true"}}, None),
        # Whoever published there with more rights than he has.
        ({"user_id": "billing"}, None),
        ({"user_id": "billing", "headers": {"actor": ADA}}, None),
        ({"user_id": "ingress", "headers": {"actor": ADA}}, None),
    ],
)
def test_who_asks_is_the_account_whose_exchange_it_is(fields: dict[str, Any], actor: Principal | None) -> None:
    (command,) = at_lane(named(**fields)).commands
    assert (command.defect, command.actor, type(command.actor)) == (None, actor, type(actor))
    assert (command.origin, command.is_strangers) == ("public", True)


@pytest.mark.parametrize("exchange", ["", "writes", "writes.system", "ingress.billing", "ingress.partner.x", b"\xff"])
def test_what_came_another_way_has_nobody_who_asks(exchange: Any) -> None:
    (command,) = at_lane(named(user_id="partner"), exchange=exchange).commands
    assert (command.defect, command.actor, command.origin, command.is_strangers) == (None, None, "public", True)


def test_a_gateway_names_an_account_and_no_scopes_of_it() -> None:
    for said in ('"scopes": ["staff"]', '"tenant": "acme"'):
        actor = f'{{"subject": "amqp:ada", {said}}}'
        properties = named(user_id="ingress", headers={"actor": actor})
        method = pika.spec.Basic.Deliver(delivery_tag=1, exchange="writes")
        (command,) = delivery_of(method, properties, b"{}", LANE).commands
        assert command.defect is not None
        assert (command.defect.code, command.actor) == ("invalid_header", None)


def test_what_has_a_meaning_goes_on_and_nothing_else() -> None:
    kept = {"deadline": 2**53, "expected-version": "7", "publisher": "p", "publisher-seq": 1, "continuation": "t.next"}
    kept |= {"command-version": 2, "traceparent": "00-x", "tracestate": "a=b", "reply-packs": True, "command-id": "x"}
    other = {
        "origin": "system",
        "sender": "",
        "replayed": True,
        "result-of": "t.t x",
        "CC": ["a"],
        "x-death": [{"a": 1}],
    }
    other |= {"publish-number": 7, "x": "y", "actor": ADA}
    given_properties = named(
        headers=kept | other,
        reply_to="told",
        correlation_id="mine",
        priority=9,
        expiration="1",
        user_id="partner",
        app_id="forged",
        timestamp=1,
        cluster_id="x",
        delivery_mode=1,
    )
    carried = CARRYING.carried("ingress.partner", given_properties, AT_S)
    assert {name: value for name, value in carried.headers.items() if name not in ("actor", "sender")} == kept
    assert (carried.message_id, carried.type) == (given_properties.message_id, "t.t")
    assert (carried.reply_to, carried.correlation_id, carried.priority) == ("told", "mine", 9)
    assert (carried.expiration, carried.cluster_id) == (None, None)
    assert (carried.user_id, carried.app_id, carried.timestamp) == ("ingress", "ingress partner", AT_S)
    assert carried.delivery_mode == 2


def test_outcomes_go_to_the_account_s_own_queue_and_to_no_other_s() -> None:
    assert at_lane(named(reply_to="told")).reply_to == "told"
    assert at_lane(named(reply_to="others")).reply_to is None
    assert at_lane(named(reply_to="told", user_id="billing")).reply_to is None


def test_a_trace_that_is_none_takes_no_room() -> None:
    for value in ("x" * 1025, b"\xff", {"a": 1}, 7):
        headers = {"traceparent": value, "tracestate": value, "tracestates": value}
        carried = CARRYING.carried("ingress.partner", named(headers=headers), AT_S)
        assert set(carried.headers) == {"actor", "sender"}


def test_what_cannot_be_handed_on_is_a_dead_letter_of_its_account() -> None:
    properties = CARRYING.unreadable("ingress.partner", named(reply_to="told"), AT_S, "\x00é" * 5000)
    method = pika.spec.Basic.Deliver(delivery_tag=1, exchange="writes")
    (command,) = delivery_of(method, properties, b"{}", LANE).commands
    assert command.defect is not None
    assert (command.defect.code, command.command_id, command.actor) == ("malformed_properties", None, CASHIER)
    assert len(b"".join(properties.encode())) < 2000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    [
        *("actor", "actors", "no-actor", "sender", "origin", "deadline", "publisher", "publisher-seq", "continuation"),
        *("traceparent", "tracestate", "tracestates", "reply-packs", "command-id", "command-type", HEADER_MALFORMED),
    ]
)
_TEXTS = st.none() | st.text(max_size=20) | st.binary(max_size=20)


@given(
    st.dictionaries(_NAMES, _VALUES | st.just(datetime(2020, 1, 1, tzinfo=UTC)), max_size=5),
    st.fixed_dictionaries(dict.fromkeys(("message_id", "type", "reply_to", "correlation_id", "user_id"), _TEXTS)),
    st.none() | st.sampled_from(["application/json", PACK_CONTENT]) | st.binary(max_size=5),
    st.binary(max_size=50) | st.sampled_from([b"[{}]", b"[1,null]", b"[" * 2000]),
    st.none() | st.integers(0, 255),
)
def test_whatever_is_published_nobody_speaks_for_another_or_as_the_system(
    headers: dict[str, Any], texts: dict[str, Any], content_type: Any, body: bytes, priority: int | None
) -> None:
    properties = pika.BasicProperties(headers=headers, content_type=content_type, priority=priority, **texts)
    assert cost_of(properties, body) >= 1
    for command in at_lane(properties, body).commands:
        assert command.origin == "public"
        assert command.actor is None or command.actor.subject == "amqp:partner"
        # But for what its lane cannot make sense of at all.
        assert command.is_strangers or (command.defect is not None and command.defect.code == "malformed_message")


def test_a_message_costs_its_commands_and_its_bytes() -> None:
    assert cost_of(named(), b"{}") == 1
    assert cost_of(named(), b" " * 4095) == 1
    assert cost_of(named(), b" " * 40_960) == 11
    pack = encode_pack([CommandMessage(new_command_id(), "t.t", b"{}") for _ in range(500)])
    assert cost_of(pika.BasicProperties(content_type=PACK_CONTENT), pack) == 500 + len(pack) // 4096
    # A pack of too many is refused by its lane, one command after the other.
    refused = encode_pack([CommandMessage(new_command_id(), "t.t", b"{}") for _ in range(2000)])
    assert cost_of(pika.BasicProperties(content_type=PACK_CONTENT), refused) >= 2000


def test_commands_go_on_at_their_rate() -> None:
    now_s = [100.0]
    pace = Pace(IngressSettings(account_rate_max=10, account_burst_max=5), lambda: now_s[0])
    assert [pace.take(1) for _ in range(5)] == [None] * 5
    assert pace.take(1) == pytest.approx(0.1)
    now_s[0] += 0.101
    # A pack is taken when one could be, and those behind it wait for all of it.
    assert pace.take(31) is None
    now_s[0] += 1.0
    assert pace.take(1) == 1.0
    now_s[0] += 2.2
    assert pace.take(1) is None


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace(IngressSettings(account_rate_max=0), lambda: 0.0)
    assert [pace.take(1000) for _ in range(1000)] == [None] * 1000


def test_no_more_of_an_account_waits_than_it_has_sent_last() -> None:
    sent = SentBytes(messages_max=3)
    assert sent.waiting_max("users", 5) == 0
    for size in (1000, 100, 10, 1):
        sent.note("users", size)
    waiting = [sent.waiting_max("users", ready) for ready in range(6)]
    assert waiting == [0, 1, 11, 111, 111, 111]
    assert sent.waiting_max("items", 5) == 0


def test_what_waits_says_why_and_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    holds = Holds("partner")
    for _ in range(3):
        holds.begin(Hold("lane_full", "the queue of 'seats' is full"))
    assert holds.now == Hold("lane_full", "the queue of 'seats' is full")
    holds.end()
    holds.begin(Hold("rate", "too many"))
    holds.end()
    out = capsys.readouterr().out
    assert (out.count("ingress_held"), out.count("ingress_goes_on")) == (1, 1)
    assert holds.now is None


def test_what_is_left_to_the_next_consumer_is_not_said_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    holds = Holds("partner")
    holds.begin(Hold("lane_missing", "the queue of seats is not there"))
    holds.leave()
    assert holds.now is None
    assert "ingress_goes_on" not in capsys.readouterr().out
    holds.begin(Hold("lane_missing", "the queue of seats is not there"))
    holds.end()
    assert capsys.readouterr().out.count("ingress_goes_on") == 1


@pytest.mark.parametrize(
    ("environment", "named_setting"),
    [
        ({"INGRESS_ACCOUNTS": ""}, "INGRESS_ACCOUNTS: it names no account"),
        ({"INGRESS_ACCOUNTS": "partner ingress"}, "INGRESS_ACCOUNTS: ingress is the account of this process itself"),
        ({"INGRESS_ACCOUNTS": "a,b"}, "INGRESS_ACCOUNTS: 'a,b' is written as a list in another form"),
        ({"INGRESS_ACCOUNTS": "partner", "AMQP_URL": "redis://x"}, "on Redis others write over HTTP"),
    ],
)
def test_what_cannot_be_an_ingress_does_not_start(environment: dict[str, str], named_setting: str) -> None:
    given_environment = {"AMQP_URL": "amqp://ingress:x@127.0.0.1:9/%2F"} | environment
    ran = CliRunner().invoke(cli, ["ingress"], env=given_environment)
    assert isinstance(ran.exception, ConfigurationError)
    assert named_setting in str(ran.exception)


def test_outside_accounts_write_to_their_exchanges_alone() -> None:
    accounts = {each.name: each for each in broker_accounts(BrokerNames(lanes=["seats"], outside=["a", "a.b"]))}
    assert accounts["a"].rights.write == r"^ingress\.a$"
    assert (accounts["a"].rights.configure, accounts["a"].rights.read) == ("^$", "^$")
    assert accounts["a"].limits == accounts["public"].limits
    ingress = accounts["ingress"].rights
    assert ingress.configure == ingress.read == r"^(ingress\.a|ingress\.a\.b)$"
    assert ingress.write == r"^(writes|(ingress\.a|ingress\.a\.b)|(writes\.seats))$"
    assert BrokerNames(lanes=["seats"], gateways=["seats"], outside=["a"]).gateway_accounts == (
        "seats_gateway",
        "ingress",
    )
    assert "ingress" not in {each.name for each in broker_accounts(BrokerNames(lanes=["seats"]))}


@pytest.mark.parametrize("name", ["seats_lane", "operator", "public", "ingress"])
def test_an_outside_account_has_no_name_of_the_system_s(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"INGRESS_ACCOUNTS: {name} is an account of this system's"):
        broker_accounts(BrokerNames(lanes=["seats"], outside=["partner", name]))


def test_the_accounts_of_an_ingress_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGRESS_ACCOUNTS", "partner")
    lines = CliRunner().invoke(cli, ["broker-accounts"]).stdout.splitlines()
    assert r"rabbitmqctl set_permissions -p / partner '^$' '^ingress\.partner$' '^$'" in lines
    assert any(line.startswith("rabbitmqctl set_permissions -p / ingress ") for line in lines)
