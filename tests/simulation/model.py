"""The reference: the services as anyone would write them, applied to the log's commands one by one, in sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import continuation_command_id, derived_command_id
from coordinator.service.nesting import NESTING_MAX
from coordinator.service.outside_calls import effects_key
from coordinator.stores.lane_tables import LogEntry
from tests.simulation import audit, forgets, rules
from tests.simulation.letters import NUMBER_SETTLED, continuation, replayed
from tests.simulation.services import FIRST_SECRET, LARGE, MENDED, RENAME_COSTS, SERVICES, TARGETS, Charge

if TYPE_CHECKING:
    from tests.simulation.database import Database

EFFECTS = effects_key("ledger")
REFUSABLE = ("constraint", "too long")
TOO_LONG = "too long for the database"
"""Stands for a note that nobody looks at but to see that it is not `MENDED`."""
_OPERATORS = frozenset({"lane.release", "lane.replay", "lane.discard", "lane.withdraw", *forgets.TYPES})
_INTERNAL = frozenset(
    {"ledger.note", "ledger.noted", "ledger.grant", "journal.audited", "lane.dead_effect"}
    | {"ledger.charged", "ledger.not_charged"}
)
_REJECTED_ORDERS = frozenset(
    {
        "not_parked",
        "parked",
        "letter_not_found",
        "not_replayable",
        "forbidden_command_type",
        "deadline_over",
        "replay_of_parked",
    }
)


class Refusal(Exception):
    """What the model expects instead of `applied`."""


class Model:
    """One lane's state. `emitted` are the commands that its applied ones have emitted, and to whom."""

    def __init__(self, lane: str, database: Database) -> None:
        self.lane = lane
        self.database = database
        self.accounts: dict[int, dict[str, Any]] = {}
        self.notes: dict[int, tuple[int, int]] = {}
        self.reports: list[tuple[str, str, str | None]] = []
        self.remarks: dict[int, str | None] = {}
        self.deferred: dict[int, CommandMessage | None] = {}
        self.last_id = 0
        self.last_report = 0
        self.emitted: dict[str, tuple[str, str, CommandMessage]] = {}
        self.taken_back: set[str] = set()
        self.changed: dict[int, audit.Changed] = {}
        """By sequence: what each applied command has done to the accounts."""
        self._undo: tuple[Any, ...] = ()

    def raise_series(self, values: dict[str, int]) -> None:
        """An operator has accepted a loss: what was given out is not given out again."""
        series = "accounts" if self.lane == "ledger" else "notes"
        self.last_id = values.get(series, self.last_id)
        self.last_report = values.get("reports", self.last_report)

    def check(self, entry: LogEntry, message: CommandMessage, cancelled: set[str]) -> str | None:
        """Apply one command; what is wrong with its log entry, if anything."""
        refusal = refusal_of(self.lane, message)
        wrong, deferred = self._check(entry, message, cancelled, refusal)
        wrong = wrong or rules.wrong_actor(message, entry)
        is_own = message.continuation is not None and not _is_refused(self.lane, message, message.continuation)
        if is_own and not deferred:
            self._continue(message, entry)
        return wrong

    def _check(  # noqa: C901, PLR0911  # one answer of the protocol after the other
        self, entry: LogEntry, message: CommandMessage, cancelled: set[str], refusal: str | None
    ) -> tuple[str | None, bool]:
        world = self.database.world
        if entry.error_code == "cancelled":
            # One that came before its cancellation was lost was not read: it fails, and its letter can be replayed.
            by_anybody = cancelled | (self.database.ever_cancelled if entry.status == "failed" else set())
            return (None if entry.command_id in by_anybody else "was cancelled by nobody"), False
        if entry.error_code == NUMBER_SETTLED:
            return (None if entry.command_id in self.database.pruned else "has a number that nobody has used"), False
        if refusal is not None:
            got = f"{entry.status} {entry.error_code}"
            return (None if got == f"failed {refusal}" else f"is {got}, and should be failed {refusal}"), False
        if message.type in _OPERATORS and entry.status == "rejected":
            # For which of them there is something to do, letters.py and parked.py know.
            return (None if entry.error_code in _REJECTED_ORDERS else f"is {entry.error_code}"), False
        if entry.status == "expired":
            may = message.deadline_ms is not None or entry.command_id in world.expired
            return (None if may else "expired without a deadline"), False
        if entry.status == "applied" and entry.command_id in world.expired - world.was_live:
            return f"is {entry.status}, and expired before anybody saw it", False
        arguments = self._arguments(message)
        how = arguments.get("how") if isinstance(arguments, dict) else None
        if entry.error_code == "database_refused":
            return (None if how in REFUSABLE else "was refused by the database"), False
        before = {key: account.copy() for key, account in self.accounts.items()}, self.last_id
        deferred_before = dict(self.deferred)
        emitted: list[tuple[str, dict[str, Any], str | None]] = []
        try:
            result = self._apply(message, arguments, emitted, entry)
            expected = "applied"
        except Refusal as refused:
            (self.accounts, self.last_id), self.deferred = before, deferred_before
            result, expected, emitted = None, str(refused), []
        got = entry.error_code or entry.status
        if got != expected:
            return f"is {got}, and should be {expected}", False
        if made := audit.changed(before[0], self.accounts):
            self.changed[entry.sequence] = made
        for position, (command_type, command, reports) in enumerate(emitted):
            body = msgspec.json.encode(command)
            command_id = emitted_id((entry.type, entry.command_id), position, command_type, body)
            child = CommandMessage(
                command_id=command_id, type=command_type, arguments=body, continuation=reports, origin="system"
            )
            target = EFFECTS if command_type == Charge.type else command_type.partition(".")[0]
            self._emit(entry.command_id, target, child)
        recorded = None if entry.result is None else msgspec.json.decode(entry.result)
        if isinstance(recorded, dict):
            recorded = {name: recorded.get(name) for name in result} if isinstance(result, dict) else recorded
        wrong = None if recorded == result else f"has result {recorded}, and should have {result}"
        is_deferred = message.type == "ledger.postpone" and expected == "applied" and message.continuation is not None
        return wrong, is_deferred

    def _continue(self, message: CommandMessage, entry: LogEntry) -> None:
        """What its outcome becomes, which may say no more than whoever named it."""
        command_type = message.continuation or ""
        child = continuation(
            own_id=continuation_command_id(f"{message.type} {message.command_id}"),
            about=(message.command_id or "", message.type or ""),
            continuation_type=command_type,
            origin=message.origin,
            status=entry.status,
            result=None if entry.result is None else msgspec.json.decode(entry.result),
            error=None
            if entry.error_code is None
            else {"code": entry.error_code, "message": entry.error_message or ""},
        )
        self._emit(entry.command_id, command_type.partition(".")[0], child)

    def _emit(self, parent: str, target: str, child: CommandMessage) -> None:
        self.emitted[child.command_id or ""] = (parent, target, child)

    def _arguments(self, message: CommandMessage) -> Any:
        try:
            given = msgspec.json.decode(message.arguments)
        except (msgspec.DecodeError, RecursionError):
            return _NO_JSON
        # How deep the decoder goes depends on Python's version.
        return given if _levels(given) <= NESTING_MAX else _NO_JSON

    def _account(self, key: int) -> dict[str, Any]:
        if key not in self.accounts:
            raise Refusal("account_not_found")
        return self.accounts[key]

    def _apply(  # noqa: PLR0911  # one return for each kind of command
        self, message: CommandMessage, given: Any, emitted: list[Any], entry: LogEntry
    ) -> Any:
        lane, _, name = (message.type or "").partition(".")
        if lane == "lane":
            return self._order(name, message, given, entry)
        if not isinstance(given, dict):
            raise Refusal("malformed_json" if given is _NO_JSON else "invalid_arguments")
        if rules.is_refused(message, given, self.accounts):
            raise Refusal("forbidden")
        account = self.accounts.get(given.get("id", 0))
        if message.expected_version is not None and account and account["version"] != message.expected_version:
            raise Refusal("version_conflict")
        if name in ("noted", "heard", "audited"):
            return self._report(given)
        if name == "postpone":
            return self._postpone(given, message)
        if name == "resume":
            return self._resume(given, entry)
        if name == "buy":
            return self._buy(given, emitted, message.command_id or "")
        if name == "take_back":
            return self._take_back(given, entry)
        return getattr(self, f"_{name}")(given, emitted)

    def _order(self, name: str, message: CommandMessage, given: Any, entry: LogEntry) -> Any:
        """What an operator, or an effect worker, had done to the lane itself."""
        if name in ("marker", "release", "dead_effect"):
            return None
        recorded: dict[str, Any] = msgspec.json.decode(entry.result or "{}")
        if message.type in forgets.TYPES:
            if (following := recorded["goes_on_as"]) is not None:
                self._emit(entry.command_id, self.lane, self.database.world.commands[following])
            return {}
        if name == "withdraw":
            return {"by": given.get("by", "")}
        letter = self.database.book.ever.get(given["letter"])
        if letter is None and given["letter"] in self.database.book.unseen and recorded:
            child = self.database.book.unseen[given["letter"]]
            if child is not None:
                self._emit(message.command_id or "", recorded["target"], child)
            return recorded
        if letter is None:
            raise Refusal("letter_not_found")
        expected = {"letter": letter.id, "target": letter.target, "command_id": letter.command_id}
        if name == "replay":
            target, child = replayed(letter, given)
            expected["replayed_as"] = child.command_id
            if recorded.get("replayed_as") == child.command_id:
                self._emit(message.command_id or "", target, child)
        return expected

    def _report(self, given: dict[str, Any]) -> Any:
        error = given.get("error")
        about = f"{given['command_type']} {given['command_id']}"
        self.reports.append((about, given["status"], None if error is None else error["code"]))
        self.last_report += 1
        return {"id": self.last_report, "about": about}

    def _postpone(self, given: dict[str, Any], message: CommandMessage) -> Any:
        account = self._account(given["id"])
        self.deferred[given["id"]] = message if message.continuation is not None else None
        how = given.get("how", "applied")
        if how != "applied":
            raise Refusal("refused" if how == "rejected" else "handler_error")
        account["version"] += 1
        return dict(account)

    def _resume(self, given: dict[str, Any], entry: LogEntry) -> Any:
        account = self._account(given["id"])
        message = self.deferred.get(given["id"])
        if message is None:
            raise Refusal("nothing_put_off")
        refusal = given.get("refusal")
        child = continuation(
            own_id=continuation_command_id(f"{message.type} {message.command_id}"),
            about=(message.command_id or "", message.type or ""),
            continuation_type=message.continuation or "",
            origin=message.origin,
            status="rejected" if refusal else "applied",
            result=None if refusal else msgspec.json.decode(entry.result or "null"),
            error={"code": refusal, "message": "refused in the end"} if refusal else None,
        )
        self._emit(entry.command_id, (message.continuation or "").partition(".")[0], child)
        self.deferred[given["id"]] = None
        account["version"] += 1
        return dict(account)

    def _spend(self, given: dict[str, Any], _: Any) -> Any:
        self._account(given["id"])
        if not given["amount"]:
            raise Refusal("handler_error")
        return self._deposit({"id": given["id"], "amount": -given["amount"]}, None)

    _fee = _spend

    def _grant(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        account["balance"] += given["amount"]
        account["version"] += 1
        return dict(account)

    def _keep(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        emitted.append(("archive.keep", {"number": given["number"]}, None))

    def _buy(self, given: dict[str, Any], emitted: list[Any], buyer: str) -> Any:
        emitted.append((Charge.type, {"buyer": buyer, "amount": given["amount"]}, None))

    def _charged(self, given: dict[str, Any], _: Any) -> Any:
        return self._told(given["buyer"], "fact", given["reference"])

    def _not_charged(self, given: dict[str, Any], _: Any) -> Any:
        return self._told(given["buyer"], "guess", "maybe" if given["may_have_happened"] else "no")

    def _told(self, buyer: str, status: str, code: str) -> Any:
        self.reports.append((f"charge {buyer}", status, code))
        self.last_report += 1
        return {"id": self.last_report, "about": f"charge {buyer}"}

    def _open(self, given: dict[str, Any], _: Any) -> Any:
        self._owner_free(given["owner"])
        self.last_id += 1
        account = {"id": self.last_id, "owner": given["owner"], "balance": 0, "version": 1}
        self.accounts[self.last_id] = account
        return dict(account)

    def _owner_free(self, owner: str) -> None:
        if any(account["owner"] == owner for account in self.accounts.values()):
            raise Refusal("owner_taken")

    def _deposit(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        account["balance"] += given["amount"]
        account["version"] += 1
        if account["balance"] < 0:
            raise Refusal("overdrawn")
        return dict(account)

    def _forward(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        emitted.append(("ledger.deposit", {"id": given["id"], "amount": given["amount"]}, None))

    def _relay(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        key, amount = given["id"], given["amount"]
        self._account(key)
        note = {"account": key, "amount": amount, "back": amount % 2 == 0}
        emitted.append(("journal.note", note, "ledger.noted"))
        emitted.append(("journal.note", {"account": key, "amount": -amount, "back": False}, None))
        return self._deposit({"id": key, "amount": -amount}, None)

    def _rename(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        self._owner_free(given["owner"])
        account["owner"] = given["owner"]
        return self._deposit({"id": given["id"], "amount": -RENAME_COSTS}, None)

    def _close(self, given: dict[str, Any], _: Any) -> Any:
        self._account(given["id"])
        del self.accounts[given["id"]]

    def _later(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        if given["amount"] >= LARGE:
            self._account(given["id"])
        emitted.append(("ledger.deposit", {"id": given["id"], "amount": given["amount"]}, None))

    def _take_back(self, given: dict[str, Any], entry: LogEntry) -> Any:
        """Whether the timer still waited, time tells: it had not moved when this was committed."""
        if given["refuse"]:
            raise Refusal("refused")
        timer = given["timer"]
        moved_at = self.database.moved_at.get(timer)
        has_moved = moved_at is not None and moved_at < self.database.landed_at.get(entry.command_id, 0)
        waits = timer in self.emitted and timer not in self.taken_back and not has_moved
        if waits:
            self.taken_back.add(timer)
        return {"waited": waits}

    def _strict(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        if given["crash"]:
            raise Refusal("a strict command that crashes is never settled")
        account["balance"] += 1
        account["version"] += 1
        return dict(account)

    def _fragile(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        if self.remarks.get(given["id"]) != MENDED:
            raise Refusal("handler_error")
        account["balance"] += given["amount"]
        account["version"] += 1
        return dict(account)

    def _remark(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        account["version"] += 1
        self.remarks[given["id"]] = given["note"]
        return dict(account)

    def _tamper(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        if given["how"] in ("crash", "duplicate key"):
            raise Refusal("handler_error")
        if given["how"] == "out of range":
            raise Refusal("invalid_row")
        if given["how"] not in REFUSABLE:
            raise Refusal("refused")
        # In a batch that undoes it again the database never saw it; whoever came in between did.
        self.last_id += 1
        if given["how"] == "constraint":
            account["balance"] = -5000
        else:
            account["balance"] += 7
            self.remarks[given["id"]] = TOO_LONG
        account["version"] += 2
        return dict(account)

    def _note(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        self.last_id += 1
        # The second version has another name for it.
        amount = given["sum"] if "sum" in given else given["amount"]
        self.notes[self.last_id] = (given["account"], amount)
        if given.get("back"):
            name = "ledger.grant" if amount % 3 == 0 else "ledger.deposit"
            emitted.append((name, {"id": given["account"], "amount": amount}, "journal.audited"))
        return {"id": self.last_id, "account": given["account"], "amount": amount}


_NO_JSON = object()
_KNOWN = {lane: {handler.command.type for handler in service.handlers} for lane, service in SERVICES.items()}
_CONTROL = _OPERATORS | {"lane.marker", "lane.dead_effect"}


def refusal_of(lane: str, message: CommandMessage) -> str | None:
    """Why a command is not even tried: who may say what comes before whether it makes sense."""
    if message.defect is not None:
        return message.defect.code
    if message.continuation is not None:
        refused = _is_refused(lane, message, message.continuation)
        if refused is not None:
            return refused
    command_type = message.type or ""
    if command_type not in _KNOWN[lane] and command_type not in _CONTROL:
        return "unknown_command_type"
    if command_type in _OPERATORS | _INTERNAL and message.origin != "system":
        return "forbidden_command_type"
    return None


def _is_refused(lane: str, message: CommandMessage, command_type: str) -> str | None:
    """Why a continuation is not taken from whoever names it."""
    if command_type.partition(".")[0] not in TARGETS:
        return "unknown_lane"
    if command_type in _KNOWN[lane] and command_type in _INTERNAL and message.origin != "system":
        return "forbidden_command_type"
    return None


def emitted_id(parent: tuple[str, str], position: int, command_type: str, body: bytes) -> str:
    """The id of what a command, its type and id, emits."""
    said = f"{command_type}\n".encode() + body
    return derived_command_id(" ".join(parent), position, said, bytes.fromhex(FIRST_SECRET))


def children_of(message: CommandMessage) -> list[str]:
    """The ids of what an applied command emits, of those types of which it can be said without the rows."""
    try:
        given = msgspec.json.decode(message.arguments)
    except (msgspec.DecodeError, RecursionError):
        return []
    emitted: list[tuple[str, dict[str, Any]]] = []
    match message.type, given:
        case "ledger.forward", {"id": key, "amount": amount}:
            emitted = [("ledger.deposit", {"id": key, "amount": amount})]
        case "ledger.relay", {"id": key, "amount": int(amount)}:
            note = {"account": key, "amount": amount, "back": amount % 2 == 0}
            emitted = [("journal.note", note), ("journal.note", {"account": key, "amount": -amount, "back": False})]
        case "journal.note", {"account": key, "amount": int(amount), "back": True}:
            name = "ledger.grant" if amount % 3 == 0 else "ledger.deposit"
            emitted = [(name, {"id": key, "amount": amount})]
        case _:
            pass
    parent = message.type or "", message.command_id or ""
    return [
        emitted_id(parent, position, command_type, msgspec.json.encode(command))
        for position, (command_type, command) in enumerate(emitted)
    ]


def _levels(given: Any) -> int:
    """How deep it is nested."""
    count, level = 0, [given]
    while level := [value for value in level if isinstance(value, dict | list)]:
        count += 1
        level = [child for value in level for child in (value.values() if isinstance(value, dict) else value)]
    return count
