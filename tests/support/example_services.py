"""The services of docs/examples: what is asked of each, and what must hold afterwards."""

import importlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Engine, insert, select

from coordinator.runtime.addresses import scheme_of
from coordinator.service.service import Service
from docs.examples.bank import models
from tests.support.databases import sql_engine

Row = dict[str, Any]
Rows = dict[str, list[Row]]
Asked = tuple[str, dict[str, Any]]
"""The name of a command, and its arguments."""


@dataclass(frozen=True)
class Answered:
    """What a client was told in the end, however often it had to ask."""

    command: str
    sent: dict[str, Any]
    status: int
    body: Row

    @property
    def is_applied(self) -> bool:
        return self.status == 200


@dataclass(frozen=True)
class Example:
    """One service, what is asked of it, and what must hold afterwards.

    `traffic` is given the results of `opening`. `check` is given all rows and all answers, without those of `opening`.
    `fill` makes what is in the database before the service comes to it, on `kinds` of databases, and `look` says
    whether it is still there.
    """

    module: str
    opening: Sequence[Asked]
    traffic: Callable[[random.Random, Sequence[Row]], Asked]
    check: Callable[[Rows, Sequence[Answered]], None]
    kinds: Sequence[str] = ("PostgreSQL", "MySQL", "MongoDB")
    fill: Callable[[Engine], None] = lambda _: None
    look: Callable[[Engine], None] = lambda _: None

    @property
    def name(self) -> str:
        return self.module.partition(".")[0]

    @property
    def target(self) -> str:
        return f"docs.examples.{self.module}:{self.name}"

    @property
    def service(self) -> Service:
        service = getattr(importlib.import_module(f"docs.examples.{self.module}"), self.name)
        assert isinstance(service, Service)
        return service

    def at(self, address: str, look: Callable[[Engine], None]) -> None:
        """Look into the SQL database at this address; there is nothing to see in another."""
        if scheme_of(address) != "mongodb":
            engine = sql_engine(address)
            look(engine)
            engine.dispose()


def _stock_traffic(draw: random.Random, articles: Sequence[Row]) -> Asked:
    match draw.randrange(10):
        case 0:
            return "list", {"code": f"B{draw.randrange(20)}", "price": "1.05", "pieces": 1}
        case 1 | 2 | 3:
            return "give_back", {"id": draw.randint(1, 100)}
    return "take", {"article": draw.choice(articles)["id"], "pieces": draw.randint(1, 3)}


def _check_stock(rows: Rows, answers: Sequence[Answered]) -> None:
    taken = rows["taken"]
    assert [each["id"] for each in taken] == list(range(1, len(taken) + 1)), "numbers have no gaps"
    applied = Counter(each.command for each in answers if each.is_applied)
    assert len(taken) == applied["take"] > 0
    given_back = [each.sent["id"] for each in answers if each.command == "give_back" and each.is_applied]
    assert sorted(given_back) == sorted(set(given_back)), "what was taken is given back once"
    assert sorted(given_back) == [each["id"] for each in taken if each["status"] == "given_back"]
    codes = [each["code"] for each in rows["articles"]]
    assert len(codes) == len(set(codes)) == applied["list"] + 2
    for article in rows["articles"]:
        out = [each for each in taken if each["article"] == article["id"] and each["status"] == "taken"]
        pieces = {"A1": 100, "A2": 50}.get(article["code"], 1)
        assert article["pieces"] == pieces - sum(each["pieces"] for each in out) >= 0
        for each in out:
            assert Decimal(each["amount"]) == Decimal(article["price"]) * each["pieces"]


def _profile_traffic(draw: random.Random, people: Sequence[Row]) -> Asked:
    key = draw.choice(people)["id"]
    match draw.randrange(10):
        case 0:
            return "register", {"handle": f"new_{draw.randrange(10)}", "born": "1815-12-10"}
        case 1 | 2 | 3:
            address = {"label": f"label {draw.randrange(15)}", "street": "Straße 7", "city": "Łódź"}
            return "add_address", {"id": key, "address": address}
    return "prefer", {"id": key, "name": f"n{draw.randrange(5)}", "value": draw.choice([None, True, "dark", 7, "été"])}


def _check_profiles(rows: Rows, answers: Sequence[Answered]) -> None:
    handles = [each["handle"] for each in rows["profiles"]]
    applied = Counter(each.command for each in answers if each.is_applied)
    assert len(handles) == len(set(handles)) == applied["register"] + 3
    refused = {each.body["code"] for each in answers if not each.is_applied}
    assert refused <= {"handle_taken", "too_many_addresses"}
    for person in rows["profiles"]:
        assert len(person["addresses"]) == len({each["label"] for each in person["addresses"]}) <= 10
        changes = sum(each.is_applied and each.sent.get("id") == person["id"] for each in answers)
        assert person["version"] == 1 + changes, "each change counts its version up, once"
        last = max(
            (each.body for each in answers if each.body.get("id") == person["id"]), key=lambda row: row["version"]
        )
        assert last == person


def _order_traffic(draw: random.Random, placed: Sequence[Row]) -> Asked:
    item = {"article": "Łampe", "pieces": draw.randint(1, 9), "price_cents": draw.randrange(5000)}
    named = {"order_id": draw.choice(placed)["id"] if draw.randrange(5) else draw.randint(1, 15)}
    match draw.randrange(40):
        case 0:
            return "close", named
        case 1 | 2 | 3:
            return "place", {"customer": "Ada", "items": [item] * draw.randint(1, 3)}
        case number if number < 20:
            return "add_line", named | {"item": item}
        case number if number < 30:
            return "take_out", named | {"line": draw.randint(1, 15)}
    return "change_line", named | {"line": draw.randint(1, 15), "pieces": draw.randint(1, 9)}


def _check_orders(rows: Rows, answers: Sequence[Answered]) -> None:
    orders, applied = rows["orders"], [each for each in answers if each.is_applied]
    counts = Counter(each.command for each in applied)
    assert min(counts.values()) > 0
    assert len(counts) == 5, "each command was applied at least once"
    assert [each["id"] for each in orders] == list(range(1, counts["place"] + 5)), "numbers have no gaps"
    placed = {each.body["id"]: len(each.sent["items"]) for each in applied if each.command == "place"}
    assert len(placed) == counts["place"]
    keys = [(each["order_id"], each["line"]) for each in rows["lines"]]
    assert keys == sorted(set(keys)), "in order of the key, by numbers"
    assert {order for order, _ in keys} <= {each["id"] for each in orders}
    for order in orders:
        lines = [each for each in rows["lines"] if each["order_id"] == order["id"]]
        assert order["total_cents"] == sum(each["item"]["pieces"] * each["item"]["price_cents"] for each in lines)
        changes = [each for each in applied if each.sent.get("order_id") == order["id"]]
        assert order["version"] == 1 + len(changes), "each change counts its version up, once"
        assert len(lines) <= 20
        by_name = {name: [each for each in changes if each.command == name] for name in counts}
        first = placed.get(order["id"], 2)
        _check_lines(order, lines, first, by_name)


def _check_lines(order: Row, lines: Sequence[Row], first: int, changes: dict[str, list[Answered]]) -> None:
    added = {each.body["last_line"]: each.sent["item"] for each in changes["add_line"]}
    assert sorted(added) == list(range(first + 1, order["last_line"] + 1)), "numbers of lines have no gaps"
    assert len(added) == len(changes["add_line"])
    taken_out = [each.sent["line"] for each in changes["take_out"]]
    assert len(taken_out) == len(set(taken_out)), "a line is taken out once"
    assert [each["line"] for each in lines] == [
        number for number in range(1, order["last_line"] + 1) if number not in taken_out
    ]
    for line in lines:
        seen = [each.body for each in changes["change_line"] if each.sent["line"] == line["line"]]
        assert line["version"] == 1 + len(seen)
        if seen:
            assert line == max(seen, key=lambda row: int(row["version"]))
        elif line["line"] > first:
            assert line["item"] == added[line["line"]]
    assert [each.body for each in changes["close"]] == ([order] if order["is_closed"] else []), "it does not change"


OLD_ACCOUNTS: Final[list[Row]] = [
    {"id": 3, "owner": "Żaneta", "email": "z@example.org", "balance_cents": 0, "entries": 0, "remark": None},
    {"id": 7, "owner": "Ada", "email": "ada@example.org", "balance_cents": 9000, "entries": 2, "remark": "of old"},
    {"id": 40, "owner": "Bob", "email": "bob@example.org", "balance_cents": 500, "entries": 1, "remark": "été"},
]
OLD_ENTRIES: Final[list[Row]] = [
    {"account_id": 7, "number": 1, "amount_cents": 9500, "booked_at": datetime.fromisoformat("2019-12-31T23:59:58")},
    {"account_id": 7, "number": 2, "amount_cents": -500, "booked_at": datetime.fromisoformat("2020-02-29T01:02:03")},
    {"account_id": 40, "number": 1, "amount_cents": 500, "booked_at": datetime.fromisoformat("2020-02-29T01:02:03")},
]


def _fill_bank(engine: Engine) -> None:
    models.Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(models.Account), [each | {"branch": f"b{each['id']}"} for each in OLD_ACCOUNTS])
        connection.execute(insert(models.Entry), OLD_ENTRIES)


def _look_at_bank(engine: Engine) -> None:
    """At the columns that the service does not have."""
    with engine.connect() as connection:
        accounts = connection.execute(select(models.Account.id, models.Account.branch, models.Account.remark)).all()
        old = [(each["id"], f"b{each['id']}", each["remark"]) for each in OLD_ACCOUNTS]
        assert sorted(map(tuple, accounts))[:3] == old
        assert {tuple(each)[1:] for each in accounts if each.id > 40} == {("main", None)}
        entries = connection.execute(select(models.Entry.account_id, models.Entry.number, models.Entry.booked_at)).all()
        booked = {(each.account_id, each.number): each.booked_at for each in entries}
        assert None not in booked.values()
        for each in OLD_ENTRIES:
            assert booked[each["account_id"], each["number"]] == each["booked_at"]


def _bank_traffic(draw: random.Random, opened: Sequence[Row]) -> Asked:
    if draw.randrange(10) == 0:
        # One is there in small letters, from before.
        email = draw.choice(["ada@example.org", f"Ada{draw.randrange(12)}@example.org"])
        return "open", {"owner": "Ada", "email": email}
    source, to = draw.sample([7, 40, 40, *(each["id"] for each in opened), 42, 43], 2)
    return "transfer", {"source": source, "to": to, "amount_cents": draw.randint(1, 1000)}


def _check_bank(rows: Rows, answers: Sequence[Answered]) -> None:
    accounts, entries = rows["accounts"], rows["entries"]
    applied = Counter(each.command for each in answers if each.is_applied)
    assert min(applied["open"], applied["transfer"]) > 0
    assert [each["id"] for each in accounts] == [3, 7, *range(40, 42 + applied["open"])], "numbers go on"
    assert sum(each["balance_cents"] for each in accounts) == sum(each["balance_cents"] for each in OLD_ACCOUNTS)
    assert len(entries) == len(OLD_ENTRIES) + 2 * applied["transfer"]
    old = [{name: each[name] for name in ("account_id", "number", "amount_cents")} for each in OLD_ENTRIES]
    assert [each for each in entries if each in old] == old
    for account in accounts:
        own = [each for each in entries if each["account_id"] == account["id"]]
        assert [each["number"] for each in own] == list(range(1, account["entries"] + 1))
        assert account["balance_cents"] == sum(each["amount_cents"] for each in own) >= 0
        before = sum(each["account_id"] == account["id"] for each in OLD_ENTRIES)
        assert account["version"] == 1 + len(own) - before, "rows from before are of version 1"
        paid = [
            each.sent["amount_cents"]
            for each in answers
            if each.is_applied and each.sent.get("source") == account["id"]
        ]
        assert sorted(-each["amount_cents"] for each in own[before:] if each["amount_cents"] < 0) == sorted(paid)


EXAMPLES: Final = [
    Example(
        "stock",
        [
            ("list", {"code": "A1", "price": "9.90", "pieces": 100}),
            ("list", {"code": "A2", "price": "0.01", "pieces": 50}),
        ],
        _stock_traffic,
        _check_stock,
    ),
    Example(
        "profiles",
        [("register", {"handle": name}) for name in ("ada", "bob", "cy")],
        _profile_traffic,
        _check_profiles,
    ),
    Example(
        "orders",
        [
            ("place", {"customer": "Bob", "items": [{"article": "A", "pieces": 1, "price_cents": 101}] * 2})
            for _ in range(4)
        ],
        _order_traffic,
        _check_orders,
    ),
    Example(
        "bank.service",
        [("open", {"owner": "Ada", "email": "Ada@example.org"})],
        _bank_traffic,
        _check_bank,
        ["PostgreSQL", "MySQL"],
        _fill_bank,
        _look_at_bank,
    ),
]
