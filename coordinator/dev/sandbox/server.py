"""The sandbox over HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from coordinator.dev.sandbox.account import Account, Answer, error
from coordinator.dev.sandbox.faults import Draw, Faults
from coordinator.dev.sandbox.webhooks import Deliveries, Manner

_KEY_IN_QUERY = re.compile(r"metadata\['idempotency_key'\]:'([^']*)'")


class Sandbox:
    """Implements the endpoints of Stripe's API that we use, and those that control the sandbox."""

    def __init__(self, account: Account, deliveries: Deliveries | None) -> None:
        self._account = account
        self._deliveries = deliveries
        self._draw = Draw(Faults())
        self._under_way: set[str] = set()

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[_authorized])
        app.router.add_get("/readyz", _healthz)
        app.router.add_get("/sandbox/charges", self._charges)
        app.router.add_post("/sandbox/faults", self._set_faults)
        app.router.add_post("/sandbox/webhooks", self._set_manner)
        app.router.add_get("/v1/payment_intents/search", self._search)
        app.router.add_get("/v1/payment_intents/{id}", self._get)
        app.router.add_get("/v1/refunds", self._list_refunds)
        app.router.add_get("/v1/refunds/{id}", self._get)
        app.router.add_post("/v1/{path:.*}", self._post)
        app.cleanup_ctx.append(self._deliver)
        return app

    async def _deliver(self, _: web.Application) -> AsyncIterator[None]:
        task = None if self._deliveries is None else asyncio.create_task(self._deliveries.run())
        yield
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        key = request.headers.get("Idempotency-Key")
        fault = self._draw.next()
        if fault == "429":
            return _response(error(429, "rate_limit", "Too many requests", "rate_limit_error"), {"Retry-After": "1"})
        if key is not None and key in self._under_way:
            text = "There is currently another in-progress request using this idempotency key"
            return _response(error(409, "idempotency_key_in_use", text, "idempotency_error"))
        broken = error(500, "api_error", "An unknown error occurred", "api_error")
        if key is not None:
            self._under_way.add(key)
        try:
            if fault == "500_before":
                return _response(broken)
            answer = self._account.carry_out(request.path, form, key)
            if self._deliveries is not None:
                self._deliveries.nudge()
            if fault == "delay":
                await asyncio.sleep(self._draw.faults.delay_s)
            if fault == "lost_answer" and request.transport is not None:
                request.transport.abort()
            if fault == "500_after":
                self._account.spoil(key, broken)
                return _response(broken)
            return _response(answer)
        finally:
            self._under_way.discard(key or "")

    async def _get(self, request: web.Request) -> web.Response:
        return _response(self._account.get(request.match_info["id"]))

    async def _list_refunds(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "10")
        return _response(
            self._account.refunds_of(request.query.get("payment_intent", ""), int(limit) if limit.isdecimal() else 10)
        )

    async def _search(self, request: web.Request) -> web.Response:
        found = _KEY_IN_QUERY.search(request.query.get("query", ""))
        return _response(self._account.found_by_key(found.group(1) if found else ""))

    async def _charges(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.all_of("payment_intent"))

    async def _set_faults(self, request: web.Request) -> web.Response:
        faults = await _decoded(request, Faults)
        self._draw = Draw(faults)
        return web.json_response(msgspec.to_builtins(faults))

    async def _set_manner(self, request: web.Request) -> web.Response:
        manner = await _decoded(request, Manner)
        if self._deliveries is None:
            raise web.HTTPConflict(text="the sandbox was started without --webhook-url")
        self._deliveries.manner = manner
        return web.json_response(msgspec.to_builtins(manner))


@web.middleware
async def _authorized(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Any key that begins as Stripe's test keys do."""
    if request.path.startswith("/v1/") and not request.headers.get("Authorization", "").startswith("Bearer sk_test_"):
        return _response(error(401, "invalid_api_key", "Invalid API Key provided: test keys begin with sk_test_"))
    return await handler(request)


_RETRY: Final = {"Stripe-Should-Retry": "false"}
_S = TypeVar("_S", bound=Struct)


async def _decoded(request: web.Request, model: type[_S]) -> _S:
    try:
        return msgspec.json.decode(await request.read(), type=model)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise web.HTTPBadRequest(text=str(problem)) from None


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _response(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    replayed = {"Idempotent-Replayed": "true"} if answer.is_replayed else {}
    return web.json_response(answer.body, status=answer.status, headers=_RETRY | replayed | (headers or {}))
