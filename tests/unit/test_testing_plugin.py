"""The pytest plugin, as an author's project meets it: installed, and found by its entry point."""

import re
from pathlib import Path

import pytest

from coordinator.migrations import histories  # noqa: F401  # pytester forgets what a test is the first to import
from coordinator.service.errors import ConfigurationError
from coordinator.stores.open import open_store
from coordinator.stores.port import Changes, Lease, StoreUnavailable, Transaction
from coordinator.testing.database import prepare
from tests.support.seats import Seat, seats

pytestmark = pytest.mark.authors

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[2]
PYPROJECT = '[tool.pytest.ini_options]\nlane_service = "shop.seats:seats"\nfilterwarnings = ["error"]\n'
TESTS = """
from datetime import timedelta

from coordinator.testing import LaneUnderTest
from shop.seats import BookSeat, Seat

def test_a_seat_is_sold_once(lane: LaneUnderTest) -> None:
    lane.given(Seat(id=7, code="A7"))
    assert lane.apply(BookSeat(id=7, holder="ada")).applied
    assert lane.apply(BookSeat(id=7, holder="bob")).rejected_with("taken")
    assert lane.row(Seat, 7).holder == "ada"

def test_a_lane_begins_without_rows(lane: LaneUnderTest) -> None:
    assert lane.rows(Seat) == []
    tried = lane.apply(BookSeat(id=7, holder="ada"))
    assert tried.rejected_with("seat_not_found")
    assert tried.outcome.sequence == 1
    lane.now += timedelta(days=1)
"""


@pytest.fixture
def shop(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a service and its tests."""
    package = pytester.mkpydir("shop")
    (package / "seats.py").write_text((ROOT / "tests" / "support" / "seats.py").read_text())
    (pytester.path / "pyproject.toml").write_text(PYPROJECT)
    pytester.makepyfile(TESTS)
    return pytester


def run(shop: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """In a process of its own: SQLAlchemy may be loaded once in one."""
    return shop.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *arguments)


def test_a_service_is_tried_by_the_name_in_the_settings(shop: pytest.Pytester) -> None:
    run(shop).assert_outcomes(passed=2)


def test_a_service_is_tried_that_a_fixture_gives(shop: pytest.Pytester) -> None:
    (shop.path / "pyproject.toml").unlink()
    shop.makeconftest(
        "import pytest\nfrom shop.seats import seats\n\n@pytest.fixture\ndef lane_service():\n    return seats\n"
    )
    run(shop).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("", '*the fixture `lane` needs a service: write lane_service = "shop.seats:seats" under*'),
        ('lane_service = "shop.seats:stalls"', "*lane_service: 'shop.seats:stalls' is no *has no attribute 'stalls'*"),
        ('lane_service = "shop.wrong:seats"', "*service seats is declared wrongly:*"),
    ],
)
def test_what_is_wrong_with_the_service_is_said_without_a_traceback(
    shop: pytest.Pytester, setting: str, says: str
) -> None:
    (shop.path / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\n{setting}\n")
    (shop.path / "shop" / "wrong.py").write_text("from shop.seats import seats\n\nseats.row(seats.models[0])\n")
    result = run(shop, "-k", "without_rows")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([says])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_what_is_declared_wrongly_is_said_once_a_test(shop: pytest.Pytester) -> None:
    seats_file = shop.path / "shop" / "seats.py"
    seats_file.write_text(seats_file.read_text().replace("holder: Name", "holder: Annotated[Name, Meta(max_length=9)]"))
    seats_file.write_text("from typing import Annotated\nfrom msgspec import Meta\n" + seats_file.read_text())
    # Without the summary at the end, which has the whole text again where CI is set.
    result = run(shop, "-rN")
    result.assert_outcomes(errors=2)
    said = result.stdout.str()
    assert said.count("BookSeat.holder: two Metas say max_length") == 2, said
    assert "During handling" not in said


def test_the_document_for_authors_is_right(pytester: pytest.Pytester) -> None:
    """Its service, its settings and its tests."""
    text = (ROOT / "docs" / "TESTING.md").read_text()
    pytester.mkpydir("shop")
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for name, source in blocks:
        (pytester.path / name).write_text(source)
    (settings,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (pytester.path / "pyproject.toml").write_text(f'{settings}filterwarnings = ["error"]\n')
    run(pytester).assert_outcomes(passed="".join(source for _, source in blocks).count("def test_"))


def test_an_assertion_that_fails_shows_what_became_of_the_command(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        test_failing="""
        from shop.seats import BookSeat, Seat

        def test_applied(lane):
            assert lane.apply(BookSeat(id=7, holder="ada")).applied

        def test_rejected(lane):
            lane.given(Seat(id=7, code="A7"))
            assert lane.apply(BookSeat(id=7, holder="ada")).rejected_with("taken")
        """
    )
    result = run(shop, "test_failing.py")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            '*where False = <seats.book rejected with "seat_not_found": there is no seat 7>.applied*',
            "*= <seats.book applied: {*holder*ada*}>.rejected_with*",
        ]
    )


def test_a_test_that_fails_shows_what_failed_in_its_lane_unasked(shop: pytest.Pytester) -> None:
    (shop.path / "shop" / "bells.py").write_text(
        """
from datetime import timedelta
from coordinator import Command, Service, UnitOfWork

bells = Service("bells")

class Wind(Command, type="bells.wind"):
    pass

class Ring(Command, type="bells.ring"):
    pass

@bells.handles(Wind)
def wind(work: UnitOfWork, command: Wind) -> None:
    work.emit(Ring(), after=timedelta(hours=1))

@bells.handles(Ring)
def ring(work: UnitOfWork, command: Ring) -> None:
    raise ZeroDivisionError("no bell")
"""
    )
    shop.makepyfile(
        test_bells="""
        from datetime import timedelta
        import pytest
        from shop.bells import Wind, bells

        @pytest.fixture
        def lane_service():
            return bells

        @pytest.mark.parametrize("is_well", [True, False])
        def test_it_rings(lane, is_well):
            lane.apply(Wind())
            lane.advance(timedelta(hours=1))
            assert is_well
        """
    )
    result = run(shop, "test_bells.py")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*failed in the lane*", "bells.ring: ZeroDivisionError: no bell (*bells.py:19, in ring)"]
    )
    assert str(result.stdout).count("failed in the lane") == 1


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The address of a database."""
    return f"sqlite:///{tmp_path}/seats.db"


def test_the_same_tests_run_on_a_real_database_and_leave_it_empty(shop: pytest.Pytester, url: str) -> None:
    run(shop, f"--lane-database={url}").assert_outcomes(passed=2)
    prepare(seats, url, may_have_rows=False)
    store = open_store(url, seats)
    try:
        lease = store.current()
        assert lease is not None
        assert lease.epoch == 2, "each of the tests takes its lane over"
    finally:
        store.close()


def test_rows_of_before_are_not_removed_unasked(shop: pytest.Pytester, url: str) -> None:
    prepare(seats, url, may_have_rows=False)
    store = open_store(url, seats)
    try:
        lease = store.current() or Lease(0, 0)
        store.begin().commit(lease, lease.sequence, Changes([], [], [[Seat(id=8, code="A8")]]))
        result = run(shop, f"--lane-database={url}")
        result.assert_outcomes(errors=2)
        result.stdout.fnmatch_lines(["*the database has rows in seats, and tests would remove them*"])
        transaction = store.begin()
        assert [row.id for row in transaction.scan(Seat, 2)] == [8]
        transaction.rollback()
        run(shop, f"--lane-database={url}", "--lane-database-may-have-rows").assert_outcomes(passed=2)
        transaction = store.begin()
        assert transaction.scan(Seat, 2) == []
        transaction.rollback()
    finally:
        store.close()


def test_rows_of_before_are_seen_though_the_first_look_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the migration an error may be a missing table, and may be anything."""
    prepare(seats, url, may_have_rows=False)
    store, away = open_store(url, seats), open_store(url, seats)
    try:
        lease = store.current() or Lease(0, 0)
        store.begin().commit(lease, lease.sequence, Changes([], [], [[Seat(id=8, code="A8")]]))

        def refuse() -> Transaction:
            raise StoreUnavailable("simulated")

        monkeypatch.setattr(away, "begin", refuse)
        opened = iter([away, store])
        monkeypatch.setattr("coordinator.testing.database.open_store", lambda *_: next(opened))
        with pytest.raises(ConfigurationError, match="the database has rows in seats"):
            prepare(seats, url, may_have_rows=False)
        opened = iter([store, away])
        monkeypatch.setattr(store, "begin", refuse)
        with pytest.raises(ConfigurationError, match="table seats cannot be read: simulated"):
            prepare(seats, url, may_have_rows=False)
    finally:
        store.close()
        away.close()


def test_the_database_of_another_lane_is_not_touched(shop: pytest.Pytester, url: str) -> None:
    prepare(seats, url, may_have_rows=False)
    source = (shop.path / "shop" / "seats.py").read_text()
    (shop.path / "shop" / "seats.py").write_text(
        source.replace('Service("seats")', 'Service("stalls")').replace('type="seats.', 'type="stalls.')
    )
    result = run(shop, f"--lane-database={url}", "--lane-database-may-have-rows")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*is that of lane seats: a lane needs its own: a fixture `lane_database` beside*another one"]
    )


def test_several_processes_do_not_share_a_database(shop: pytest.Pytester, url: str) -> None:
    result = run(shop, f"--lane-database={url}", "-n1")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*the processes of pytest-xdist would share it*"])


def test_a_run_without_such_tests_loads_nothing_of_the_framework(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        test_other="""
        import sys

        def test_it():
            assert "write_coordinator_pytest" in sys.modules
            assert {name.partition(".")[0] for name in sys.modules} & {"coordinator", "sqlalchemy", "msgspec"} == set()
        """
    )
    run(shop, "test_other.py").assert_outcomes(passed=1)
