"""Each account of Redis may call what the scripts of its process call, on every path through them."""

import re
from collections.abc import Iterable

import pytest

from coordinator.transports.rabbitmq.rights import (
    BrokerNames,
    effects_account,
    gateway_account,
    lane_account,
    lanes_account,
)
from coordinator.transports.redis import scripts
from coordinator.transports.redis.effects import scripts as effect_scripts
from coordinator.transports.redis.rights import redis_accounts, rules_of

CALL = re.compile(r"redis\.p?call\('(\w+)'(?:, '([A-Z]+)')?")
SUBCOMMANDS = ("xinfo", "xgroup")
OF_EFFECTS = tuple(each for each in vars(effect_scripts).values() if isinstance(each, scripts.Script))
ADDING = (scripts.GREET, scripts.ADD)
ACCOUNTS = {
    each.name: each for each in redis_accounts(BrokerNames(lanes=["seats"], calling=["seats"], gateways=["seats"]))
}


def called_by(texts: Iterable[scripts.Script]) -> set[str]:
    """The commands of these scripts, as rights name them."""
    found = {
        f"{command}|{second}".lower() if command.lower() in SUBCOMMANDS else command.lower()
        for each in texts
        for command, second in CALL.findall(each.text)
    }
    assert found
    return found


@pytest.mark.parametrize(
    ("account", "run"),
    [
        (lane_account("seats"), scripts.ALL),
        (effects_account("seats"), (*ADDING, *OF_EFFECTS)),
        (gateway_account("seats"), ADDING),
    ],
)
def test_an_account_may_call_what_its_scripts_call(account: str, run: tuple[scripts.Script, ...]) -> None:
    allowed = {rule[1:] for rule in rules_of(ACCOUNTS[account]) if rule.startswith("+")}
    assert called_by(run) <= allowed


def test_a_process_with_several_lanes_may_what_each_of_them_may_and_no_more() -> None:
    names = BrokerNames(lanes=["seats", "hats", "letters"], calling=["hats"], together={"main": ("seats", "hats")})
    accounts = {each.name: set(rules_of(each)) for each in redis_accounts(names)}
    assert accounts[lanes_account("main")] == accounts[lane_account("seats")] | accounts[lane_account("hats")]
