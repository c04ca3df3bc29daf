"""Forgetting: how a lane takes the personal data of one person out of what it keeps, by commands in its own order.

The order (`Forget`) only looks, and emits the first step. So all that was settled before it is committed when the step
comes, and a step is one command: the next one is in the outbox in the transaction of the one before, and goes on
whatever crashes. Nothing is deleted: an entry of the log stays with its id, its sequence and its status.

Two things keep what they have until an operator has decided: a command that is parked (the order is refused), and what
was emitted and is yet to be sent (the answer counts it).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from coordinator.lane.control import Forget, ForgetAsked, ForgetBegun, ForgetStep, ForgottenAsked, ForgottenSome
from coordinator.lane.dead_letters import DeadLetters
from coordinator.lane.parking import Parking, message_of, prepared
from coordinator.lane.request import Handlers
from coordinator.lane.subjects import Subjects, digest_of, is_of_emitted
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.continuation import Emission
from coordinator.service.errors import Rejected
from coordinator.service.ids import system_command_id
from coordinator.service.options import Options
from coordinator.service.principal import Principal
from coordinator.service.rows import Key, Ref, Row, key_of
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.targets import ANYWHERE
from coordinator.stores.lane_tables import DeadLetter, LogEntry, ParkedCommand, Timer
from coordinator.stores.outcomes import forgotten_entry, is_forgotten
from coordinator.stores.passages import child_of, passage_of
from coordinator.stores.personal_tables import PersonalEntry
from coordinator.stores.row_checks import InvalidRow, WrongUse

STEP_ENTRIES_MAX: Final = 100
"""How many commands one step takes the data out of: it reads the dead letters of each, while other commands wait."""
COUNTED_MAX: Final = 10_000
"""A trial counts no further."""
NAMED_MAX: Final = 20
"""How many ids an answer names."""
LETTERS_OF_ONE_MAX: Final = 1000
"""A command has one, and one for each other content that the system has sent under its id."""
REASON: Final = "forgotten: its content was personal, and was taken out"


class Forgetting:
    """Carries these commands out, within one transaction."""

    def __init__(
        self,
        work: BatchWork,
        parking: Parking,
        subjects: Subjects,
        handlers: Handlers,
        lane: str,
        known: dict[str, LogEntry],
        dead_letters: DeadLetters,
    ) -> None:
        """`known` are the entries of the log that the transaction knows already."""
        self._known = known
        self._letters = dead_letters
        self._work = work
        self._parking = parking
        self._subjects = subjects
        self._handlers = handlers
        self._lane = lane

    def carry_out(self, command: Forget | ForgetAsked | ForgetStep) -> ForgetBegun | ForgottenAsked | ForgottenSome:
        """Carry one command out and return its result. Raises Rejected."""
        if isinstance(command, ForgetAsked):
            return self._asked(command)
        return self._begin(command) if isinstance(command, Forget) else self._step(command)

    def _asked(self, order: ForgetAsked) -> ForgottenAsked:
        """Empty what one actor has asked for; the log itself says whether it was he."""
        work, his = self._work, _logged(order.actor, order.tenant)
        parked = [
            row.command_id
            for row in self._parking.rows.values()
            if (actor := message_of(row).actor) is not None and actor.as_logged == his
        ]
        # His name would stay in the log.
        _refuse_parked(parked, "the one who asked")
        ids = list(dict.fromkeys(order.commands))
        work.prefetch([LogEntry.at(command_id) for command_id in ids])
        letters = 0
        emptied: list[LogEntry] = []
        for command_id in ids:
            entry = work.get(LogEntry, command_id)
            if entry is None or entry.actor != his:
                continue
            self._empty(entry, without_actor=True)
            emptied.append(entry)
            letters += self._empty_letters(command_id, his)
        self._empty_steps(emptied)
        letters += self._empty_his_letters(order.letters, his)
        return ForgottenAsked(entries=len(emptied), letters=letters, by=order.by)

    def _begin(self, order: Forget) -> ForgetBegun:
        """Look whom it means, and emit the first step."""
        ref = self._subject(order)
        row = self._row(ref)
        digests = self._digests(ref, row)
        parked = [each.command_id for each in self._parking.rows.values() if self._is_of(each, digests)]
        _refuse_parked(parked, ref.model.table)
        goes_on_as = None
        if not order.dry_run:
            key = ref.value if row is None else key_of(row)
            known = self._subjects.keys.digest_of(ref.model, key) if row is not None or not order.column else ""
            step = ForgetStep(
                order=self._work.command_id,
                digests=list(digests),
                row=known,
                actor=order.actor,
                tenant=order.tenant,
            )
            goes_on_as = self._emit(step)
        return ForgetBegun(
            table=ref.model.table,
            commands=self._count(digests),
            is_row_there=row is not None,
            goes_on_as=goes_on_as,
            by=order.by,
        )

    def _step(self, step: ForgetStep) -> ForgottenSome:
        """Take the data out of the next entries, and emit the next step unless that was the last."""
        up_to = step.up_to or self._place_of(step.order)
        digests, after = list(step.digests), step.after
        found: list[PersonalEntry] = []
        while digests:
            room = STEP_ENTRIES_MAX - len(found)
            page = self._page(digests[0], after, room + 1, up_to)
            found += page[:room]
            if len(page) > room:
                after = page[room - 1].id if room else after
                break
            digests, after = digests[1:], ""
        entries, letters, timers = self._take_out(found, step)
        done = ForgottenSome(
            entries=step.entries + entries,
            letters=step.letters + letters,
            timers=(*step.timers, *timers)[:STEP_ENTRIES_MAX],
            goes_on_as=None,
        )
        if not digests:
            return done
        following = ForgetStep(
            order=step.order,
            digests=digests,
            row=step.row,
            after=after,
            up_to=up_to,
            actor=step.actor,
            tenant=step.tenant,
            entries=done.entries,
            letters=done.letters,
            timers=done.timers,
        )
        return msgspec.structs.replace(done, goes_on_as=self._emit(following))

    def _subject(self, order: Forget) -> Ref[Row]:
        model = self._subjects.models.get(order.table)
        if model is None:
            known = ", ".join(sorted(self._subjects.models)) or "none"
            raise Rejected("unknown_table", f"this lane has no rows of {order.table!r}; it has {known}")
        column: str | tuple[str, ...] = order.column or model.key
        try:
            given: Any = msgspec.json.decode(bytes(order.value))
            key: Key = self._work.kinds[model].check.key_of_json(column, given)
            return Ref(model, column, key)
        except WrongUse as error:
            raise Rejected("not_a_key", f"{order.table}: {error}") from None
        except (InvalidRow, TypeError, msgspec.MsgspecError):
            # The error quotes the value, which would stay in the log.
            named = column if isinstance(column, str) else ", ".join(column)
            raise Rejected("not_a_key", f"{order.table}: no row can have the value of this order as {named}") from None

    def _row(self, ref: Ref[Row]) -> Row | None:
        return self._work.find(ref.model, ref.column, ref.value)

    def _digests(self, ref: Ref[Row], row: Row | None) -> tuple[str, ...]:
        """That of the person, and of his row by its key and its other unique columns, under which he may be named."""
        found = {digest_of(ref): None}
        if row is not None:
            model = ref.model
            found[digest_of(Row.personal_of(row))] = None
            for column in model.unique:
                value = getattr(row, column)
                if value is not None:
                    found[digest_of(Ref(model, column, value))] = None
        return tuple(found)

    def _is_of(self, row: ParkedCommand, digests: Sequence[str]) -> bool:
        request = prepared(row, self._handlers, ANYWHERE)
        return not set(digests).isdisjoint(self._subjects.of_unapplied(self._work, request))

    def _count(self, digests: Sequence[str]) -> int:
        """How many commands there are, each once."""
        pages = (self._page(digest, "", COUNTED_MAX, 0) for digest in digests)
        return len({each.command_id for page in pages for each in page})

    def _page(self, digest: str, after: str, limit: int, up_to: int) -> list[PersonalEntry]:
        """The first entries of one person behind this one, up to this sequence; 0: all."""
        rows = self._work.page(PersonalEntry, limit, after or f"{digest}:")
        return [row for row in rows if row.id.startswith(f"{digest}:") and (not up_to or row.sequence <= up_to)]

    def _place_of(self, order: str) -> int:
        """The sequence of the order; 0: the log no longer has it, and all that is there is older or nearly so."""
        entry = self._work.get(LogEntry, order)
        return 0 if entry is None else entry.sequence

    def _emit(self, step: ForgetStep) -> str:
        # Of the command that emits it: made of the digests, the id would prove a guess at whom it is about.
        command_id = system_command_id("forget", self._lane, step.order, self._work.command_id)
        arguments = msgspec.json.encode(step)
        self._work.send_out(Emission(lane=self._lane, command_id=command_id, type=ForgetStep.type, arguments=arguments))
        return command_id

    def _take_out(self, found: Sequence[PersonalEntry], step: ForgetStep) -> tuple[int, int, list[str]]:
        """Returns how many entries and letters there were, and the commands whose timers still wait."""
        work = self._work
        his = _logged(step.actor, step.tenant) if step.actor else None
        work.prefetch([LogEntry.at(each.command_id) for each in found])
        letters = 0
        emptied: list[LogEntry] = []
        waiting: list[str] = []
        for each in found:
            if work.get(PersonalEntry, each.id) is None:
                # Another order of this transaction has done it.
                continue
            entry = work.get(LogEntry, each.command_id)
            if entry is not None and not is_forgotten(entry):
                self._empty(entry, without_actor=his is not None and entry.actor == his)
                emptied.append(entry)
            letters += self._empty_letters(each.command_id, his)
            if not is_of_emitted(each):
                self._subjects.keys.take_out(work, each.sequence, step.row, step.order)
                work.remove(each)
                continue
            # That stays in the index: it may become a dead letter later, or still waits for its time.
            timers = work.keys_of(Timer, "about", each.command_id, 1)
            if timers and work.get(Timer, timers[0]) is not None:
                waiting.append(each.command_id)
        self._empty_steps(emptied)
        return len(emptied), letters, waiting

    def _empty(self, entry: LogEntry, *, without_actor: bool) -> None:
        emptied = forgotten_entry(entry, without_actor=without_actor)
        self._work.replace(emptied)
        if emptied.command_id in self._known:
            # It is repeated in this very transaction.
            self._known[emptied.command_id] = emptied

    def _empty_steps(self, entries: Sequence[LogEntry]) -> None:
        """Take the words of errors, and of persons' verdicts, out of what sagas have noted of these commands.

        A saga's row is the service's own; its steps no command of a service changes.
        """
        if self._subjects.models.get(SagaStep.table) is not SagaStep:
            return
        ids = [entry.command_id for entry in entries]
        ids += [child_of(text).command_id for entry in entries for text in passage_of(entry.passage).children]
        self._work.prefetch([SagaStep.at(command_id) for command_id in ids])
        for command_id in ids:
            step = self._work.get(SagaStep, command_id)
            if step is not None and step.error_message is not None:
                self._work.replace(msgspec.structs.replace(step, error_message=None))

    def _empty_letters(self, command_id: str, his: str | None) -> int:
        """Empty the dead letters of one command; returns how many there are."""
        letters = 0
        for number in self._work.keys_of(DeadLetter, "command_id", command_id, LETTERS_OF_ONE_MAX):
            letter = self._work.get(DeadLetter, number)
            if letter is not None:
                self._letters.emptied(letter, _emptied(letter, his))
                letters += 1
        return letters

    def _empty_his_letters(self, numbers: Sequence[int], his: str) -> int:
        """Empty those of these dead letters that name him as who asked; returns how many there are."""
        self._work.prefetch([DeadLetter.at(number) for number in numbers])
        letters = 0
        for number in numbers:
            letter = self._work.get(DeadLetter, number)
            if letter is not None and names(letter, his):
                self._letters.emptied(letter, _emptied(letter, his))
                letters += 1
        return letters


def names(letter: DeadLetter, his: str) -> bool:
    """Whether a dead letter says that he asked, whom the log would have so."""
    actor = Options.decode(letter.options).actor
    return actor is not None and actor.as_logged == his


def _logged(subject: str, tenant: str) -> str:
    """As the log has him: a subject is somebody only with its tenant."""
    return Principal(subject=subject, tenant=tenant or None).as_logged


def _refuse_parked(parked: Sequence[str], whose: str) -> None:
    """Raises Rejected where commands wait that would be lost."""
    if parked:
        named = ", ".join(parked[:NAMED_MAX]) + (" …" if len(parked) > NAMED_MAX else "")
        raise Rejected(
            "parked",
            f"commands with data of {whose} wait to be applied, and would be lost: {named}. Replay or discard the "
            "failed one (`coordinator dead`), or release its key (`coordinator release`), and forget again",
        )


def _emptied(letter: DeadLetter, his: str | None) -> DeadLetter:
    """A letter without its content. It can be replayed with other arguments, as one that was cut."""
    # Who sent it chose the words of its trace.
    options = msgspec.structs.replace(Options.decode(letter.options), traceparent=None, tracestate=None)
    if his is not None and names(letter, his):
        options = msgspec.structs.replace(options, actor=None)
    return msgspec.structs.replace(
        letter,
        # Its source may have a digest of the content, by which a guess could be proved.
        source=letter.source if letter.source == letter.command_id else f"forgotten {letter.id}",
        reason=REASON,
        traceback=None,
        arguments=b"",
        size_bytes=max(1, letter.size_bytes),
        options=options.encode(),
    )
