"""What a handler says of its command is said once."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from msgspec import structs

from coordinator.client import Written
from coordinator.lane.reading import READS_MAX, Named, named_rows
from coordinator.lane.request import prepare
from coordinator.protocol.wire import CommandMessage
from coordinator.registry import registry
from coordinator.service.ids import new_command_id
from coordinator.service.unit_of_work import Handler
from coordinator.stores.row_checks import RowChecks
from tests.support.ledger import LEDGER, Account, Close, Deposit, OpenAccount, deposit


def test_a_handler_reads_its_target_unless_it_says_more() -> None:
    account = Account.at(7)
    request = prepare(
        CommandMessage(new_command_id(), Deposit.type, b'{"id":7,"amount":1}'),
        {Deposit.type: Handler(Deposit, deposit, target=lambda each: Account.at(each.id))},
        redelivered=False,
    )

    def read(**changed: Any) -> tuple[list[Named], dict[int, str]]:
        assert request.handler is not None
        handler = structs.replace(request.handler, **changed)
        return named_rows([structs.replace(request, handler=handler)], RowChecks())

    assert read() == ([account], {})
    assert read(reads=lambda each: (Account.at(each.id), Account.at(8))) == (
        [account, Account.at(8)],
        {},
    )
    assert read(target=lambda _: Account.at(9)) == ([Account.at(9)], {})
    assert read(target=None) == ([], {})
    assert read(reads=lambda _: ()) == ([], {})
    assert "target returns a reference" in read(target=lambda _: 5)[1][0]
    for made in (tuple, list, iter):
        # Whoever sends the command may choose how many: they are read before its rule is asked.
        named = [account] * READS_MAX
        assert read(reads=lambda _: made(named)) == (named, {})  # noqa: B023
        assert read(reads=lambda _: made([*named, account])) == (  # noqa: B023
            [],
            {0: f"`reads` of Deposit: ValueError: more than {READS_MAX} rows"},
        )


def test_a_handler_s_result_is_what_its_function_returns() -> None:
    results = {handler.command: handler.result for handler in LEDGER.handlers}
    assert (results[OpenAccount], results[Close]) == (Account, None)
    with pytest.raises(TypeError, match="does not say what it returns"):
        _ = Handler(Deposit, lambda work, command: None).result


def methods() -> Iterator[tuple[str, type, Any]]:
    """The methods of the services that issue a command, each with its command and what it promises to return."""
    for service in registry().services:
        module = importlib.import_module(f"shared.{service.name}.service")
        for _, owner in inspect.getmembers(module, inspect.isclass):
            own = inspect.getmembers(owner, inspect.isfunction) if owner.__module__ == module.__name__ else []
            for name, method in own:
                hints = get_type_hints(method)
                if get_origin(hints.get("return")) is Written:
                    yield f"{owner.__name__}.{name}", hints["command"], get_args(hints["return"])[0]


def test_services_promise_what_their_handlers_return() -> None:
    results = {handler.command: handler.result for each in registry().services for handler in each.handlers}
    found = list(methods())
    assert len(found) > 10
    for name, command, promised in found:
        assert (None if promised is type(None) else promised) is results[command], name
