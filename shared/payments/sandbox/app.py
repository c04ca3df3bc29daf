"""HTTP: Stripe's endpoints under /v1, and the sandbox's own under /sandbox.

GET  /sandbox/charges    the money held, taken, let go of and given back. `?at_least=2&status=succeeded` waits, for up
                         to 10 s, until there are two such payments
POST /sandbox/faults     {"rates": {"429": 0.1, "lost_answer": 0.05}, "seed": 7, "delay_s": 1, "search_lag_s": 60}; see
                         faults.py
POST /sandbox/webhooks   {"copies": 2, "shuffle": true, "seed": 7}
POST /sandbox/forget     forget the idempotency keys, as Stripe does after a day
POST /sandbox/expire     {"payment_intent": "pi_…"}: let go of a hold, as Stripe does after seven days
POST /sandbox/fail       {"refund": "re_…"}: let a refund fail, as a bank does days later

These ask for no key. A browser of a developer's machine reaches them, too: what a page of some site asks is refused.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from shared.payments.sandbox.account import Result, SandboxAccount, charged
from shared.payments.sandbox.calls import Calls, ConnectionLost, SandboxCall
from shared.payments.sandbox.errors import ApiError, invalid_request, unauthorized
from shared.payments.sandbox.faults import Action, Faults
from shared.payments.sandbox.objects import CallForm
from shared.payments.sandbox.store import SandboxStore
from shared.payments.sandbox.webhooks import Webhooks

_WAIT_S: Final = 10.0
_OWN_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CREATE: Final = frozenset(
    (
        "amount",
        "currency",
        "payment_method",
        "capture_method",
        "confirm",
        "error_on_requires_action",
        "automatic_payment_methods",
        "metadata",
        "description",
        "expand",
    )
)

_Perform = Callable[[SandboxAccount], Result]


class Sandbox:
    """The parts, wired together."""

    def __init__(self, data: Path | None, *, api_key: str, webhook_url: str | None, webhook_secret: str) -> None:
        self.store = SandboxStore(data)
        self.webhooks = Webhooks(self.store, webhook_url, webhook_secret)
        self.account = SandboxAccount(self.store, self.webhooks.emit)
        self.faults = Faults()
        self.calls = Calls(self.store, self.account, self.faults)
        self._api_key = api_key

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/readyz", self._ready),
                web.post("/v1/payment_intents", self._authorize),
                web.get("/v1/payment_intents", self._list_intents),
                web.get("/v1/payment_intents/search", self._search),
                web.get("/v1/payment_intents/{id}", self._retrieve),
                web.post("/v1/payment_intents/{id}/capture", self._capture),
                web.post("/v1/payment_intents/{id}/cancel", self._cancel),
                web.post("/v1/refunds", self._refund),
                web.get("/v1/refunds", self._list_refunds),
                web.get("/v1/refunds/{id}", self._retrieve_refund),
                web.get("/sandbox/charges", self._charges),
                web.post("/sandbox/faults", self._set_faults),
                web.post("/sandbox/webhooks", self._set_webhooks),
                web.post("/sandbox/forget", self._forget),
                web.post("/sandbox/expire", self._expire),
                web.post("/sandbox/fail", self._fail),
            ]
        )
        app.cleanup_ctx.append(self._delivering)
        return app

    async def _delivering(self, _: web.Application) -> AsyncIterator[None]:
        delivering = asyncio.create_task(self.webhooks.run())
        yield
        delivering.cancel()
        await asyncio.wait([delivering])
        self.store.close()

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, _CREATE)
        return await self._answer(request, "authorize", form, lambda account: account.authorize(form))

    async def _capture(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("amount_to_capture", "metadata", "expand")))
        name = request.match_info["id"]
        return await self._answer(request, "capture", form, lambda account: account.capture(name, form), name)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("cancellation_reason", "expand")))
        name = request.match_info["id"]
        reason = form.values.get("cancellation_reason")
        return await self._answer(request, "void", form, lambda account: account.void(name, reason), name)

    async def _refund(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("payment_intent", "amount", "reason", "metadata", "expand")))
        name = form.values.get("payment_intent")
        return await self._answer(request, "refund", form, lambda account: account.refund(form), name)

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("expand",)))
        name = request.match_info["id"]
        return await self._answer(request, "read", form, lambda account: account.retrieve(name, form), name)

    async def _search(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("query", "limit", "page", "expand")))
        lag_s = self.faults.plan.search_lag_s
        return await self._answer(request, "read", form, lambda account: account.search(form, lag_s))

    async def _list_intents(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("created", "limit", "starting_after", "expand")))
        return await self._answer(request, "read", form, lambda account: account.list_intents(form))

    async def _list_refunds(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("payment_intent", "limit", "starting_after", "expand")))
        return await self._answer(request, "read", form, lambda account: account.list_refunds(form))

    async def _retrieve_refund(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request, frozenset(("expand",)))
        name = request.match_info["id"]
        return await self._answer(request, "read", form, lambda account: account.retrieve_refund(name))

    async def _form(self, request: web.Request, allowed: frozenset[str]) -> CallForm:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or key != self._api_key:
            raise unauthorized(key)
        given = request.query if request.method == "GET" else await request.post()
        return CallForm({name: str(value) for name, value in given.items()}, allowed)

    async def _answer(
        self, request: web.Request, action: Action, form: CallForm, perform: _Perform, intent: str | None = None
    ) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        call = SandboxCall(method=request.method, path=request.path, action=action, form=form, key=key, intent=intent)
        try:
            reply = await self.calls.make(call, perform)
        except ConnectionLost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        headers = {"Request-Id": _request_id()}
        if key is not None:
            headers["Idempotency-Key"] = key
        if reply.replayed:
            headers["Idempotent-Replayed"] = "true"
        return web.Response(
            status=reply.status, body=reply.body, headers=headers, content_type="application/json", charset="utf-8"
        )

    async def _charges(self, request: web.Request) -> web.StreamResponse:
        at_least = int(request.query.get("at_least", "0"))
        status = request.query.get("status")

        def listed() -> list[dict[str, Any]]:
            return [
                charged(intent, self.store.refunds(intent.id))
                for intent in self.store.intents()
                if status in {None, intent.status}
            ]

        try:
            async with asyncio.timeout(_WAIT_S), self.calls.changed:
                await self.calls.changed.wait_for(lambda: len(listed()) >= at_least)
        except TimeoutError:
            pass
        return web.json_response({"charges": listed()})

    async def _set_faults(self, request: web.Request) -> web.StreamResponse:
        plan = self.faults.set_plan(await request.read())
        return web.json_response(msgspec.to_builtins(plan))

    async def _set_webhooks(self, request: web.Request) -> web.StreamResponse:
        plan = self.webhooks.set_plan(await request.read())
        return web.json_response({"copies": plan.copies, "shuffle": plan.shuffle, "seed": plan.seed})

    async def _forget(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"forgotten": self.store.forget_answers()})

    async def _expire(self, request: web.Request) -> web.StreamResponse:
        name = await _named(request, "payment_intent")
        with self.store.transaction():
            return web.json_response(self.account.void(name, "automatic").body)

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        name = await _named(request, "refund")
        with self.store.transaction():
            self.account.fail_refund(name)
        return web.json_response({"refund": name, "status": "failed"})


async def _named(request: web.Request, field: str) -> str:
    try:
        return str(json.loads(await request.read())[field])
    except (ValueError, KeyError, TypeError):
        raise invalid_request("parameter_missing", f'the body must be {{"{field}": "…"}}', field) from None


@web.middleware
async def _errors(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    try:
        _check_no_page(request)
        response: web.StreamResponse = await handler(request)
    except ApiError as error:
        return web.json_response(
            error.body, status=error.status, headers={**error.headers, "Request-Id": _request_id()}
        )
    except web.HTTPNotFound:
        message = f"Unrecognized request URL ({request.method}: {request.path}); the sandbox has a part of Stripe's API"
        return web.json_response({"error": {"type": "invalid_request_error", "message": message}}, status=404)
    return response


def _check_no_page(request: web.Request) -> None:
    """Raises ApiError (403) for what a page of a site may have sent.

    A browser says of which site a page is that changes something (`Origin`), and by which name it asks (`Host`): the
    name of a site has a dot, also where it leads here, and that of a container has none.
    """
    origin, host = request.headers.get("Origin"), _host_of(f"//{request.headers.get('Host', '')}")
    if (origin is not None and _host_of(origin) not in _OWN_MACHINE) or ("." in host and not _is_address(host)):
        message = "The sandbox is asked by programs, and by no page of a site."
        raise ApiError(403, {"type": "invalid_request_error", "message": message})


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return "."


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _request_id() -> str:
    return f"req_{secrets.token_hex(7)}"
