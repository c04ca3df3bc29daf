"""What the sandbox keeps: payment intents, refunds, events, and its answers by idempotency key. Durable in one file.

Sources: https://docs.stripe.com/api/payment_intents, https://docs.stripe.com/api/refunds and
https://docs.stripe.com/api/idempotent_requests.
"""

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

_CURRENCY = re.compile(r"[a-z]{3}")

DECLINES = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", ""),
}
"""Payment methods that are declined: the error's code and its decline code."""
ACCEPTED = ("pm_card_visa", "pm_card_mastercard")


class Answer(Struct, frozen=True):
    """An answer as HTTP has it."""

    status: int
    body: Json
    is_replayed: bool = False


class Refusal(Exception):
    """Raised for what Stripe would refuse; nothing was done."""

    def __init__(self, status: int, code: str, message: str, *, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.answer = error(status, code, message, kind)


class Account:
    """One account. Every change is on disk when a method returns. Used by one thread."""

    def __init__(self, path: Path | None) -> None:
        self._database = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
        self._database.execute("PRAGMA synchronous = FULL")
        for statement in (
            "CREATE TABLE IF NOT EXISTS things (id TEXT PRIMARY KEY, kind TEXT, content TEXT)",
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, asked TEXT, status INTEGER, body TEXT)",
            "CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, content TEXT, is_delivered INTEGER)",
        ):
            self._database.execute(statement)

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def carry_out(self, path: str, form: Mapping[str, str], key: str | None) -> Answer:
        """Do what a POST asks for, once for each idempotency key, and remember the answer with it."""
        asked = json.dumps([path, sorted(form.items())])
        known = None if key is None else self._answer(key)
        if known is not None:
            if known[0] != asked:
                return error(
                    400,
                    "idempotency_key_in_use",
                    f"Keys for idempotent requests can only be used with the same parameters: {key}",
                    "idempotency_error",
                )
            return Answer(known[1], known[2], is_replayed=True)
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            try:
                answer = Answer(200, self._do(path, form))
            except Refusal as refusal:
                answer = refusal.answer
                if answer.status != HTTPStatus.PAYMENT_REQUIRED:
                    # Not executed, so not remembered.
                    return answer
            if key is not None:
                self._remember(key, asked, answer)
        return answer

    def spoil(self, key: str | None, answer: Answer) -> None:
        """Let the answer that is remembered with a key be a fault, as Stripe does with a 500, whatever was done."""
        self._database.execute(
            "UPDATE answers SET status = ?, body = ? WHERE key = ?", [answer.status, json.dumps(answer.body), key]
        )

    def get(self, thing_id: str) -> Answer:
        """A payment intent or a refund."""
        thing = self._thing(thing_id)
        if thing is None:
            return error(404, "resource_missing", f"No such object: {thing_id!r}")
        return Answer(200, thing)

    def refunds_of(self, intent_id: str, limit: int) -> Answer:
        """A list, the newest first."""
        found = [refund for refund in self.all_of("refund") if refund["payment_intent"] == intent_id]
        return Answer(200, _listed([*reversed(found)][:limit], "/v1/refunds"))

    def found_by_key(self, idempotency_key: str) -> Answer:
        """Payment intents by the key in their metadata."""
        found = [
            intent
            for intent in self.all_of("payment_intent")
            if intent["metadata"].get("idempotency_key") == idempotency_key
        ]
        return Answer(200, _listed(found, "/v1/payment_intents/search") | {"object": "search_result"})

    def all_of(self, kind: str) -> list[Json]:
        """All payment intents, or all refunds, the oldest first."""
        rows = self._database.execute("SELECT content FROM things WHERE kind = ? ORDER BY rowid", [kind])
        return [json.loads(content) for (content,) in rows]

    def undelivered(self) -> list[tuple[int, Json]]:
        """Events that nobody has taken yet."""
        rows = self._database.execute("SELECT number, content FROM events WHERE is_delivered = 0 ORDER BY number")
        return [(number, json.loads(content)) for number, content in rows]

    def delivered(self, number: int) -> None:
        """Somebody has taken it."""
        self._database.execute("UPDATE events SET is_delivered = 1 WHERE number = ?", [number])

    def _do(self, path: str, form: Mapping[str, str]) -> Json:
        parts = path.strip("/").split("/")[1:]
        match parts:
            case ["payment_intents"]:
                return self._authorize(form)
            case ["payment_intents", intent_id, "capture"]:
                return self._capture(intent_id, form)
            case ["payment_intents", intent_id, "cancel"]:
                return self._cancel(intent_id)
            case ["refunds"]:
                return self._refund(form)
            case _:
                raise Refusal(404, "url_unknown", f"Unrecognized request URL (POST: {path})")

    def _authorize(self, form: Mapping[str, str]) -> Json:
        amount, currency = _amount(form, "amount"), form.get("currency", "")
        if not _CURRENCY.fullmatch(currency):
            raise Refusal(400, "parameter_invalid_string", f"Invalid currency: {currency!r}")
        method = form.get("payment_method", "")
        intent: Json = {
            "id": _new_id("pi"),
            "object": "payment_intent",
            "amount": amount,
            "amount_received": 0,
            "amount_refunded": 0,
            "currency": currency,
            "created": int(time.time()),
            "capture_method": form.get("capture_method", "automatic"),
            "last_payment_error": None,
            "metadata": _nested(form, "metadata"),
            "payment_method": method,
            "status": "requires_capture",
        }
        declined = DECLINES.get(method)
        if declined is None and method not in ACCEPTED:
            raise Refusal(400, "resource_missing", f"No such PaymentMethod: {method!r}")
        if declined is not None:
            failure = {"type": "card_error", "code": declined[0], "message": "Your card was declined."}
            failure |= {"decline_code": declined[1]} if declined[1] else {}
            intent |= {"status": "requires_payment_method", "last_payment_error": failure}
            self._put(intent)
            self._note("payment_intent.payment_failed", intent)
            refusal = Refusal(402, declined[0], "Your card was declined.", kind="card_error")
            refusal.answer.body["error"] |= failure | {"payment_intent": intent}
            raise refusal
        self._put(intent)
        self._note("payment_intent.amount_capturable_updated", intent)
        return intent

    def _capture(self, intent_id: str, form: Mapping[str, str]) -> Json:
        intent = self._in_state(intent_id, "captured", "requires_capture")
        amount = _amount(form, "amount_to_capture") if "amount_to_capture" in form else intent["amount"]
        if amount > intent["amount"]:
            raise Refusal(400, "amount_too_large", f"The amount {amount} is more than is held: {intent['amount']}")
        intent |= {"status": "succeeded", "amount_received": amount}
        self._put(intent)
        self._note("payment_intent.succeeded", intent)
        return intent

    def _cancel(self, intent_id: str) -> Json:
        intent = self._in_state(intent_id, "canceled", "requires_capture", "requires_payment_method")
        intent |= {"status": "canceled"}
        self._put(intent)
        self._note("payment_intent.canceled", intent)
        return intent

    def _refund(self, form: Mapping[str, str]) -> Json:
        intent = self._in_state(form.get("payment_intent", ""), "refunded", "succeeded")
        left = intent["amount_received"] - intent["amount_refunded"]
        amount = _amount(form, "amount") if "amount" in form else left
        if left == 0:
            raise Refusal(400, "charge_already_refunded", f"{intent['id']} has already been refunded.")
        if amount > left:
            raise Refusal(400, "amount_too_large", f"Refund amount {amount} is greater than what is left: {left}")
        refund: Json = {
            "id": _new_id("re"),
            "object": "refund",
            "amount": amount,
            "currency": intent["currency"],
            "created": int(time.time()),
            "metadata": _nested(form, "metadata"),
            "payment_intent": intent["id"],
            "status": "succeeded",
        }
        self._put(refund)
        intent["amount_refunded"] += amount
        self._put(intent)
        charge = {
            "id": intent["id"].replace("pi_", "ch_"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": intent["amount_received"],
            "amount_refunded": intent["amount_refunded"],
            "currency": intent["currency"],
            "metadata": intent["metadata"],
            "payment_intent": intent["id"],
            "status": "succeeded",
        }
        self._note("charge.refunded", charge)
        return refund

    def _in_state(self, intent_id: str, asked: str, *states: str) -> Json:
        intent = self._thing(intent_id)
        if intent is None or intent["object"] != "payment_intent":
            raise Refusal(404, "resource_missing", f"No such payment_intent: {intent_id!r}")
        if intent["status"] not in states:
            code = "payment_intent_unexpected_state"
            raise Refusal(400, code, f"{intent_id} could not be {asked}: it has a status of {intent['status']}.")
        return intent

    def _put(self, thing: Json) -> None:
        self._database.execute(
            "INSERT INTO things VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET content = excluded.content",
            [thing["id"], thing["object"], json.dumps(thing)],
        )

    def _note(self, kind: str, thing: Json) -> None:
        event = {
            "id": _new_id("evt"),
            "object": "event",
            "api_version": "2025-09-30.clover",
            "created": int(time.time()),
            "type": kind,
            "data": {"object": thing},
        }
        self._database.execute("INSERT INTO events (content, is_delivered) VALUES (?, 0)", [json.dumps(event)])

    def _thing(self, thing_id: str) -> Json | None:
        row = self._database.execute("SELECT content FROM things WHERE id = ?", [thing_id]).fetchone()
        thing: Json | None = None if row is None else json.loads(row[0])
        return thing

    def _answer(self, key: str) -> tuple[str, int, Json] | None:
        row = self._database.execute("SELECT asked, status, body FROM answers WHERE key = ?", [key]).fetchone()
        return None if row is None else (row[0], row[1], json.loads(row[2]))

    def _remember(self, key: str, asked: str, answer: Answer) -> None:
        values = [key, asked, answer.status, json.dumps(answer.body)]
        self._database.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", values)


def error(status: int, code: str, message: str, kind: str = "invalid_request_error") -> Answer:
    """An error as Stripe's API has them."""
    return Answer(status, {"error": {"type": kind, "code": code, "message": message}})


def _amount(form: Mapping[str, str], name: str) -> int:
    text = form.get(name, "")
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 10**12:
        raise Refusal(400, "parameter_invalid_integer", f"Invalid integer: {name}={text!r}")
    return int(text)


def _nested(form: Mapping[str, str], name: str) -> dict[str, str]:
    """`metadata[payment_id]=7` and the like."""
    prefix = f"{name}["
    return {field[len(prefix) : -1]: value for field, value in form.items() if field.startswith(prefix)}


def _listed(things: list[Json], url: str) -> Json:
    return {"object": "list", "data": things, "has_more": False, "url": url}


def _new_id(prefix: str) -> str:
    return f"{prefix}_sandbox{secrets.token_hex(8)}"
