"""Opens what operators' commands read and change in the database of a lane."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Protocol, TypeVar

from coordinator.runtime.addresses import Address, address_of, parse_address
from coordinator.runtime.settings import DatabaseSettings, load
from coordinator.service.lane_names import settings_prefix
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.api_keys import ApiKeys
from coordinator.stores.kinds import Kind, kind_of


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)


@contextmanager
def lane_admin(lane: str, *, silence_s: float | None = None) -> Iterator[LaneAdmin]:
    """The database of a lane, from `<LANE>_DATABASE_URL`; connects on first use. Raises ConfigurationError.

    `silence_s`: for whoever keeps it for long, how long it may say nothing."""
    with closing(_opened(lane, lambda kind, address: kind.open_admin(address, lane, silence_s=silence_s))) as admin:
        yield admin


def check_addresses(lanes: Iterable[str]) -> None:
    """Whether there is an address for each lane, of a kind that there is. Raises ConfigurationError; asks no server."""
    for lane in lanes:
        with lane_admin(lane):
            pass


@contextmanager
def lane_api_keys(lane: str) -> Iterator[ApiKeys]:
    """The API keys in the database of a lane, as `lane_admin`. Raises ConfigurationError."""
    with closing(_opened(lane, lambda kind, address: kind.open_api_keys(address, lane))) as keys:
        yield keys


def _opened(lane: str, open_it: Callable[[Kind, Address], C]) -> C:
    # Of the service no more than its name: its code may be what is broken.
    prefix = settings_prefix(lane)
    address = parse_address(load(DatabaseSettings, prefix=prefix).database_url)
    with address_of(f"{prefix}DATABASE_URL"):
        return open_it(kind_of(address), address)
