"""The pytest plugin: the fixture `lane`, on memory, or on a real database with `--lane-database`.

    def test_a_seat_is_sold_once(lane: LaneUnderTest) -> None:
        lane.given(Seat(id=7, code="A7"))
        assert lane.apply(BookSeat(id=7, holder="ada")).applied
        assert lane.apply(BookSeat(id=7, holder="bob")).rejected_with("taken")

pytest imports this module in every run, before anything measures coverage. So it is outside of the package, and imports
the framework only for a test that needs it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import pytest

# ruff: noqa: PLC0415  # in every run of pytest, see above

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from coordinator.service.service import Service
    from coordinator.testing.lane import LaneUnderTest

_PREPARED = pytest.StashKey[set[tuple[str, str]]]()
"""The services and databases whose tables are made in this run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("write-coordinator")
    group.addoption(
        "--lane-database",
        metavar="URL",
        help="Have the fixture `lane` on this database, which is migrated, and emptied around every test.",
    )
    group.addoption(
        "--lane-database-may-have-rows",
        action="store_true",
        help="Take a database that has rows of before, and remove them.",
    )
    parser.addini("lane_service", "The service of the fixture `lane`, as MODULE:NAME.", default="")


@pytest.fixture
def lane_service(pytestconfig: pytest.Config) -> Service:
    """The service whose lane is tried: that of the option `lane_service`. Override it where there are several."""
    from coordinator.registry import imported
    from coordinator.service.errors import ConfigurationError
    from coordinator.service.service import Service

    reference = str(pytestconfig.getini("lane_service"))
    if not reference:
        pytest.fail(
            'the fixture `lane` needs a service: write lane_service = "shop.seats:seats" under '
            "[tool.pytest.ini_options] of pyproject.toml, or a fixture lane_service that returns it",
            pytrace=False,
        )
    if (root := str(pytestconfig.rootpath)) not in sys.path:
        # As for the command line, which looks where it is started.
        sys.path.insert(0, root)
    try:
        service: Service = imported(reference, Service)
    except ConfigurationError as error:
        _refuse(f"lane_service: {error}")
    return service


@pytest.fixture
def lane_database(pytestconfig: pytest.Config) -> str | None:
    """The address of the database under `lane`; None: it is in memory. Override it where each service has its own."""
    url: str | None = pytestconfig.getoption("--lane-database")
    return url


@pytest.fixture
def lane(pytestconfig: pytest.Config, lane_service: Service, lane_database: str | None) -> Iterator[LaneUnderTest]:
    """The lane of `lane_service`, without any rows."""
    from coordinator.service.errors import ConfigurationError
    from coordinator.stores.row_defects import check_declaration
    from coordinator.testing.lane import LaneInMemory

    try:
        check_declaration(lane_service)
    except ConfigurationError as error:
        _refuse(str(error))
    if lane_database is None:
        yield LaneInMemory(lane_service)
        return
    from coordinator.testing.database import lane_on_database

    _prepare(pytestconfig, lane_service, lane_database)
    with lane_on_database(lane_service, lane_database) as lane:
        yield lane


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a test that fails what has failed in its lane: nobody may have asked what became of a timer."""
    report = yield
    # Loaded by the fixture.
    testing = sys.modules.get("coordinator.testing.lane")
    lane = getattr(item, "funcargs", {}).get("lane")
    if report.when == "call" and report.failed and testing is not None and isinstance(lane, testing.LaneUnderTest):
        from coordinator.stores.port import StoreError

        with suppress(StoreError):
            if lines := lane.failures():
                report.sections.append(("failed in the lane", "\n".join(lines)))
    return report


def _refuse(reason: str) -> NoReturn:
    """Fail the test with these words alone. What was raised with them says the same once more."""
    raise pytest.fail.Exception(reason, pytrace=False) from None


def _prepare(config: pytest.Config, service: Service, url: str) -> None:
    """Once in a run."""
    from coordinator.service.errors import ConfigurationError
    from coordinator.stores.one_lane import WrongDatabase
    from coordinator.testing.database import prepare

    prepared = config.stash.setdefault(_PREPARED, set())
    if (service.lane, url) in prepared:
        return
    if hasattr(config, "workerinput"):
        pytest.fail("--lane-database: the processes of pytest-xdist would share it; run without -n", pytrace=False)
    try:
        prepare(service, url, may_have_rows=bool(config.getoption("--lane-database-may-have-rows")))
    except WrongDatabase as error:
        text = f"a fixture `lane_database` beside `lane_service` gives {service.name} the address of another one"
        _refuse(f"--lane-database: {error}: {text}")
    except ConfigurationError as error:
        _refuse(f"--lane-database: {error}")
    prepared.add((service.lane, url))
