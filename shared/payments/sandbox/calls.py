"""One call of Stripe's API: a fault before it, its idempotency key, its effect, a fault after it.

https://docs.stripe.com/api/idempotent_requests: the answer to a key is remembered, errors and 500 too, once the
endpoint began to execute. A refusal before that, for its parameters or for another call with the key, is forgotten.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from shared.payments.sandbox.account import Result, SandboxAccount
from shared.payments.sandbox.errors import ApiError, key_in_use, other_parameters, rate_limited, server_error
from shared.payments.sandbox.faults import Action, Fault, Faults
from shared.payments.sandbox.objects import CallForm, Intent
from shared.payments.sandbox.store import RememberedAnswer, SandboxStore

_KEY_MAX: Final = 255


class SandboxCall(Struct, frozen=True, kw_only=True):
    """`intent` is the PaymentIntent that it is about, if the path or the parameters name one."""

    method: str
    path: str
    action: Action
    form: CallForm
    key: str | None
    intent: str | None

    @property
    def fingerprint(self) -> str:
        parameters = "\n".join(f"{name}={value}" for name, value in sorted(self.form.values.items()))
        return hashlib.sha256(f"{self.method} {self.path}\n{parameters}".encode()).hexdigest()


class SandboxReply(Struct, frozen=True):
    """The answer. `replayed`: the same key had this answer before."""

    status: int
    body: bytes
    replayed: bool = False


class ConnectionLost(Exception):
    """Raised when the caller must get no answer."""


class Calls:
    """Makes the calls. `changed` is notified when a call has changed something."""

    def __init__(self, store: SandboxStore, account: SandboxAccount, faults: Faults) -> None:
        self._store = store
        self._account = account
        self._faults = faults
        self._keys_in_use: set[str] = set()
        self.changed = asyncio.Condition()

    async def make(self, call: SandboxCall, perform: Callable[[SandboxAccount], Result]) -> SandboxReply:
        """Raises ApiError and ConnectionLost."""
        faults = self._faults_of(call)
        if "429" in faults:
            raise rate_limited(self._faults.plan.retry_after_s)
        if "500_before" in faults:
            raise server_error(begun=False)
        if "lost_request" in faults:
            raise ConnectionLost
        if call.key is not None and len(call.key) > _KEY_MAX:
            raise ApiError(400, {"type": "invalid_request_error", "message": f"Idempotency-Key: over {_KEY_MAX} long"})
        if call.key in self._keys_in_use:
            raise key_in_use(call.key)
        keys = {call.key} if call.key is not None else set()
        self._keys_in_use |= keys
        try:
            reply = self._execute(call, perform, faults)
            async with self.changed:
                self.changed.notify_all()
            if "delay" in faults:
                await asyncio.sleep(self._faults.plan.delay_s)
        finally:
            self._keys_in_use -= keys
        if "lost_answer" in faults:
            raise ConnectionLost
        return reply

    def _faults_of(self, call: SandboxCall) -> set[Fault]:
        intent = self._store.get(Intent, call.intent) if call.intent else None
        method = intent.payment_method if intent else call.form.values.get("payment_method")
        name = call.key or call.path
        payment = call.intent or call.form.values.get("metadata[payment_id]") or name
        return self._faults.next(call.action, method, payment, name)

    def _execute(
        self, call: SandboxCall, perform: Callable[[SandboxAccount], Result], faults: set[Fault]
    ) -> SandboxReply:
        """Commit the effect and its answer in one transaction, so that no crash separates them."""
        with self._store.transaction():
            known = self._store.answer(call.key) if call.key is not None else None
            if known is not None and call.key is not None:
                if known.fingerprint != call.fingerprint:
                    raise other_parameters(call.key)
                return SandboxReply(known.status, known.body, replayed=True)
            try:
                if "500_kept" in faults:
                    raise server_error(begun=True)
                result = perform(self._account)
            except ApiError as error:
                if not error.begun:
                    raise
                result = Result(error.status, error.body)
            if "500_after" in faults:
                result = Result(500, server_error(begun=True).body)
            body = _json(result.body)
            if call.key is not None:
                self._store.remember(call.key, RememberedAnswer(call.fingerprint, result.status, body))
            return SandboxReply(result.status, body)


def _json(body: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(body), indent=2)
