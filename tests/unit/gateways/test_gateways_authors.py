"""Whatever a command's class or an upgrade does in a gateway is that request's failure, and nothing else."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
import pytest

from coordinator.client.writes import value_of
from coordinator.http import gateway_of
from coordinator.service.commands import Command
from coordinator.service.errors import OutcomeUnreadable
from coordinator.service.outcome import Outcome
from coordinator.service.service import Service
from coordinator.service.unit_of_work import UnitOfWork
from tests.unit.gateways.conftest import RunningGateway, Start
from tests.unit.gateways.gateway_fakes import RESULTS

STRANGE = Service("strange")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class UnprintableValidation(msgspec.ValidationError):
    def __str__(self) -> str:
        raise SystemExit


def raises(error: BaseException) -> Callable[[], NoReturn]:
    def function() -> NoReturn:
        raise error

    return function


def recurse() -> NoReturn:
    recurse()


ERRORS: dict[str, Callable[[], NoReturn]] = {
    "KeyError": raises(KeyError("secret")),
    "Unprintable": raises(Unprintable()),
    "UnprintableValidation": raises(UnprintableValidation()),
    "RecursionError": recurse,
    "DecodeError": raises(msgspec.DecodeError("secret")),
    "CancelledError": raises(asyncio.CancelledError("secret")),
    "SystemExit": raises(SystemExit("secret")),
    "KeyboardInterrupt": raises(KeyboardInterrupt("secret")),
}


class Do(Command, type="strange.do", version=2):
    what: str

    def __post_init__(self) -> None:
        if self.what in ERRORS:
            ERRORS[self.what]()


class Done(msgspec.Struct):
    what: str

    def __post_init__(self) -> None:
        if self.what in ERRORS:
            ERRORS[self.what]()


@STRANGE.upgrades(Do, from_version=1)
def named(given: dict[str, Any]) -> dict[str, Any]:
    if given["how"] in ERRORS:
        ERRORS[given["how"]]()
    return {"what": given["how"]}


@STRANGE.handles(Do)
def do(_work: UnitOfWork, command: Do) -> Done:
    return Done(what=command.what)


@pytest.fixture
async def gateway(start: Start, monkeypatch: pytest.MonkeyPatch) -> RunningGateway:
    monkeypatch.setitem(RESULTS, "strange.do", Done(what="all"))
    return await start(gateway_of(STRANGE))


@pytest.mark.parametrize("error", ERRORS)
async def test_of_a_command_s_class(gateway: RunningGateway, error: str) -> None:
    for command, field in (
        (("/strange/commands/do", {"what": error}), None),
        (("/commands", [{"type": "strange.do", "args": {"what": error}}]), "[0].args"),
    ):
        path, body = command
        response, problem = await gateway.call("POST", path, json=body)
        assert (response.status, problem["code"], problem.get("field")) == (422, "invalid_arguments", field)
        assert f"the class of strange.do raises {error} for these arguments" in problem["detail"]
        assert "secret" not in json.dumps(problem)
    assert gateway.writes.issued == []
    response, _ = await gateway.call("POST", "/strange/commands/do", json={"what": "all"})
    assert response.status == 200


@pytest.mark.parametrize("error", ERRORS)
async def test_of_an_upgrade(gateway: RunningGateway, error: str) -> None:
    older = {"Command-Version": "1"}
    response, problem = await gateway.call("POST", "/strange/commands/do", json={"how": error}, headers=older)
    assert (response.status, problem["code"]) == (422, "upgrade_failed")
    assert "secret" not in json.dumps(problem)
    response, _ = await gateway.call("POST", "/strange/commands/do", json={"how": "all"}, headers=older)
    assert response.status == 200


@pytest.mark.parametrize("error", ERRORS)
def test_of_a_result_s_class(error: str) -> None:
    result = msgspec.Raw(json.dumps({"what": error}).encode())
    outcome = Outcome(command_id="c", type="strange.do", status="applied", sequence=1, result=result)
    with pytest.raises(OutcomeUnreadable, match=error):
        value_of(outcome, "c", Done)
