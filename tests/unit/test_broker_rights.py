"""What an account of RabbitMQ lacks is named, and how to come by it."""

import re
from pathlib import Path

import pika
import pytest
from click.testing import CliRunner
from pika.exceptions import ChannelClosedByBroker

from coordinator.cli import cli
from coordinator.transports.rabbitmq.definitions import rights_of
from coordinator.transports.rabbitmq.errors import refused
from coordinator.transports.rabbitmq.rights import BrokerNames, broker_accounts, lane_account, lanes_account


@pytest.mark.parametrize(("queue", "is_of_outcomes"), [("replies.writes.7f", True), ("writes.seats", False)])
def test_who_may_not_have_a_queue_of_outcomes_is_told_of_the_name_that_his_account_may(
    queue: str, *, is_of_outcomes: bool
) -> None:
    error = ChannelClosedByBroker(403, f"ACCESS_REFUSED - access to queue '{queue}' in vhost '/' refused for user 'u'")
    said = str(refused(pika.ConnectionParameters(), error, "queue_declare"))
    assert f"needs the right to configure queue {queue} in vhost '/'" in said
    assert "rabbitmqctl set_permissions gives it" in said
    assert ('name="gateway.SERVICE"' in said) is is_of_outcomes
    assert ("`coordinator broker-accounts --gateway NAME`" in said) is is_of_outcomes


def test_a_process_with_several_lanes_may_what_each_of_them_may_and_no_more() -> None:
    names = BrokerNames(
        lanes=["seats-acme", "seats-bolt", "letters"],
        calling=["letters"],
        together={"main": ("seats-acme", "letters")},
    )
    accounts = {account.name: rights_of(account) for account in broker_accounts(names)}
    own = accounts[lanes_account("main")]
    queues = [f"{lane}{kind}" for lane in names.lanes for kind in ("", ".dead", ".mark")]
    tried = [*(f"writes.{queue}" for queue in queues), "effects.letters", "effects.letters.dead", "effects.letters.x"]
    tried += ["writes", "writes.system", "writes.dead", "amq.default", "replies.gateway.letters.7f", "xwrites.letters"]
    for kind, pattern in own.items():
        alone = [accounts[lane_account(lane)][kind] for lane in names.together["main"]]
        for name in tried:
            is_one_s = any(re.search(each, name) is not None for each in alone)
            assert (re.search(pattern, name) is not None) is is_one_s, (kind, name)
    assert re.search(own["configure"], "writes.seats-bolt") is None


def test_the_account_of_several_lanes_is_printed_beside_the_others() -> None:
    ran = CliRunner().invoke(cli, ["broker-accounts", "--lanes", "main=users,items"])
    assert ran.exit_code == 0, ran.output
    assert (
        "# `coordinator run users items`: what each of these lanes may\nrabbitmqctl add_user main_lanes " in ran.stdout
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["main"], "is no name with lanes"),
        (["main=users,hats"], "'hats' is not one of"),
        (["Main=users"], "is not lower-case letters"),
        (["main=users", "main=items"], "names one process twice"),
    ],
)
def test_lanes_of_a_process_that_are_none_are_refused(given: list[str], words: str) -> None:
    ran = CliRunner().invoke(cli, ["broker-accounts", *(f"--lanes={each}" for each in given)])
    assert ran.exit_code == 2
    assert words in ran.stderr


def test_addresses_are_written_where_one_was_given_and_stay_where_none_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in ("AMQP_URL", "AMQP_URL_FILE", "BROKER_URL", "BROKER_URL_FILE"):
        monkeypatch.delenv(setting, raising=False)
    folder = tmp_path / "passwords"
    given = ["broker-accounts", "--passwords", str(folder)]
    first = CliRunner().invoke(cli, given)
    assert first.exit_code == 0, first.output
    assert "AMQP_URL is not set, so no addresses (.amqp_url) are written" in first.stderr
    assert (folder / "users_lane.password").exists()
    assert not (folder / "users_lane.amqp_url").exists()
    nodes = CliRunner().invoke(cli, given, env={"AMQP_URL": "amqp://x:y@a:5672,b:5672,c:5672/%2F"})
    assert (nodes.exit_code, nodes.stderr) == (0, "")
    written = (folder / "users_lane.amqp_url").read_text()
    assert written.endswith("@a:5672,b:5672,c:5672/%2F\n")
    assert CliRunner().invoke(cli, given).exit_code == 0
    assert (folder / "users_lane.amqp_url").read_text() == written
