"""Finding what a person asks for by an id that he has: a saga, a command, a row, an idempotency key; or by a type."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, get_type_hints

import msgspec
from msgspec import Struct

from coordinator.operate.asked_rows import asked_row, key_text, not_found_by, refs_of
from coordinator.operate.conditions import LaneCondition
from coordinator.operate.following import NEVER_SENT, Follower, Open, emitted_stop, unsettled_words
from coordinator.operate.found import Found, FoundRow, FoundSaga, command_found
from coordinator.operate.kept_lanes import KEPT, also_kept, kept_words, waiting_words
from coordinator.operate.keyed_commands import ids_of_key
from coordinator.operate.places import Stop, settled_stop
from coordinator.operate.relatives import emitter_of
from coordinator.operate.row_waits import row_waits
from coordinator.operate.saga_standing import standing_of
from coordinator.service.declared_sagas import DeclaredSaga, saga_of
from coordinator.service.errors import ConfigurationError, DatabaseUnavailable, Unavailable, UnreadableRow
from coordinator.service.ids import is_uuid
from coordinator.service.json_text import to_json
from coordinator.service.lane_names import lane_of
from coordinator.service.rows import KeyPart, Ref, Row, key_of
from coordinator.service.saga import ENDED, SagaRow
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.service.unshown import is_unshown
from coordinator.stores.admin import LaneAdmin, LetterQuery
from coordinator.stores.api_keys import ApiKeys
from coordinator.stores.audit import ChangeQuery

ASKED_CHARACTERS_MAX: Final = 300
FOUND_MAX: Final = 20
OF_TYPE_MAX: Final = 5
"""So many commands of a type that failed, and so many of the last that were settled, are shown."""
LOOKED_THROUGH_MAX: Final = 10_000
"""The log has no index by types: so many of its last entries are looked through."""
STEPS_MAX: Final = 200

_SPACES: Final = re.compile(r"\s+")


class _Sought(Struct, frozen=True, kw_only=True):
    """What somebody asks for, and what he may look at."""

    text: str
    lanes: Sequence[str]
    content: frozenset[str]
    subject: str | None
    tenant: str | None


class Finder:
    """Looks for ids in the lanes of an application. What it asks blocks."""

    def __init__(
        self,
        conditions: Mapping[str, LaneCondition],
        service: Callable[[str], Service],
        open_admin: Open,
        open_keys: Callable[[str], AbstractContextManager[ApiKeys]],
    ) -> None:
        """`service` raises ConfigurationError where a service's code cannot be read: its rows are not found then."""
        self._conditions = conditions
        self._service = service
        self._open = open_admin
        self._open_keys = open_keys
        self._follower = Follower(open_admin, conditions)

    def find(
        self,
        text: str,
        lanes: Sequence[str],
        content: frozenset[str],
        subject: str | None = None,
        tenant: str | None = None,
    ) -> Found:
        """All that there is of an id in these lanes. What is away is in `away`.

        Of rows in the lanes of `content` it has what they hold. An idempotency key is that of `subject`, and is looked
        for in these lanes alone: nobody else learns whether somebody has used it, and for which command.
        """
        asked_text = _SPACES.sub(" ", text.strip())[:ASKED_CHARACTERS_MAX]
        asked = _Sought(text=asked_text, lanes=lanes, content=content, subject=subject, tenant=tenant)
        found = Found(asked=asked_text, away=[], sagas=[], commands=[], rows=[])
        looked: list[str] = []
        for lane in lanes:
            condition = self._conditions[lane]
            if not condition.can_be_asked:
                found.away.append(f"{lane}: {condition.why}")
                continue
            try:
                self._in_lane(lane, asked, found)
            except (Unavailable, ConfigurationError) as error:
                found.away.append(f"{lane}: {error}")
            else:
                looked.append(lane)
        if found.is_empty and is_uuid(asked.text):
            self._emitted(asked, looked, found)
        if not found.is_empty:
            return found
        return msgspec.structs.replace(found, nothing=self._nothing_in(looked, asked))

    def _in_lane(self, lane: str, asked: _Sought, found: Found) -> None:
        if is_uuid(asked.text):
            self._command(lane, asked.text.lower(), found)
            return
        is_row = asked_row(asked.text) is not None
        if is_row or " " in asked.text or "/" in asked.text or "=" in asked.text:
            service = self._service(lane)
            refs = list(refs_of(service, asked.text))
            is_row = is_row or bool(refs)
            with self._open(lane) as admin:
                self._rows(admin, service, refs, asked, found)
        elif (command_type := self._type_named(lane, asked.text)) is not None:
            self._of_type(lane, command_type, found)
        if lane in asked.content and (not is_row or found.is_empty):
            self._keyed(lane, asked, found)

    def _keyed(self, lane: str, asked: _Sought, found: Found) -> None:
        with self._open_keys(lane) as keys:
            ids = ids_of_key(keys, lane, asked.text, asked.subject, asked.tenant)
        with self._open(lane) as admin:
            known = [each for each in ids if admin.find(each) or admin.letters(LetterQuery(command_id=each), 0, 1)]
        for command_id in known[:FOUND_MAX]:
            self._command(lane, command_id, found)

    def _type_named(self, lane: str, text: str) -> str | None:
        """The type of commands of a lane that is meant: by itself, or by the name of its class."""
        try:
            service = self._service(lane)
        except ConfigurationError:
            return None
        types = (each.command for each in service.handlers)
        return next((each.type for each in types if text in (each.type, each.__name__)), None)

    def _of_type(self, lane: str, command_type: str, found: Found) -> None:
        """The commands of a type that failed, the first first, and the last that were settled."""
        with self._open(lane) as admin:
            letters = admin.letters(LetterQuery(type=command_type), 0, OF_TYPE_MAX)
            last = admin.sequence()
            recent = ChangeQuery(type=command_type, after=max(0, last - LOOKED_THROUGH_MAX))
            settled = admin.audited(recent, last + 1, OF_TYPE_MAX)
        failed = [each.command_id for each in letters if each.command_id is not None]
        for command_id in dict.fromkeys([*failed, *(each.command_id for each in settled)]):
            self._command(lane, command_id, found)

    def _command(self, lane: str, command_id: str, found: Found) -> None:
        stops = list(self._follower.command(lane, command_id, None, None))
        if stops[-1].kind == "queue":
            # It may be in any lane: what is found nowhere is said once, of all.
            return
        if stops[0].kind == "away":
            raise DatabaseUnavailable(stops[0].why or lane)
        try:
            service = self._service(lane)
        except ConfigurationError as error:
            found.away.append(f"{lane}: {error}")
        else:
            self._its_saga(service, stops, found)
        found.commands.append(command_found(lane, command_id, stops))

    def _emitted(self, asked: _Sought, lanes: Sequence[str], found: Found) -> None:
        """A command, or an effect, that no database has, but for that of the lane that emitted it."""
        command_id = asked.text.lower()
        for lane in lanes:
            try:
                with self._open(lane) as admin:
                    emitted = emitter_of(command_id, None, {lane: admin})
                    entry = None if emitted is None else admin.find(emitted.parent.command_id)
            except (Unavailable, ConfigurationError) as error:
                found.away.append(f"{lane}: {error}")
                continue
            if emitted is None or entry is None:
                continue
            emitting = settled_stop(lane, entry, f"emitted it in lane {lane} as number {entry.sequence}")
            last = emitted_stop(emitted.child, emitted.results, self._conditions)
            found.commands.append(command_found(last.lane, command_id, [emitting, last]))
            return

    def _its_saga(self, service: Service, stops: Sequence[Stop], found: Found) -> None:
        """The saga that a command began or went on with, or of which it is a step."""
        first = stops[0]
        known = {(each.lane, each.saga, each.id) for each in found.sagas}
        for model in _sagas(service):
            declared = saga_of(model)
            if declared is None:
                continue
            with self._open(service.lane) as admin:
                for saga_id in _ids_in_result(admin, service, model, first):
                    if (service.lane, declared.name, saga_id) not in known:
                        self._saga(admin, service, model, declared, saga_id, found)
        for owner in self._conditions:
            if not self._conditions[owner].can_be_asked:
                continue
            self._step_of(owner, first.command_id or "", found)

    def _step_of(self, owner: str, command_id: str, found: Found) -> None:
        try:
            service = self._service(owner)
        except ConfigurationError:
            return
        if SagaStep not in service.models:
            return
        with self._open(owner) as admin:
            for step in admin.rows(service, SagaStep, {"command_id": command_id}, 1):
                for model in _sagas(service):
                    declared = saga_of(model)
                    if declared is not None and declared.name == step.saga:
                        self._saga(admin, service, model, declared, step.saga_id, found)

    def _rows(self, admin: LaneAdmin, service: Service, refs: Sequence[Ref[Row]], asked: _Sought, found: Found) -> None:
        for ref in refs:
            declared = saga_of(ref.model)
            is_by_key = ref.column == ref.model.key
            # By another column than the key a guess at what rows hold could be proved.
            if not is_by_key and service.lane not in asked.content:
                continue
            if declared is not None and isinstance(ref.value, int) and is_by_key:
                self._saga(admin, service, ref.model, declared, ref.value, found)
            else:
                self._row(admin, service, ref, asked, found)

    def _row(self, admin: LaneAdmin, service: Service, ref: Ref[Row], asked: _Sought, found: Found) -> None:
        lane, model = service.lane, ref.model
        text: str | None = None
        unread: str | None = None
        rows: list[Row] = []
        try:
            rows = admin.rows(service, model, _where(ref), 1)
        except UnreadableRow as error:
            unread = str(error)
        else:
            if rows and lane in asked.content:
                text = msgspec.json.format(to_json(rows[0]), indent=2).decode()
        waits = row_waits(admin, service, ref, rows[0] if text is not None else None)
        if unread is None and not rows and waits is None:
            return
        if ref.column == model.key:
            key = key_text(ref.value)
        else:
            key = key_text(key_of(rows[0])) if rows else f"{ref.column}={ref.value}"
        where = f"row {key} of {model.table}, in the database of lane {lane}"
        why, todo = waits or (unread, "docs/OPERATING.md, A row cannot be read" if unread else None)
        is_stuck = why is not None
        if not is_stuck and self._conditions[lane].state in KEPT:
            # A command for it may be among those that wait, and is not known by its row.
            why, todo = kept_words(self._conditions[lane]), None
        elif is_stuck:
            why, todo = also_kept(why, todo, self._conditions[lane])
        found.rows.append(
            FoundRow(
                lane=lane,
                table=model.table,
                key=key,
                row=text,
                is_stuck=is_stuck,
                where=where,
                why=why,
                todo=todo,
            )
        )

    def _saga(
        self,
        admin: LaneAdmin,
        service: Service,
        model: type[Row],
        declared: DeclaredSaga,
        saga_id: int,
        found: Found,
    ) -> None:
        rows = admin.rows(service, model, {str(model.key): saga_id}, 1)
        if not rows or not isinstance(rows[0], SagaRow):
            return
        row, lane = rows[0], service.lane
        steps = admin.rows(service, SagaStep, {"saga": declared.name, "saga_id": saga_id}, STEPS_MAX)
        steps.sort(key=lambda each: each.number)
        stops = list(self._stops_of_saga(service, declared, row, steps))
        answer = standing_of(declared.name, row, steps, stops, service, self._conditions)
        found.sagas.append(
            FoundSaga(
                lane=lane,
                saga=declared.name,
                id=saga_id,
                status=row.status,
                reason=None if row.reason_code is None else f"{row.reason_code}: {row.reason}",
                began_at=steps[0].began_at if steps else None,
                ended_at=row.ended_at,
                declared=declared.steps,
                steps=steps,
                stops=stops,
                **answer,
            )
        )

    def _stops_of_saga(
        self, service: Service, declared: DeclaredSaga, row: SagaRow, steps: Sequence[SagaStep]
    ) -> Iterator[Stop]:
        """The places of the command that it waits for, or at which it stopped, or which has failed so that it has gone
        back for a reason that only operators are told."""
        is_stopped = row.status == "needs_review"
        is_over = row.status in ENDED and not is_stopped
        if is_over and not is_unshown(row.reason_code):
            return
        status = "failed" if is_over else "waiting"
        step = next((each for each in reversed(steps) if is_stopped or each.status == status), None)
        if step is None:
            return
        lane = lane_of(step.command_type.partition(".")[0], service.tenant)
        stops = list(self._follower.command(lane, step.command_id, step.command_type, service.lane))
        # What was pruned since looks as if it waited.
        yield from (each for each in stops if not is_over or each.kind == "dead_letter")
        if is_stopped or is_over:
            return
        if stops[0].kind != "settled" and (stops[0].kind != "dead_letter" or stops[0].status != "failed"):
            return
        try:
            its_service = self._service(lane)
        except ConfigurationError:
            its_service = None
        # Also a failed command's answer goes back, and takes the saga back.
        yield from self._follower.answer(declared, service.lane, its_service, step.command_id, step.command_type)

    def _not_found_by(self, lane: str, of: _Sought) -> str:
        with suppress(ConfigurationError):
            return not_found_by(self._service(lane), of.text, is_operated=lane in of.content)
        return ""

    def _nothing_in(self, looked: Sequence[str], asked: _Sought) -> str:
        """What is said where nothing was found: of lanes that were looked into, and no other thing of the rest."""
        rest = [lane for lane in asked.lanes if lane not in looked]
        if not rest:
            return self._nothing(asked)
        lanes = f"lane {rest[0]} has" if len(rest) == 1 else f"lanes {', '.join(rest)} have"
        kept = "".join(f"; {kept_words(each)}" for lane in rest if (each := self._conditions[lane]).state in KEPT)
        words = f"whether {lanes} {asked.text[:100]} is not known, since nobody could look there{kept}"
        if not looked:
            return words
        others = self._nothing(msgspec.structs.replace(asked, lanes=looked), none="none of them")
        return f"{words}; of the others: {others}"

    def _nothing(self, of: _Sought, none: str = "no lane") -> str:
        asked = of.text
        # What waits in a queue is known to nobody by its key, or by the row that it is for.
        waits = f"; {waiting_words((self._conditions[lane] for lane in of.lanes), none)}"
        if is_uuid(asked):
            return unsettled_words(asked, [self._conditions[lane] for lane in of.lanes], none)
        if not of.content.issuperset(of.lanes):
            waits = f"{waits}; idempotency keys are found in the lanes that you operate"
        if any(self._type_named(lane, asked) for lane in of.lanes):
            return f"no command of type {asked} failed, nor is among the last {LOOKED_THROUGH_MAX} settled{waits}"
        if asked_row(asked) is not None:
            why = "".join(self._not_found_by(lane, of) for lane in of.lanes)
            return f"{why}there is no row, saga or idempotency key {asked}{waits}"
        return (
            f"no command is known that was asked for with the idempotency key {asked[:100]!a}: none is settled yet, "
            f"its caller is not known here (--subject, --tenant), or {NEVER_SENT}{waits}"
        )


def _where(ref: Ref[Row]) -> dict[str, KeyPart]:
    """The row's values, by their columns."""
    if isinstance(ref.column, tuple) and isinstance(ref.value, tuple):
        return dict(zip(ref.column, ref.value, strict=True))
    return {str(ref.column): ref.value} if not isinstance(ref.value, tuple) else {}


def _sagas(service: Service) -> Iterator[type[Row]]:
    return (model for model in service.models if issubclass(model, SagaRow))


def _ids_in_result(admin: LaneAdmin, service: Service, model: type[Row], stop: Stop) -> list[int]:
    """The key of the saga's row that a command returned, if it returns one."""
    handler = next((each for each in service.handlers if each.command.type == stop.type), None)
    if handler is None or stop.command_id is None:
        return []
    try:
        returned = get_type_hints(handler.handle).get("return")
    except (NameError, TypeError):
        return []
    entry = admin.find(stop.command_id)
    if returned is not model or entry is None or entry.result is None:
        return []
    saga_id = msgspec.json.decode(entry.result, type=dict[str, Any]).get(str(model.key))
    return [saga_id] if isinstance(saga_id, int) else []
