"""What a store does with a driver's errors."""

import pytest

from coordinator.service.errors import ConfigurationError
from coordinator.stores.guarded import GuardedStore
from coordinator.stores.port import BatchFault, Conflict, StoreError, StoreUnavailable


class _DriversOwnError(Exception):
    """A driver's own error."""


class _StoreWithMeaning(GuardedStore):
    title = "Some"

    def __init__(self, meaning: StoreError | None = None) -> None:
        self.closed = 0
        self._meaning = meaning

    def meaning(self, error: Exception) -> StoreError | None:
        return self._meaning if isinstance(error, _DriversOwnError) else None

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("raised", "meaning", "seen", "closed"),
    [
        (_DriversOwnError("gone"), StoreUnavailable("gone"), StoreUnavailable, 1),
        (_DriversOwnError("busy"), Conflict("busy"), Conflict, 0),
        (StoreUnavailable("gone"), None, StoreUnavailable, 1),
        (Conflict("busy"), None, Conflict, 0),
        (ConfigurationError("wrong"), None, ConfigurationError, 0),
        (OSError("no route"), None, StoreUnavailable, 1),
        (ValueError("no such value"), None, BatchFault, 0),
        (KeyboardInterrupt(), None, KeyboardInterrupt, 0),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__) if not isinstance(each, int) else str(each),
)
def test_an_error_becomes_the_ports_and_closes_the_connection_where_the_server_is_out_of_reach(
    raised: BaseException, meaning: StoreError | None, seen: type[BaseException], closed: int
) -> None:
    store = _StoreWithMeaning(meaning)
    with pytest.raises(seen) as caught, store.guarded():
        raise raised
    assert store.closed == closed
    assert caught.value is raised or caught.value.__cause__ is raised


def test_what_raises_nothing_leaves_the_connection_open() -> None:
    store = _StoreWithMeaning()
    with store.guarded():
        pass
    assert store.closed == 0
