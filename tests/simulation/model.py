"""The reference: the services as anyone would write them, applied to the log's commands one by one, in sequence."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.ids import derived_command_id
from shared.lane_tables import LogEntry
from shared.messaging.wire import CommandMessage
from tests.simulation.services import MENDED

REFUSABLE = ("constraint", "too long")


class Refusal(Exception):
    """What the model expects instead of `applied`."""


class Model:
    """One lane's state. `emitted` are the commands that its applied ones have emitted."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.accounts: dict[int, dict[str, Any]] = {}
        self.notes: dict[int, tuple[int, int]] = {}
        self.remarks: dict[int, str | None] = {}
        self.last_id = 0
        self.emitted: dict[str, tuple[str, CommandMessage]] = {}
        self._undo: tuple[Any, ...] = ()

    def check(self, entry: LogEntry, message: CommandMessage, cancelled: set[str]) -> str | None:
        """Apply one command; what is wrong with its log entry, if anything."""
        if entry.error_code == "cancelled":
            return None if entry.command_id in cancelled else "was cancelled by nobody"
        if message.type == "lane.release":
            # For which of them there is something to release, tests/simulation/parked.py knows.
            return None if entry.error_code in (None, "not_parked") else f"is {entry.error_code}"
        if entry.status == "expired":
            return None if message.deadline_ms is not None else "expired without a deadline"
        arguments = self._arguments(message)
        how = arguments.get("how") if isinstance(arguments, dict) else None
        if entry.error_code == "database_refused":
            return None if how in REFUSABLE else "was refused by the database"
        before = {key: account.copy() for key, account in self.accounts.items()}, self.last_id
        emitted: list[tuple[str, dict[str, Any]]] = []
        try:
            result = self._apply(message, arguments, emitted)
            expected = "applied"
        except Refusal as refusal:
            self.accounts, self.last_id = before
            result, expected, emitted = None, str(refusal), []
        got = entry.error_code or entry.status
        if got != expected:
            return f"is {got}, and should be {expected}"
        for position, (command_type, command) in enumerate(emitted):
            command_id = derived_command_id(f"{entry.type} {entry.command_id}", position)
            body = msgspec.json.encode(command)
            child = CommandMessage(command_id=command_id, type=command_type, arguments=body)
            self.emitted[command_id] = (entry.command_id, child)
        recorded = None if entry.result is None else msgspec.json.decode(entry.result)
        if isinstance(recorded, dict):
            recorded = {name: recorded.get(name) for name in result} if isinstance(result, dict) else recorded
        return None if recorded == result else f"has result {recorded}, and should have {result}"

    def _arguments(self, message: CommandMessage) -> Any:
        try:
            return msgspec.json.decode(message.arguments)
        except msgspec.DecodeError:
            return None

    def _account(self, key: int) -> dict[str, Any]:
        if key not in self.accounts:
            raise Refusal("account_not_found")
        return self.accounts[key]

    def _apply(self, message: CommandMessage, given: Any, emitted: list[tuple[str, dict[str, Any]]]) -> Any:
        lane, _, name = (message.type or "").partition(".")
        if message.type == "lane.marker":
            return None
        if lane != self.lane or name not in _KNOWN[self.lane]:
            raise Refusal("unknown_command_type")
        if not isinstance(given, dict):
            raise Refusal("invalid_arguments")
        account = self.accounts.get(given.get("id", 0))
        if message.expected_version is not None and account and account["version"] != message.expected_version:
            raise Refusal("version_conflict")
        return getattr(self, f"_{name}")(given, emitted)

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
        emitted.append(("ledger.deposit", {"id": given["id"], "amount": given["amount"]}))

    def _relay(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        key, amount = given["id"], given["amount"]
        self._account(key)
        emitted.append(("journal.note", {"account": key, "amount": amount, "back": amount % 2 == 0}))
        emitted.append(("journal.note", {"account": key, "amount": -amount, "back": False}))
        return self._deposit({"id": key, "amount": -amount}, None)

    def _rename(self, given: dict[str, Any], _: Any) -> Any:
        account = self._account(given["id"])
        self._owner_free(given["owner"])
        account["owner"] = given["owner"]
        account["version"] += 1
        return dict(account)

    def _close(self, given: dict[str, Any], _: Any) -> Any:
        self._account(given["id"])
        del self.accounts[given["id"]]

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
        # In a batch that undoes it again the database never saw it.
        self.last_id += 1
        account["balance"] = -5000 if given["how"] == "constraint" else account["balance"] + 7
        account["version"] += 2
        return dict(account)

    def _note(self, given: dict[str, Any], emitted: list[Any]) -> Any:
        self.last_id += 1
        self.notes[self.last_id] = (given["account"], given["amount"])
        if given.get("back"):
            emitted.append(("ledger.deposit", {"id": given["account"], "amount": given["amount"]}))
        return {"id": self.last_id, "account": given["account"], "amount": given["amount"]}


_KNOWN = {
    "ledger": {
        "open",
        "deposit",
        "forward",
        "relay",
        "rename",
        "close",
        "strict",
        "tamper",
        "fragile",
        "remark",
        "note",
    },
    "journal": {"note"},
}
