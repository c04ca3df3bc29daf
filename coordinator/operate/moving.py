"""Moving a lane to another database while it runs, one step after the other (`coordinator.stores.moves`).

Everything before the switch can be done again, and called off. The switch is the only pause of the lane: nothing
commits from `halted` on, what changed last is brought, and `moved` ends the lane in its old database for ever.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from coordinator.lane.move_notes import noted
from coordinator.operate.move_copy import CHANGED_PAST_THE_LANE, MoveCopy, TableComparison
from coordinator.operate.move_left import Keys, LeftRows, count_of, in_words, without
from coordinator.operate.move_steps import (
    MovedLane,
    MovedOn,
    MoveRefused,
    MoveSide,
    behind_the_switch,
    cancel_at,
    check_above_its_loss,
    check_has_all_of,
    check_receiving,
    check_tables,
    forget_notes,
    left_whole,
    move_of,
    never_run,
    newly_halted,
    noting_again,
    telling_its_end,
)
from coordinator.service.errors import Unavailable
from coordinator.service.ids import new_command_id
from coordinator.service.rows import Key, Row
from coordinator.service.service import Service
from coordinator.stores.admin import LeaseState
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.moves import LaneMove, pause_by
from coordinator.stores.port import Refusal, StoreError

LEFT_MAX: Final = 2000
"""The switch begins once no more rows than these are to be brought: they take much less than a second."""
HELD_S: Final = 0.5
"""How long a lane is held that changes more than can be brought. It then looks again after up to a second."""
PASSES_MAX: Final = 1000
DIFFERENT_MAX: Final = 10_000
TOLD_EVERY_S: Final = 10.0
"""How often the lease is told how many rows of a table are copied: the lane reads it again each time."""
LOOKS_AGAIN: Final = 3
"""How often rows that differ are compared again. The lane is held for the last look, which therefore decides."""


class Mover:
    """Moves one lane. Raises StoreError and Unavailable where a database is away: run it again."""

    def __init__(
        self,
        service: Service,
        source: MoveSide,
        target: MoveSide,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
        holder: str = "move",
    ) -> None:
        self._service = service
        self._source = source
        self._target = target
        self._clock = clock
        self._say = say
        self._holder = holder
        self._copy = MoveCopy(service, source.store, target.store)
        self._read_up_to: tuple[int, int] | None = None
        self._noted_batches = 0
        self._left = LeftRows()
        self._move_id = ""
        """Of the move that this one began, goes on with, or calls off."""
        self._told_s = 0.0

    def prepare(self, act: OperatorAct | None = None) -> LaneMove:
        """Begin, or go on with what an earlier run has begun: copy everything, bring what changed, and compare it.

        What `switch` has to do then takes a moment. Raises MoveRefused.
        """
        is_new = self._begun(act)
        with telling_its_end(self._come_to):
            self._bring_all(is_new=is_new)
        return self._come_to("all is copied and compared: the switch may begin")

    def _bring_all(self, *, is_new: bool) -> None:
        self._take_target()
        if is_new:
            # What is left of a move that was called off.
            self._clear()
        else:
            self._say("an earlier run has begun it: what is missing there, or has changed, is brought")
        refused: dict[type[Row], set[Key]] = {}
        for model in self._copy.models:
            self._come_to(f"it copies {model.table}")
            rows, refused[model] = self._copy.copy(model, partial(self._copied, model), is_new=is_new)
            if rows and is_new:
                self._say(f"{model.table}: {rows - len(refused[model])} rows copied")
        self._copy.check_read()
        self._left.put_back(refused)
        self._come_to("each table is copied once, and what is missing there or has changed since is being brought")
        self._catch_up()
        self._come_to("both databases are compared")
        different = self._persisting(self.compare())
        if count_of(different) > DIFFERENT_MAX:
            raise self._copy.unkept(different)
        self._left.add(different)
        self._catch_up()
        if kept_otherwise := self._still(different):
            if refused_there := without(kept_otherwise, without(kept_otherwise, self._left.refused)):
                raise self._stopped(refused_there)
            raise self._copy.unkept(kept_otherwise)

    def compare(self) -> list[TableComparison]:
        """All tables in both databases."""
        return [self._copy.compare(model) for model in self._copy.models]

    def unnoted(self, compared: Iterable[TableComparison]) -> Keys:
        """Those of the rows that differ which nobody has changed since the copy began: no switch brings them."""
        different = self._different(compared)
        self._read_notes()
        unnoted = without(different, self._left.keys)
        return {model: keys for model, keys in unnoted.items() if model not in (*CHANGED_PAST_THE_LANE, OperatorAct)}

    def switch(self, move: LaneMove, act: OperatorAct | None = None) -> MovedLane:
        """End the lane here, and let it go on there. Raises MoveRefused, and then the lane goes on here."""
        with telling_its_end(self._come_to):
            return self._switched(move, act)

    def _switched(self, move: LaneMove, act: OperatorAct | None) -> MovedLane:
        self._catch_up()
        halted = newly_halted(move)
        if not self._source.admin.set_move(move, halted, self._clock()):
            raise MovedOn
        began_s = time.monotonic()
        try:
            lease = self._bring_last(halted)
            moved = msgspec.structs.replace(halted, step="moved")
            is_moved = self._source.admin.set_move(halted, moved, self._clock(), act)
        except BaseException:
            # Also where it is not known whether the lane has moved: then this changes nothing.
            with suppress(StoreError, Unavailable):
                self._source.admin.set_move(halted, noting_again(halted), self._clock())
            raise
        if not is_moved:
            raise MovedOn
        with behind_the_switch(moved):
            self.open_target(moved, act)
            return self._moved(lease.sequence, time.monotonic() - began_s)

    def move_of_source(self) -> LaneMove | None:
        """The move of which the lane's database tells."""
        return move_of(self._source)

    def open_target(self, moved: LaneMove, act: OperatorAct | None = None) -> bool:
        """Let the lane go on there, now that it never will here; False: it could already. Raises MoveRefused."""
        there = move_of(self._target)
        if there is None or there.id != moved.id:
            return False
        lease = left_whole(self._source, self._target)
        if lease.paused is not None and lease.paused != pause_by(moved):
            # An operator's pause goes with the lane.
            with_pause = msgspec.structs.replace(there, paused=lease.paused)
            if self._target.admin.set_move(there, with_pause, self._clock()):
                there = with_pause
        return self._target.admin.set_move(there, None, self._clock(), act, of=lease)

    def finished(self, moved: LaneMove) -> MovedLane:
        """What an earlier run has done. Raises MoveRefused where that was a move to a third database, or the other one
        has not all of the lane any more."""
        if moved.other != self._target.name:
            raise MoveRefused(moved.words)
        return self._moved(left_whole(self._source, self._target).sequence, None)

    def cancel(self, act: OperatorAct | None = None) -> bool:
        """Call the move off, and remove the copy; False: there is none. Raises MoveRefused once the lane has moved, and
        where rows of the copy stay.

        The other database stays closed: its lease may tell of a sequence that is no longer there.
        """
        there = self._target.admin.state().lease
        copied = None if there is None or there.move is None or there.move.step != "receiving" else there.move
        if there is not None and copied is not None:
            check_has_all_of(self._source, there)
        is_cancelled = cancel_at(self._source, self._clock(), act)
        if copied is not None:
            self._move_id = copied.id
            self._take_target()
            self._clear()
        return is_cancelled

    def _clear(self) -> None:
        if left := self._copy.clear():
            raise MoveRefused(
                f"the database of --to refuses to have rows of {', '.join(left)} removed: remove them there, and run "
                "this again"
            )

    def _begun(self, act: OperatorAct | None) -> bool:
        """See that the move is under way; whether this run has begun it."""
        lease = self._source.admin.state().lease
        if lease is None or lease.epoch == 0:
            raise never_run(self._copy.first_table_with_rows(of_source=True))
        check_above_its_loss(lease)
        there = self._target.admin.state().lease
        other = None if there is None else there.move
        if lease.move is not None:
            if other is None or other.id != lease.move.id:
                raise MoveRefused(f"a move is under way already: {lease.move.words}; --cancel it first")
            self._move_id = lease.move.id
            self._let_go_on(lease.move)
            return False
        check_tables(self._service, self._source, self._target)
        self._check_empty(there)
        # Before the lane notes anything: nobody could tell those of an earlier move from the ones of this.
        forget_notes(self._source)
        began = LaneMove(id=new_command_id(), step="receiving", other=self._source.name)
        if not self._target.admin.set_move(other, began, self._clock()):
            raise MoveRefused("somebody else begins a move to the same database")
        noting = LaneMove(id=began.id, step="noting", other=self._target.name, since=self._clock())
        if not self._source.admin.set_move(None, noting, self._clock(), act):
            self._target.admin.set_move(began, other, self._clock())
            raise MoveRefused("somebody else begins a move of the lane")
        self._move_id = began.id
        return True

    def _let_go_on(self, move: LaneMove) -> None:
        """The lane goes on, which a run that died in the switch has left halted."""
        if move.step == "halted" and not self._source.admin.set_move(move, noting_again(move), self._clock()):
            raise MovedOn

    def _come_to(self, phase: str) -> LaneMove:
        """Have the lease say how far the move is, for whoever looks from elsewhere; return what it says."""
        noting = self._noting()
        come = msgspec.structs.replace(noting, phase=phase)
        if come != noting and not self._source.admin.set_move(noting, come, self._clock()):
            raise MovedOn
        self._told_s = time.monotonic()
        return come

    def _copied(self, model: type[Row], rows: int) -> None:
        if time.monotonic() - self._told_s >= TOLD_EVERY_S:
            self._come_to(f"it copies {model.table}, {rows} rows so far")

    def _noting(self) -> LaneMove:
        """The move, while the lane is copied. Raises MoveRefused, also where that is another move by now."""
        noting = self.move_of_source()
        if noting is None or noting.step != "noting" or noting.id != self._move_id:
            raise MovedOn
        return noting

    def _check_empty(self, there: LeaseState | None) -> None:
        """Raises MoveRefused unless the other database has never had a lane, or only what a cancelled move left."""
        if there is not None and there.move is not None and there.move.step == "receiving":
            if there.move.other != self._source.name:
                raise MoveRefused(f"the database of --to is another move's: {there.move.words}")
            check_has_all_of(self._source, there)
            return
        if there is not None and (there.sequence or there.move is not None):
            raise MoveRefused("the database of --to is a lane's already: name one that `coordinator migrate` has made")
        if (table := self._copy.first_table_with_rows()) is not None:
            raise MoveRefused(f"table {table} has rows in the database of --to: it must be empty")

    def _take_target(self) -> None:
        """Hold the lane there, above every epoch that it had here.

        Raises MoveRefused where this move has ended there while nobody looked: the lane may be there by now. Whoever
        ends it after this took the lane takes it in turn, and nothing is written with this lease any more.
        """
        check_receiving(self._target, self._move_id)
        lease = self._source.admin.state().lease
        taken = self._target.store.take_over(self._holder, self._clock(), 0 if lease is None else lease.epoch)
        check_receiving(self._target, self._move_id)
        self._copy.lease = taken

    def _catch_up(self) -> None:
        """Bring what the lane has changed, again and again, until little is left.

        A lane that changes rows faster than they are brought is held for a moment in each pass, so that there is less.
        """
        before: int | None = None
        for _ in range(PASSES_MAX):
            self._read_notes()
            count, changed = len(self._left), self._left.changed
            if not count:
                return
            if changed > LEFT_MAX:
                self._say(f"{changed} rows have changed meanwhile")
            is_behind = changed > LEFT_MAX and before is not None and changed > before / 2
            left = self._left.take()
            with self._held() if is_behind else nullcontext(lambda: None) as release:
                is_stuck = self._left.put_back(self._copy.bring_in_parts(left, release))
            if count <= LEFT_MAX:
                return
            if is_stuck and count_of(self._left.refused) > LEFT_MAX:
                # Fewer are brought in one transaction with all others.
                raise self._stopped(self._left.refused)
            before = changed
        raise MoveRefused("the lane changes rows faster than they are copied: try again when there is less to do")

    def _stopped(self, refused: Keys) -> MoveRefused:
        """The error for rows that the other database refuses. Its own words are not for the lease."""
        words = f"rows of {in_words(refused)}"
        why = f"the database of --to refuses {words}: {self._copy.why_refused(refused)}"
        phase = f"{words} are refused there"
        return MoveRefused(
            f"{why.rstrip('.')}. Mend these rows, or what refuses them, and run this again, or with --cancel", phase
        )

    @contextmanager
    def _held(self) -> Iterator[Callable[[], None]]:
        """The lane commits nothing until what this yields is called and `HELD_S` are over, at the latest at the end."""
        noting = self._noting()
        halted = newly_halted(noting)
        if not self._source.admin.set_move(noting, halted, self._clock()):
            raise MovedOn
        until_s, is_held = time.monotonic() + HELD_S, True

        def release() -> None:
            nonlocal is_held
            if is_held and time.monotonic() >= until_s:
                let_go()

        def let_go() -> None:
            nonlocal is_held
            is_held = False
            if not self._source.admin.set_move(halted, noting, self._clock()):
                raise MovedOn

        try:
            yield release
        finally:
            if is_held:
                let_go()

    def _read_notes(self) -> None:
        for notes in self._copy.notes_after(self._read_up_to):
            for note in notes:
                self._noted_batches += note.batches
                self._left.add(self._copy.keys_in(noted(note)))
            self._read_up_to = notes[-1].epoch, notes[-1].number

    def _bring_last(self, halted: LaneMove) -> LeaseState:
        """Nothing commits any more: bring the rest, and see that it came."""
        lease = self._source.admin.state().lease
        if lease is None:
            raise MoveRefused("the lease of the lane is gone")
        check_above_its_loss(lease)
        check_receiving(self._target, self._move_id)
        self._read_notes()
        if self._noted_batches != lease.batches - halted.batches:
            unnoted = lease.batches - halted.batches - self._noted_batches
            raise MoveRefused(
                f"{unnoted} transactions of the lane were not noted: a process of an earlier release has it. End that "
                "one, `coordinator move --cancel`, and begin again"
            )
        self._left.add(self._copy.changed_past_the_lane())
        if self._copy.lease is None or self._copy.lease.epoch <= lease.epoch:
            self._take_target()
        try:
            self._copy.bring(self._left.keys, lease.sequence)
        except Refusal as error:
            raise MoveRefused(f"the database of --to refuses rows of the lane: {error}") from error
        if different := self._copy.differing(self._left.keys):
            raise self._copy.unkept(different)
        return lease

    def _persisting(self, compared: Iterable[TableComparison]) -> Keys:
        """The rows that differ although everything that has changed was brought: nobody noted their change."""
        return self._still(self._different(compared))

    def _different(self, compared: Iterable[TableComparison]) -> Keys:
        models = {model.table: model for model in self._copy.models}
        return {models[each.table]: set(each.different) for each in compared if each.different}

    def _still(self, different: Keys) -> Keys:
        """Those of the rows that differ while the lane stands still and all that it has changed was brought."""
        for look in range(LOOKS_AGAIN):
            if not different:
                break
            # A row that each transaction changes differs in any other look.
            with self._held() if look == LOOKS_AGAIN - 1 else nullcontext():
                self._catch_up()
                different = self._copy.differing(different)
        return different

    def _moved(self, sequence: int, paused_s: float | None) -> MovedLane:
        lease = self._target.admin.state().lease
        epoch = 0 if lease is None else lease.epoch
        return MovedLane(to=self._target.name, sequence=sequence, epoch=epoch, paused_s=paused_s)
