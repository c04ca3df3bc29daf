"""What strangers can do with names and numbers of publisher sessions: to the lane's time and memory, and to others."""

import gc
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs

from coordinator.lane import publisher_order
from coordinator.lane.batch import whole_deliveries
from coordinator.lane.control import Marker
from coordinator.lane.delivery import Delivery, Settlement, Suspension
from coordinator.lane.publisher_order import PublisherOrder
from coordinator.lane.runs import Runs
from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import LaneSettings
from coordinator.service.options import Origin
from coordinator.stores.kinds import kind_of
from coordinator.stores.lane_tables import LogEntry, PublisherPosition
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.stores.sqlite.store import SqliteStore, create_schema
from tests.support.cost import FLOOR_S, GROWTH_MAX, cpu_s
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import LEDGER, Account, Deposit, OpenAccount, Rename
from tests.support.store_contract import NOW

LIMIT = 400
TIMEOUT_S = 5.0
COMMANDS_OF_PACK = 1000


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The collector goes over all that there is, whenever it likes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def assert_grows_with_count(do: Callable[[list[Delivery]], None], make: Callable[[int], list[Delivery]]) -> None:
    """Twice as many commands cost at most GROWTH_MAX times as much, thrice over: what scans all for each has 64."""
    few, many = make(2 * COMMANDS_OF_PACK), make(16 * COMMANDS_OF_PACK)
    # By turns, so that whoever else is busy at the moment is so for both.
    times = [(cpu_s(do, few), cpu_s(do, many)) for _ in range(7)]
    few_s, many_s = map(min, zip(*times, strict=True))
    assert many_s <= max(FLOOR_S, GROWTH_MAX**3 * few_s), f"{few_s:.4f} s, eight times as many {many_s:.4f} s"


def of_session(number: int, tag: int) -> Delivery:
    made = delivery(tag, Deposit(id=1, amount=number), publisher="p", publisher_seq=number)
    return structs.replace(made, tag=tag)


def marker(tag: int, origin: Origin = "system") -> Delivery:
    return Delivery(tag=tag, commands=(CommandMessage(command_id(tag), Marker.type, b"{}", origin=origin),))


def tags_of_admitted(order: PublisherOrder, deliveries: list[Delivery], now_s: float) -> list[int]:
    order.learn(order.unknown(deliveries), ())
    return [each.tag for each in order.admit(deliveries, now_s)]


def test_a_marker_is_settled_behind_what_was_published_before_it() -> None:
    order = PublisherOrder(LIMIT, TIMEOUT_S)
    first = [marker(1), of_session(2, 2), marker(3), of_session(5, 4), marker(5, "public")]
    assert tags_of_admitted(order, first, 0.0) == [1, 5]
    # Number 3 and the marker behind number 5 came later.
    assert tags_of_admitted(order, [marker(6), of_session(1, 7)], 1.0) == [7, 2, 3]
    assert order.due_in_s(1.0) == TIMEOUT_S - 1
    assert tags_of_admitted(order, [], TIMEOUT_S) == [4, 6]


def test_how_long_the_first_early_command_has_waited_is_told() -> None:
    order = PublisherOrder(LIMIT, TIMEOUT_S)
    assert order.waited_s(9.0) == 0
    tags_of_admitted(order, [of_session(3, 1)], 1.0)
    tags_of_admitted(order, [of_session(5, 2)], 2.0)
    assert order.waited_s(4.0) == 3
    tags_of_admitted(order, [of_session(1, 3), of_session(2, 4)], 4.0)
    assert order.waited_s(4.0) == 2
    order.forget()
    assert order.waited_s(4.0) == 0


def test_markers_are_not_kept_back_without_a_limit() -> None:
    order = PublisherOrder(3, TIMEOUT_S)
    assert tags_of_admitted(order, [of_session(2, 1), *map(marker, range(2, 7))], 0.0) == [2, 3, 4]
    order.forget()
    assert tags_of_admitted(order, [], TIMEOUT_S) == []


def test_what_was_lost_and_is_sent_again_is_applied_in_its_publishers_order() -> None:
    """The process that ran goes on, and knew how far they had been before the loss."""
    database = MemoryDatabase()
    lane = LaneUnderTest(MemoryStore(database))
    lane.do(OpenAccount(owner="a"))

    def sent(number: int, publisher: str = "p") -> Delivery:
        deposit = Deposit(id=1, amount=number)
        return delivery(100 + number, deposit, publisher=publisher, publisher_seq=number)

    lane.outcomes(sent(1), sent(2))
    copy = deepcopy((database.tables, database.indexes, database.sequence))
    lane.outcomes(sent(3), sent(4), sent(5))
    database.tables, database.indexes, database.sequence = copy
    assert isinstance(lane.lane.look(), Suspension)
    database.loss_accepted, database.revision = lane.lane.mark().sequence, database.revision + 1
    assert lane.lane.look() is None
    assert codes(lane.outcomes(sent(5), sent(4))) == []
    assert codes(lane.outcomes(sent(3))) == ["applied"] * 3
    assert [entry.command_id for entry in lane.log()][-3:] == [command_id(100 + number) for number in (3, 4, 5)]


def command(publisher: str, number: int) -> CommandMessage:
    return CommandMessage(
        command_id=None, type="lane.marker", arguments=b"{}", publisher=publisher, publisher_seq=number
    )


def single(publisher: str, number: int) -> Delivery:
    return Delivery(tag=1, commands=(command(publisher, number),))


def packs(commands: Iterator[CommandMessage], count: int) -> list[Delivery]:
    return [
        Delivery(tag=tag, commands=tuple(next(commands) for _ in range(min(COMMANDS_OF_PACK, count - start))))
        for tag, start in enumerate(range(0, count, COMMANDS_OF_PACK), 1)
    ]


def of_a_publisher_each(count: int) -> list[Delivery]:
    return packs((command(f"p{at}", 2) for at in range(count)), count)


def of_one_with_gaps(count: int) -> list[Delivery]:
    return packs((command("p", 2 + 2 * at) for at in range(count)), count)


def of_one_downwards(count: int) -> list[Delivery]:
    return packs((command("p", 1 + count - at) for at in range(count)), count)


def of_a_hundred(count: int) -> list[Delivery]:
    return packs((command(f"p{at % 100}", 2 + 2 * (at // 100)) for at in range(count)), count)


def admitted(order: PublisherOrder, deliveries: list[Delivery], now_s: float = 0.0) -> list[tuple[str | None, int]]:
    order.learn(order.unknown(deliveries), [])
    ready = order.admit(deliveries, now_s)
    return [(each.publisher, each.publisher_seq or 0) for one in ready for each in one.commands]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("limit", [LIMIT, 1_000_000])
@pytest.mark.parametrize("make", [of_a_publisher_each, of_one_with_gaps, of_one_downwards, of_a_hundred])
def test_waiting_and_giving_up_cost_as_much_as_there_is(make: Callable[[int], list[Delivery]], limit: int) -> None:
    def hold_and_give_up(deliveries: list[Delivery]) -> None:
        order, parts = PublisherOrder(limit, TIMEOUT_S), Runs()
        apart = parts.of(deliveries)
        order.learn(order.unknown(apart), [])
        ready = order.admit(apart, 0.0)
        assert order.early <= limit
        ready += order.admit([], TIMEOUT_S)
        assert order.early == 0
        assert sorted(parts.completed(ready)) == [each.tag for each in deliveries]

    hold_and_give_up(make(3000))
    assert_grows_with_count(hold_and_give_up, make)


@pytest.mark.usefixtures("uncollected")
def test_telling_a_batch_piece_by_piece_costs_as_much_as_there_is() -> None:
    def tell(deliveries: list[Delivery]) -> None:
        batch = deque(deliveries)
        told = 0
        while batch:
            told += len(whole_deliveries(batch, 1))
        assert told == len(deliveries)

    tell([single("p", at) for at in range(10)])
    assert_grows_with_count(tell, lambda count: [single("p", at) for at in range(count)])


def test_the_limit_is_of_parts() -> None:
    order = PublisherOrder(LIMIT, TIMEOUT_S)
    ready = admitted(order, Runs().of(of_a_publisher_each(COMMANDS_OF_PACK)))
    assert (order.early, len(ready), order.gaps) == (LIMIT, COMMANDS_OF_PACK - LIMIT, COMMANDS_OF_PACK - LIMIT)


@pytest.mark.parametrize("make", [of_a_publisher_each, of_one_with_gaps, of_a_hundred])
def test_strangers_who_come_later_do_not_break_the_order_of_a_publisher(
    make: Callable[[int], list[Delivery]],
) -> None:
    order = PublisherOrder(LIMIT, TIMEOUT_S)
    assert admitted(order, [single("victim", 2)]) == []
    given = admitted(order, Runs().of(make(4 * COMMANDS_OF_PACK)), 1.0)
    assert "victim" not in {publisher for publisher, _ in given}
    assert order.early == LIMIT
    assert admitted(order, [single("victim", 1)], 2.0) == [("victim", 1), ("victim", 2)]


def test_whoever_fills_the_room_gives_up_first() -> None:
    order = PublisherOrder(LIMIT, TIMEOUT_S)
    assert admitted(order, Runs().of(of_one_with_gaps(LIMIT))) == []
    assert admitted(order, [single("victim", 3)], 1.0) == [("p", 2)]
    assert admitted(order, [single("victim", 2)], 1.0) == [("p", 4)]
    assert admitted(order, [single("victim", 1)], 2.0) == [("victim", 1), ("victim", 2), ("victim", 3)]


def test_what_is_remembered_of_publishers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    known_max = 50
    monkeypatch.setattr(publisher_order, "KNOWN_MAX", known_max)
    order = PublisherOrder(LIMIT, TIMEOUT_S)
    admitted(order, [single("early", 2), single("used", 1)])
    for at in range(4 * known_max):
        admitted(order, [single(f"s{at}", 1), single("used", at + 2)])
        order.advanced([PublisherPosition(name=f"s{at}", sequence=1, seen_at=NOW)], {})
        assert order.known <= known_max + order.early
    assert not order.knows("s0")
    assert order.unknown([single("s0", 2), single("used", 9), single("early", 1)]) == ["s0"]
    # A commit that is told late does not bring one back.
    order.advanced([PublisherPosition(name="s0", sequence=1, seen_at=NOW)], {"s1": 1})
    assert not order.knows("s0")
    assert order.known <= known_max + order.early
    assert admitted(order, [single("early", 1)]) == [("early", 1), ("early", 2)]


def test_a_publisher_that_was_forgotten_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_order, "KNOWN_MAX", 2)
    lane = LaneUnderTest(MemoryStore(MemoryDatabase()))
    lane.do(OpenAccount(owner="a"))

    def numbered(number: int, publisher: str) -> Delivery:
        name = 1000 * ord(publisher) + number
        return delivery(name, Deposit(id=1, amount=1), publisher=publisher, publisher_seq=number)

    for publisher in "abcdef":
        assert codes(lane.outcomes(numbered(1, publisher), numbered(2, publisher))) == ["applied", "applied"]
    assert lane.outcomes(numbered(4, "a")) == []
    assert codes(lane.outcomes(numbered(3, "a"))) == ["applied", "applied"]
    assert [outcome.replayed for outcome in lane.outcomes(numbered(2, "b"))] == [True]


def test_a_stranger_s_singles_do_not_break_the_order_of_a_publisher_in_the_lane() -> None:
    lane = LaneUnderTest(MemoryStore(MemoryDatabase()))
    lane.do(OpenAccount(owner="a"))

    def renamed(number: int, owner: str) -> Delivery:
        return delivery(100 + number, Rename(id=1, owner=owner), publisher="victim", publisher_seq=number)

    assert lane.outcomes(renamed(2, "second")) == []
    strangers = [
        delivery(1000 + at, b"{}", command_type="lane.marker", publisher=f"s{at}", publisher_seq=2)
        for at in range(LaneSettings().early_max)
    ]
    assert len(lane.outcomes(*strangers)) == 1
    assert codes(lane.outcomes(renamed(1, "first"))) == ["applied", "applied"]
    account = lane.account(1)
    assert account is not None
    assert account.owner == "second"


def test_whoever_knows_the_name_of_a_session_cannot_have_its_numbers_count_as_settled() -> None:
    lane = LaneUnderTest(MemoryStore(MemoryDatabase()))
    lane.do(OpenAccount(owner="a"))

    def numbered(number: int, name: int) -> Delivery:
        return delivery(name, Deposit(id=1, amount=1), publisher="victim", publisher_seq=number)

    far = 10**6
    for at in range(102):
        lane.outcomes(numbered(far + 2 * at, 1000 + at))
    lane.elapsed_s = TIMEOUT_S
    given_up = codes(lane.outcomes())
    assert (given_up.count("applied"), given_up.count("too_many_gaps")) == (100, 2)
    for number in range(1, 20):
        assert codes(lane.outcomes(numbered(number, number))) == ["applied"]
    # A number from the middle of a gap leaves two.
    assert codes(lane.outcomes(numbered(1000, 21))) == ["too_many_gaps"]
    assert codes(lane.outcomes(numbered(20, 20))) == ["applied"]
    # The session is where it was: its next number goes on, and one too early waits, and is not refused at once.
    last = far + 2 * 99
    assert lane.outcomes(numbered(last + 2, 32)) == []
    assert codes(lane.outcomes(numbered(last + 1, 31))) == ["applied", "applied"]
    # Filling a gap makes room.
    assert codes(lane.outcomes(numbered(far + 1, 33), numbered(1000, 34))) == ["applied", "applied"]
    assert lane.rows(Account)[0].balance == 100 + 19 + 1 + 2 + 2


@pytest.mark.parametrize("is_known", [True, False])
def test_positions_that_are_pruned_are_forgotten_by_a_lane_that_runs(tmp_path: Path, *, is_known: bool) -> None:
    path = f"{tmp_path}/ledger.db"
    create_schema(path, LEDGER)
    store = SqliteStore(path, LEDGER)
    lane = LaneUnderTest(store)
    lane.do(OpenAccount(owner="a"))

    def numbered(number: int, name: int, publisher: str = "p") -> Delivery:
        return delivery(name, Deposit(id=1, amount=1), publisher=publisher, publisher_seq=number)

    lane.outcomes(numbered(1, 1), numbered(2, 2), *(numbered(1, 100 + at, f"q{at}") for at in range(5)))
    lane.now = NOW + timedelta(days=1)
    lane.outcomes(numbered(1, 3, "young"))
    address = parse_address(f"sqlite:///{path}")
    admin = kind_of(address).open_admin(address, LEDGER.name)
    cutoff = NOW + timedelta(hours=1)
    assert admin.silent_publishers(cutoff) == 6
    assert list(admin.forget_publishers(cutoff, lane.now, 4)) == [4, 2]
    assert list(admin.forget_publishers(cutoff, lane.now, 4)) == []
    assert [row.name for row in lane.rows(PublisherPosition)] == ["young"]
    if is_known:
        decision = lane.lane.apply([numbered(3, 4)])
        assert isinstance(decision, Suspension)
        assert "operator" in decision.reason
        assert isinstance(lane.lane.apply([]), Settlement)
    else:
        store.close()
        lane = LaneUnderTest(store, "successor")
        assert lane.outcomes(numbered(3, 4)) == []
        lane.elapsed_s = TIMEOUT_S
        assert codes(lane.outcomes()) == ["applied"]
    [row, _] = lane.rows(PublisherPosition)
    assert (row.name, row.sequence, row.gaps) == ("p", 3, "[[1,2]]")
    # Its old numbers are recognised by their ids.
    assert [outcome.replayed for outcome in lane.outcomes(numbered(2, 2))] == [True]
    assert codes(lane.outcomes(numbered(3, 99))) == ["publisher_seq_settled"]
    assert command_id(4) in {entry.command_id for entry in lane.rows(LogEntry)}
    store.close()
    admin.close()
