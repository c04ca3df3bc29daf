"""The rows against the log: what each lane's commands must have made, replayed one by one in the log's order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.protocol.fingerprints import Fingerprints
from coordinator.protocol.wire import CommandMessage
from coordinator.stores.lane_tables import LogEntry
from tests.faults.tables import Tables
from tests.faults.workload import STOCK
from tests.support.checker import ClientRecord

Rows = dict[int, dict[str, Any]]
OF_THE_LANE = frozenset(
    {"outbox", "dead_letters", "dead_letters.nameless", "dead_letters.nameless.system", "dead_letters.senders.bytes"}
)
"""Counters that no command of a service counts."""


def check_rows(lane: str, records: Sequence[ClientRecord], log: Sequence[LogEntry], tables: Tables) -> list[str]:
    """The violations, in words. The log must be in order, and the records must know every command in it."""
    arguments = {record.command_id: record.arguments for record in records}
    unknown = [entry.command_id for entry in log if entry.command_id not in arguments]
    if unknown:
        return [f"{lane}: nobody issued {command_id}, which is in the log" for command_id in unknown]
    keys = {row.get("id", row.get("_id")): row["secret"] for row in tables.rows("fingerprint_keys")}
    violations = list(_fingerprints(log, arguments, Fingerprints(keys)))
    rows: dict[str, Rows] = {"users": {}, "items": {}, "reservations": {}, "payments": {}}
    counters: dict[str, int] = {}
    for entry in log:
        if entry.status != "applied":
            continue
        given = msgspec.json.decode(arguments[entry.command_id])
        expected = _APPLY[entry.type](rows, counters, given)
        result = msgspec.json.decode(entry.result or "null")
        seen = result if expected is None else {name: (result or {}).get(name) for name in expected}
        if seen != expected:
            violations.append(f"{lane}: sequence {entry.sequence} ({entry.type}) gave {result}; it must be {expected}")
    for table in _TABLES[lane]:
        violations += _compare(table, rows[table], tables.keyed(table))
    stored = {name: row["value"] for name, row in tables.keyed("counters", "name").items() if name not in OF_THE_LANE}
    if stored != counters:
        violations.append(f"{lane}: the counters are {stored}; {counters} rows were made")
    if lane == "items":
        violations += _stock(tables)
    return violations


def _fingerprints(log: Sequence[LogEntry], arguments: Mapping[str, bytes], fingerprints: Fingerprints) -> Iterator[str]:
    for entry in log:
        sent = CommandMessage(command_id=entry.command_id, type=entry.type, arguments=arguments[entry.command_id])
        if not fingerprints.is_same(entry.fingerprint, sent):
            yield f"sequence {entry.sequence} ({entry.type}) was not applied with the arguments of its client"


def _compare(table: str, expected: Rows, stored: Mapping[Any, Mapping[str, Any]]) -> Iterator[str]:
    if set(expected) != set(stored):
        yield f"{table}: rows {sorted(set(expected) ^ set(stored))[:10]} are there or missing against the log"
    for key in expected.keys() & stored.keys():
        seen = {name: stored[key][name] for name in expected[key] if name != "id"}
        wanted = {name: value for name, value in expected[key].items() if name != "id"}
        if seen != wanted:
            yield f"{table} {key} is {seen}; by the log it must be {wanted}"


def _stock(tables: Tables) -> Iterator[str]:
    """Independent of the replay: what is in stock and what is set aside make up what there was."""
    items, reservations = tables.keyed("items"), tables.keyed("reservations")
    for key, item in items.items():
        reserved = sum(row["quantity"] for row in reservations.values() if row["item_id"] == key)
        if item["stock"] + reserved != STOCK:
            yield f"items {key}: {item['stock']} in stock and {reserved} reserved are not what there was"


def _next_id(counters: dict[str, int], name: str) -> int:
    counters[name] = counters.get(name, 0) + 1
    return counters[name]


def _create_user(rows: dict[str, Rows], counters: dict[str, int], given: dict[str, Any]) -> dict[str, Any]:
    user = {"id": _next_id(counters, "users"), **given, "credit": 0, "version": 1}
    rows["users"][user["id"]] = user
    return dict(user)


def _credit(rows: dict[str, Rows], _: dict[str, int], given: dict[str, Any]) -> dict[str, Any]:
    user = rows["users"][given["id"]]
    user["credit"] += given["amount"]
    user["version"] += 1
    return dict(user)


def _transfer(rows: dict[str, Rows], counters: dict[str, int], given: dict[str, Any]) -> dict[str, Any]:
    payer = _credit(rows, counters, {"id": given["from"], "amount": -given["amount"]})
    _credit(rows, counters, {"id": given["to"], "amount": given["amount"]})
    return {**given, "from_credit": payer["credit"]}


def _create_item(rows: dict[str, Rows], counters: dict[str, int], given: dict[str, Any]) -> dict[str, Any]:
    item = {"id": _next_id(counters, "items"), **given, "version": 1}
    rows["items"][item["id"]] = item
    return dict(item)


def _reserve(rows: dict[str, Rows], counters: dict[str, int], given: dict[str, Any]) -> dict[str, Any]:
    reservation = {
        "id": _next_id(counters, "reservations"),
        "item_id": given["id"],
        "quantity": given["quantity"],
    }
    rows["reservations"][reservation["id"]] = reservation
    item = rows["items"][given["id"]]
    item["stock"] -= given["quantity"]
    item["version"] += 1
    return dict(reservation)


def _release(rows: dict[str, Rows], _: dict[str, int], given: dict[str, Any]) -> None:
    reservation = rows["reservations"].pop(given["reservation_id"])
    item = rows["items"][given["id"]]
    item["stock"] += reservation["quantity"]
    item["version"] += 1


def _open_payment(rows: dict[str, Rows], counters: dict[str, int], given: dict[str, Any]) -> dict[str, Any]:
    payment = {"id": _next_id(counters, "payments"), **given, "status": "pending", "version": 1}
    rows["payments"][payment["id"]] = payment
    return dict(payment)


_APPLY: dict[str, Callable[[dict[str, Rows], dict[str, int], dict[str, Any]], dict[str, Any] | None]] = {
    "users.create": _create_user,
    "users.credit": _credit,
    "users.transfer": _transfer,
    "items.create": _create_item,
    "items.reserve": _reserve,
    "items.release": _release,
    "payments.open": _open_payment,
}
_TABLES = {"users": ("users",), "items": ("items", "reservations"), "payments": ("payments",)}
