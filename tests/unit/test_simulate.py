"""`simulate`: which faults of an author's handlers it finds, and what it says of them."""

import datetime as dt
import functools
import gc
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import strategies as st
from msgspec import Meta

from coordinator import (
    Command,
    ConfigurationError,
    Handler,
    Id,
    Name,
    Principal,
    Reading,
    Ref,
    Rejected,
    Service,
    UnitOfWork,
    VersionedRow,
    new_command_id,
)
from coordinator.testing import SimulationFailed, simulate
from tests.simulation.services import LEDGER_LANE
from tests.support.seats import seats

pytestmark = pytest.mark.authors

log = logging.getLogger(__name__)


class Place(VersionedRow, table="places", key="id"):
    id: int
    holder: str | None = None
    number: int = 0


class Take(Command, type="places.take"):
    """Take a place."""

    id: Id
    holder: Name


class Tell(Command, type="effects.tell"):
    """Nobody here is told."""

    text: str


Handle = Callable[[UnitOfWork, Take], Place]
SEEDS = 25
memory: dict[Any, Any] = {}
"""What a handler keeps although it may not."""


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    memory.clear()
    yield
    memory.clear()


def places(handle: Handle) -> Service:
    return Service("places", models=(Place,), handlers=(Handler(Take, handle, target=lambda each: Place.at(each.id)),))


def found(handle: Handle, **options: Any) -> str:
    """What is said of a handler."""
    with pytest.raises(SimulationFailed) as failed:
        simulate(places(handle), **({"seeds": SEEDS} | options))
    return str(failed.value)


def take(work: UnitOfWork, command: Take, **values: Any) -> Place:
    there = work.get(Place, command.id)
    if there is None:
        return work.add(Place(id=command.id, holder=command.holder, **values))
    if there.holder == command.holder:
        raise Rejected("taken", f"place {there.id} is taken already")
    return work.save(there.replace(holder=command.holder, **values))


def test_handlers_that_use_their_rows_and_their_command_alone_pass() -> None:
    simulate(seats, seeds=SEEDS)
    simulate(LEDGER_LANE, seeds=20, may_fail=True)


@functools.cache
def spelt(text: str) -> str:
    return text.upper()


def harmless(work: UnitOfWork, command: Take) -> Place:
    import decimal

    log.warning("takes %s at %s", decimal.Decimal(command.id), work.now)
    chosen = random.Random(command.id).randint(1, 100)
    return take(work, Take(id=command.id, holder=spelt(command.holder)), number=int(work.now.timestamp()) + chosen)


def test_time_of_the_lane_seeded_chance_logs_and_pure_caches_are_harmless() -> None:
    simulate(places(harmless), seeds=SEEDS)


def test_what_others_do_while_a_handler_runs_is_not_the_handlers() -> None:
    def collected(phase: str, info: object) -> None:
        time.time()

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        simulate(places(take), [Take(id=1, holder="ada")], seeds=1)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)


def of_today(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=dt.date.today().year)  # noqa: DTZ011


def of_now(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=dt.datetime.now(dt.UTC).year)


def of_seconds(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=int(time.time()))


def of_the_system(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=int(time.clock_gettime(time.CLOCK_REALTIME)))


def of_chance(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=random.randint(1, 1))


def of_uuids(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=len(str(uuid.uuid4())))


def of_a_file(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=len(Path(__file__).read_text()))


def of_a_thread(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=beside())


def beside() -> int:
    """What runs in a thread is not seen there, so it is not started."""
    thread = threading.Thread(target=time.time)
    thread.start()
    thread.join()
    return 1


def test_a_thread_is_found_where_it_is_started() -> None:
    text = found(of_a_thread)
    assert re.search(rf"it starts a thread: _thread\.start_\w+, {re.escape(__file__)}:\d+\n", text)


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (of_today, "looks at the clock: date.today"),
        (of_now, "looks at the clock: datetime.now"),
        (of_seconds, "looks at the clock: time.time"),
        (of_the_system, "looks at the clock: time.clock_gettime"),
        (of_chance, "draws a random number: random.getrandbits"),
        (of_uuids, "draws random bytes: posix.urandom"),
        (of_a_file, "opens a file: _?io.open"),
    ],
)
def test_a_call_that_no_handler_may_make_is_found_where_it_is_made(handle: Handle, says: str) -> None:
    """Also where two runs would not differ, since they are of one day."""
    text = found(handle)
    assert re.search(rf"^places\.take, handler {handle.__name__} \({re.escape(__file__)}:\d+\): it {says}, ", text)
    line = int(re.findall(rf"{re.escape(__file__)}:(\d+)\n", text)[0])
    assert Path(__file__).read_text().splitlines()[line - 1].startswith("    return take(work, command, number=")
    assert "command: Take(id=" in text
    assert re.search(r"seeds=\[\d+\]", text)


def of_our_ids(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=len(new_command_id()))


def test_a_call_that_is_made_within_the_framework_is_found_where_the_author_leads_to_it() -> None:
    text = found(of_our_ids)
    line = int(re.findall(rf"looks at the clock: time.time_ns, {re.escape(__file__)}:(\d+)\n", text)[0])
    assert "len(new_command_id())" in Path(__file__).read_text().splitlines()[line - 1]


def test_the_row_that_a_command_is_about_may_not_depend_on_the_time_either() -> None:
    def at(command: Take) -> Ref[Place]:
        return Place.at(command.id + 0 * int(time.time()))

    for names in ({"target": at}, {"reads": lambda command: (at(command),)}):
        service = Service("places", models=(Place,), handlers=(Handler(Take, take, **names),))
        with pytest.raises(SimulationFailed, match=r"it looks at the clock: time\.time"):
            simulate(service, seeds=5)


def keeping_ids(work: UnitOfWork, command: Take) -> Place:
    """A second try of the same command is refused."""
    if memory.setdefault(work.command_id, len(memory)) != len(memory) - 1:
        raise Rejected("seen", "it came before")
    return take(work, command)


def keeping_rows(work: UnitOfWork, command: Take) -> Place:
    """Rows of a transaction that was never committed."""
    there = memory.get(command.id) or work.get(Place, command.id)
    row = Place(id=command.id, holder=command.holder)
    kept = memory[command.id] = work.add(row) if there is None else work.save(there.replace(holder=command.holder))
    return kept


def counting(work: UnitOfWork, command: Take) -> Place:
    memory["count"] = memory.get("count", 0) + 1
    return take(work, command, number=memory["count"])


def counting_in_silence(work: UnitOfWork, command: Take) -> None:
    """The outcome does not show it."""
    counting(work, command)


def telling(work: UnitOfWork, command: Take) -> Place:
    """Only what it emits shows it."""
    memory["count"] = memory.get("count", 0) + 1
    work.emit(Tell(text=f"number {memory['count']}"))
    return take(work, command)


def two_in_a_batch(work: UnitOfWork, command: Take) -> Place:
    if memory.get("work") is not work:
        memory.update(work=work, count=0)
    memory["count"] += 1
    if memory["count"] > 2:
        raise Rejected("too_many", "two in a batch are enough")
    return take(work, command)


def of_its_own_chance(work: UnitOfWork, command: Take) -> Place:
    return take(work, command, number=random.Random().randint(1, 1000))


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (keeping_ids, "its outcome is not always the same"),
        (keeping_rows, ""),
        (counting, "its outcome is not always the same"),
        (counting_in_silence, r"Place \d+ is not always the same"),
        (telling, "what it emits is not always the same"),
        (two_in_a_batch, "its outcome is not always the same"),
        (of_its_own_chance, "its outcome is not always the same"),
    ],
)
def test_a_handler_that_depends_on_anything_else_is_found(handle: Handle, says: str) -> None:
    text = found(handle)
    assert re.search(rf"^places\.take, handler {handle.__name__} \({re.escape(__file__)}:\d+\): {says}", text), text
    assert 'command: places.take {"id":' in text
    assert re.search(r"^  seed \d+, ", text, re.MULTILINE)


def test_a_handler_that_remembers_ids_is_shown_in_the_smallest_history() -> None:
    (batch,) = re.findall(r"^    \d+\. (.*)$", found(keeping_ids), re.MULTILINE)
    assert batch.count("Take(") <= 2


def test_a_handler_that_depends_on_its_batch_is_shown_in_the_smallest_batch() -> None:
    text = found(two_in_a_batch)
    (batch,) = re.findall(r"^    \d+\. (.*)$", text, re.MULTILINE)
    assert batch.count("Take(") == 3
    assert (
        'in batches, with faults: rejected with "too_many": two in a batch are enough\n    one by one: applied' in text
    )


def test_a_seed_is_run_again_by_its_number() -> None:
    text = found(two_in_a_batch)
    (seed,) = re.findall(r"seeds=\[(\d+)\]", text)
    memory.clear()
    assert found(two_in_a_batch, seeds=[int(seed)]) == text
    simulate(places(two_in_a_batch), seeds=range(int(seed)))


def crashing(work: UnitOfWork, command: Take) -> Place:
    if command.id == 3:
        raise ZeroDivisionError("of nothing")
    return take(work, command)


def test_a_handler_that_fails_is_found_unless_it_may() -> None:
    text = found(crashing)
    assert "it fails: ZeroDivisionError: of nothing" in text
    assert 'command: places.take {"id":3,' in text
    simulate(places(crashing), seeds=SEEDS, may_fail=True)


def decorated(handle: Handle) -> Handle:
    @functools.wraps(handle)
    def decorating(work: UnitOfWork, command: Take) -> Place:
        return handle(work, command)

    return decorating


@decorated
def returning_none(work: UnitOfWork, command: Take) -> Place:
    take(work, command)
    return None  # type: ignore[return-value]


def calling_wrongly(work: UnitOfWork, command: Take) -> Place:
    return work.save()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        (crashing, r"ZeroDivisionError: of nothing \(FILE:\d+, in crashing\)"),
        (calling_wrongly, r"TypeError: .+ missing 1 required .+ \(FILE:\d+, in calling_wrongly\)"),
        (returning_none, r"UnfitResult: returning_none \(FILE:\d+\) returned None where .+"),
    ],
)
def test_a_failure_names_the_authors_line_and_blames_nothing_else(handle: Handle, says: str) -> None:
    text = found(handle)
    assert re.search(rf"it fails: {says.replace('FILE', re.escape(__file__))} \(may_fail=True, if it may\)", text), text
    assert "A handler uses its command and its unit of work" not in text
    assert "A handler uses its command and its unit of work" in found(counting)


def without_a_look(work: UnitOfWork, command: Take) -> Place:
    return work.add(Place(id=command.id, holder=command.holder))


def test_a_row_that_the_database_refuses_is_a_failure() -> None:
    assert "it fails: " in found(without_a_look, commands=[Take(id=1, holder="ada")])


def endless(work: UnitOfWork, command: Take) -> Place:
    work.emit(Take(id=command.id, holder=command.holder))
    return take(work, command, number=1)


def test_commands_that_emit_one_another_without_end_are_said_to() -> None:
    assert "come of one another" in found(endless)


@pytest.mark.parametrize(
    "commands",
    [
        [Take(id=7, holder="ada"), Take(id=7, holder="bob")],
        lambda chance: Take(id=7, holder=chance.choice(["ada", "bob"])),
        st.builds(Take, id=st.just(7), holder=st.sampled_from(["ada", "bob"])),
    ],
    ids=["list", "function", "strategy"],
)
def test_an_author_may_say_which_commands_come(commands: Any) -> None:
    text = found(counting, commands=commands)
    assert "Take(id=7, holder='ada')" in text or "Take(id=7, holder='bob')" in text


def test_rows_may_be_given() -> None:
    seen = []

    def taking(work: UnitOfWork, command: Take) -> Place:
        seen.append(work.get(Place, 999))
        return take(work, command)

    simulate(places(taking), seeds=3, given=[Place(id=999, holder="eve")])
    assert "eve" in {row.holder for row in seen if row}


def test_a_service_that_is_declared_wrongly_is_not_simulated() -> None:
    with pytest.raises(ConfigurationError, match="declared wrongly"):
        simulate(seats.replace(name="others"))


def test_without_commands_there_is_nothing_to_simulate() -> None:
    with pytest.raises(ValueError, match="no commands to choose from"):
        simulate(seats, [])
    with pytest.raises(ValueError, match="service nothing handles no commands"):
        simulate(Service("nothing"))


class Hold(Command, type="places.hold"):
    """Take a place for a while."""

    id: Id
    minutes: int


class Free(Command, type="places.free"):
    id: Id


class Keep(Command, type="places.keep"):
    id: Id


class HeldPlace(VersionedRow, table="held_places", key="id"):
    id: int
    timer: str | None = None
    freed: int = 0


def held(hold: Callable[[UnitOfWork, Hold], HeldPlace]) -> Service:
    """Places that are held, kept and freed."""

    def keep(work: UnitOfWork, command: Keep) -> HeldPlace:
        place = work.get(HeldPlace, command.id)
        if place is None or place.timer is None or not work.cancel(place.timer):
            raise Rejected("not_held", "it is not held")
        return work.save(place.replace(timer=None))

    def free(work: UnitOfWork, command: Free) -> HeldPlace:
        place = work.get(HeldPlace, command.id) or work.add(HeldPlace(id=command.id))
        return work.save(place.replace(freed=place.freed + 1))

    handlers = (Handler(Hold, hold), Handler(Keep, keep), Handler(Free, free))
    return Service("places", models=(HeldPlace,), handlers=handlers)


def hold_for_a_while(work: UnitOfWork, command: Hold) -> HeldPlace:
    place = work.get(HeldPlace, command.id) or work.add(HeldPlace(id=command.id))
    timer = work.emit(Free(id=command.id), after=dt.timedelta(minutes=command.minutes))
    return work.save(place.replace(timer=timer))


HELD = [Hold(id=1, minutes=0), Hold(id=1, minutes=5), Hold(id=2, minutes=2000), Keep(id=1), Keep(id=2), Free(id=1)]


def test_handlers_that_set_timers_and_take_them_back_are_sound() -> None:
    simulate(held(hold_for_a_while), HELD, seeds=150)


def test_a_timer_whose_time_is_not_the_same_each_time_is_found() -> None:
    counted = memory

    def hold(work: UnitOfWork, command: Hold) -> HeldPlace:
        counted["calls"] = counted.get("calls", 0) + 1
        place = work.get(HeldPlace, command.id) or work.add(HeldPlace(id=command.id))
        later = dt.timedelta(minutes=command.minutes, seconds=counted["calls"])
        return work.save(place.replace(timer=work.emit(Free(id=command.id), after=later)))

    with pytest.raises(SimulationFailed, match=r"places\.hold, handler .*what it emits is not always the same"):
        simulate(held(hold), [Hold(id=2, minutes=2000)], seeds=100)


def test_the_handler_of_a_timer_that_is_due_after_the_last_command_is_tried() -> None:
    def free(work: UnitOfWork, command: Free) -> HeldPlace:
        memory["calls"] = memory.get("calls", 0) + 1
        place = work.get(HeldPlace, command.id) or work.add(HeldPlace(id=command.id))
        return work.save(place.replace(freed=memory["calls"]))

    service = held(hold_for_a_while)
    service = service.replace(
        handlers=(*(each for each in service.handlers if each.command is not Free), Handler(Free, free))
    )
    with pytest.raises(SimulationFailed, match=r"places\.free, handler "):
        simulate(service, [Hold(id=1, minutes=10**6)], seeds=20)


def test_a_timer_that_sets_the_next_one_is_no_endless_flow() -> None:
    def every_day(work: UnitOfWork, command: Free) -> None:
        work.emit(Free(id=command.id), after=dt.timedelta(days=1))

    service = Service("places", models=(HeldPlace,), handlers=(Handler(Free, every_day),))
    simulate(service, [Free(id=1), Free(id=2)], seeds=20)


class Guarded(Command, type="rules.guarded"):
    id: int


def test_rules_are_tried_too() -> None:
    """Each of the actors asks, and a rule that is no pure function is found."""
    asked: set[str] = set()

    def fair(who: Principal, command: Guarded, rows: Reading) -> bool:
        asked.add(who.subject)
        return command.id % 2 == 0 or rows.actor == ADA

    def hurried(who: Principal, command: Guarded, rows: Reading) -> bool:
        del who, command, rows
        return time.time() > 0

    def service(rule: Any) -> Service:
        made = Service("rules")
        made.handles(Guarded, allow=rule)(guarded)
        return made

    def guarded(work: UnitOfWork, command: Guarded) -> None: ...

    draw = [Guarded(id=1), Guarded(id=2)]
    simulate(service(fair), draw, seeds=20, actors=[ADA, BOB], elsewhere=False)
    assert asked == {"ada", "bob"}
    with pytest.raises(SimulationFailed, match=r"rules\.guarded.*: it looks at the clock: time\.time"):
        simulate(service(hurried), draw, seeds=20, actors=[ADA], elsewhere=False)
    # The system is not asked.
    simulate(service(hurried), draw, seeds=20, elsewhere=False)


class Own(Command, type="rules.own"):
    who: Annotated[str, Meta(max_length=10)]


def test_actors_ask_for_what_is_theirs_too() -> None:
    """Commands that are made up name nobody: a rule that compares would refuse them all."""
    applied: list[str] = []

    def own(work: UnitOfWork, command: Own) -> None:
        del work
        applied.append(command.who)

    made = Service("rules")
    made.handles(Own, allow=lambda who, command, _rows: who.subject == command.who)(own)
    simulate(made, seeds=20, actors=[ADA, BOB], elsewhere=False)
    assert {"ada", "bob"} <= set(applied)
    with pytest.raises(TypeError, match="actors must be Principals"):
        simulate(made, seeds=1, actors=["ada"], elsewhere=False)  # type: ignore[list-item]


ADA = Principal(subject="ada")
BOB = Principal(subject="bob")
