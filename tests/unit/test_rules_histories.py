"""The rules of the reference system in random histories of several callers: batches, repetitions, crashes, takeovers.

Whatever happens, each command is refused or applied as if it had come alone, in its place in the order.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from coordinator import Command, Principal
from coordinator.lane import trying
from coordinator.lane.allowed import check_allowed
from coordinator.stores.lane_tables import Series
from coordinator.testing import NOW, SimulationFailed, simulate
from shared.users import SERVICE
from shared.users.commands import CreateUser, CreditUser, DeleteUser, TransferCredit, UpdateUser
from shared.users.model import User

ACTORS = (
    Principal(subject="ada@x.org"),
    Principal(subject="bob@x.org"),
    Principal(subject="ada@x.org", tenant="acme"),
    Principal(subject="sue@x.org", scopes=frozenset({"staff"})),
    Principal(subject="cas@x.org", scopes=frozenset({"cashier"})),
)
GIVEN = [
    *(
        User(id=number, name="N", email=f"{owner}{number}@x.org", credit=9, created_at=NOW, owner=owner)
        for number, owner in ((1, "ada@x.org"), (2, "bob@x.org"))
    ),
    Series(name="users", value=2),
]
SEEDS = 40
CAUGHT_WITHIN = 600


def some_command(chance: Random) -> Command:
    user, other = chance.randint(1, 4), chance.randint(1, 4)
    return chance.choice(
        (
            CreateUser(name="N", email=f"{chance.randint(1, 9)}@x.org"),
            CreateUser(name="N", email=f"{chance.randint(1, 9)}@x.org"),
            UpdateUser(id=user, name="M"),
            DeleteUser(id=user),
            CreditUser(id=user, amount=chance.randint(-2, 5)),
            TransferCredit(from_=user, to=other, amount=1),
        )
    )


def test_each_command_is_decided_as_if_it_had_come_alone() -> None:
    simulate(SERVICE, some_command, seeds=SEEDS, given=GIVEN, actors=ACTORS, elsewhere=False)


class _FirstSeen:
    """Rows as the rules first saw them in this batch."""

    def __init__(self) -> None:
        self._seen: dict[Any, Any] = {}
        self._rows: Any = None

    def of(self, rows: Any) -> "_FirstSeen":
        if rows is not self._rows:
            self._seen, self._rows = {}, rows
        return self

    def get(self, model: Any, key: Any) -> Any:
        if (model, key) not in self._seen:
            self._seen[model, key] = self._rows.get(model, key)
        return self._seen[model, key]


def _of_a_row_from_before() -> Callable[[Any, Any], None]:
    rows = _FirstSeen()
    return lambda request, now: check_allowed(request, rows.of(now))  # type: ignore[arg-type]


def _not_of_what_comes_again() -> Callable[[Any, Any], None]:
    return lambda request, rows: None if request.redelivered else check_allowed(request, rows)


@pytest.mark.parametrize("bug", [_of_a_row_from_before, _not_of_what_comes_again])
def test_a_rule_that_is_asked_wrongly_is_found(bug: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row as it was earlier in the batch; or not at all, of what is delivered again."""
    monkeypatch.setattr(trying, "check_allowed", bug())
    with pytest.raises(SimulationFailed):
        simulate(SERVICE, some_command, seeds=CAUGHT_WITHIN, actors=ACTORS, elsewhere=False)
