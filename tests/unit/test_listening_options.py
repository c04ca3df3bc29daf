"""Where a gateway, and the gateway of operators, listen: by options, and by the variables that stand for them."""

from typing import Any

import pytest
from click.testing import CliRunner

from coordinator.cli import cli
from coordinator.runtime.misspelt import OPTIONS

SERVED = {"GATEWAY": ("gateway", "users"), "OPERATIONS": ("operations", "users")}
MODULES = {"GATEWAY": "coordinator.http.main.serve", "OPERATIONS": "coordinator.operations.main.serve"}


@pytest.mark.parametrize("gateway", SERVED)
@pytest.mark.parametrize("is_by_option", [True, False])
def test_each_of_them_arrives_where_it_listens(
    gateway: str, is_by_option: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[Any, ...]] = []
    monkeypatch.setattr(MODULES[gateway], lambda *arguments: served.append(arguments))
    said = {"host": "127.0.0.2", "port": "7001", "metrics-port": "7002"}
    names = {f"{gateway}_{option.upper().replace('-', '_')}": value for option, value in said.items()}
    assert names.keys() <= set(OPTIONS)
    options = [word for option, value in said.items() for word in (f"--{option}", value)] if is_by_option else []
    ran = CliRunner().invoke(cli, [*SERVED[gateway], *options], env={} if is_by_option else names)
    assert ran.exit_code == 0, ran.output
    (arguments,) = served
    assert (arguments[1], arguments[2], arguments[-1]) == ("127.0.0.2", 7001, 7002)
