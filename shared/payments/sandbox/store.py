"""The sandbox's database: payments and refunds, answers by idempotency key, events until they are delivered."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from shared.payments.sandbox.objects import Intent, SandboxRefund

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    position INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, parent TEXT, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS objects_parent ON objects (parent);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    position INTEGER PRIMARY KEY, body BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due_s);
"""

_Object = TypeVar("_Object", Intent, SandboxRefund)


class RememberedAnswer(Struct, frozen=True):
    """An answer that is remembered; `fingerprint` stands for the call's parameters."""

    fingerprint: str
    status: int
    body: bytes


class WebhookDelivery(Struct, frozen=True):
    """One event on its way to the one endpoint."""

    position: int
    body: bytes
    attempts: int
    due_s: float


class SandboxStore:
    """An SQLite file, synced at every commit; or, without a path, memory."""

    def __init__(self, path: Path | None) -> None:
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything done inside or, if an exception comes out, nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def get(self, kind: type[_Object], name: str) -> _Object | None:
        row = self._database.execute(
            "SELECT body FROM objects WHERE id = ? AND kind = ?", (name, kind.prefix)
        ).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=kind)

    def put(self, thing: Intent | SandboxRefund) -> None:
        """Add an object, or replace the one with its id."""
        self._database.execute(
            "INSERT INTO objects (id, kind, parent, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (
                thing.id,
                thing.prefix,
                thing.payment_intent if isinstance(thing, SandboxRefund) else None,
                msgspec.json.encode(thing),
            ),
        )

    def intents(self) -> list[Intent]:
        """All payments, the oldest first."""
        rows = self._database.execute("SELECT body FROM objects WHERE kind = ? ORDER BY position", (Intent.prefix,))
        return [msgspec.json.decode(body, type=Intent) for (body,) in rows]

    def refunds(self, payment_intent: str) -> list[SandboxRefund]:
        """The refunds of one payment, the latest first, as Stripe lists them."""
        rows = self._database.execute(
            "SELECT body FROM objects WHERE parent = ? ORDER BY position DESC", (payment_intent,)
        )
        return [msgspec.json.decode(body, type=SandboxRefund) for (body,) in rows]

    def answer(self, key: str) -> RememberedAnswer | None:
        row = self._database.execute("SELECT fingerprint, status, body FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else RememberedAnswer(*row)

    def remember(self, key: str, answer: RememberedAnswer) -> None:
        self._database.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?)", (key, answer.fingerprint, answer.status, answer.body)
        )

    def forget_answers(self) -> int:
        """Forget all answers; return how many there were."""
        return self._database.execute("DELETE FROM answers").rowcount

    def add_delivery(self, body: bytes, due_s: float) -> None:
        self._database.execute("INSERT INTO deliveries (body, due_s) VALUES (?, ?)", (body, due_s))

    def next_delivery(self) -> WebhookDelivery | None:
        """The delivery that is due first."""
        row = self._database.execute(
            "SELECT position, body, attempts, due_s FROM deliveries ORDER BY due_s, position LIMIT 1"
        ).fetchone()
        return None if row is None else WebhookDelivery(*row)

    def delivered(self, delivery: WebhookDelivery) -> None:
        """Remove a delivery that was taken, or is given up."""
        self._database.execute("DELETE FROM deliveries WHERE position = ?", (delivery.position,))

    def put_off(self, delivery: WebhookDelivery, due_s: float) -> None:
        self._database.execute(
            "UPDATE deliveries SET attempts = attempts + 1, due_s = ? WHERE position = ?", (due_s, delivery.position)
        )
