"""Reading the body of a request."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from coordinator.http.connections import giving_way
from coordinator.http.keys import CONTEXT
from coordinator.http.problems import RequestRefused, body_too_large, body_unreadable
from coordinator.http.request_log import in_flight_of
from coordinator.http.waiting_requests import WAITING_REQUESTS
from coordinator.runtime.token_bucket import BYTES_OF_A_REQUEST
from coordinator.service.errors import Overloaded

JSON_TYPES: Final = ("application/json",)
PATCH_TYPES: Final = (*JSON_TYPES, "application/merge-patch+json")

_CHARSET = re.compile(r";[ \t]*+charset[ \t]*+=[ \t]*+\"?+([^\";\s]*+)", re.IGNORECASE)


def _check_uncompressed(request: web.Request) -> None:
    """Raises RequestRefused (415)."""
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        if request.headers.get(name, plain).strip().lower() != plain:
            raise RequestRefused(415, "unsupported_content_encoding", "send the body uncompressed", field=name)


async def read_body(request: web.Request, types: tuple[str, ...], content: str = "a JSON object") -> bytes:
    """The body, which must have one of these media types and not be empty; `content` names the needed body in errors.

    A large one is returned when its turn comes: read what it says before anything is awaited. Raises RequestRefused:
    400, 401, 408, 413, 415, 429; and Unavailable.
    """
    body = await _received(request, types, content)
    if len(body) >= BYTES_OF_A_REQUEST:
        async with _turn(request, len(body)):
            return body
    return body


@asynccontextmanager
async def body_in_turn(request: web.Request, types: tuple[str, ...], content: str) -> AsyncIterator[bytes]:
    """As `read_body`, of any size: it is this body's turn until the block ends. Raises as `read_body` does."""
    body = await _received(request, types, content)
    async with _turn(request, len(body)):
        yield body


@asynccontextmanager
async def _turn(request: web.Request, size_bytes: int) -> AsyncIterator[None]:
    """Held for as long as a body of this size is read. Raises RequestRefused (401, 429), and Unavailable."""
    context = request[CONTEXT]
    share = context.share
    if share is None:
        turns = request.app[WAITING_REQUESTS].turns_of(context.principal)
        if turns.is_full:
            raise Overloaded(f"{turns.number} bodies wait here already (a share of GATEWAY_CONNECTIONS_MAX)")
    else:
        turns = share.turns
        share.check_debt()
        share.check_turns()
    async with turns.one() as has_waited:
        if has_waited:
            await _ask_again(request)
        if share is not None:
            share.check_debt()
            share.pay_bytes(size_bytes)
        yield


async def _received(request: web.Request, types: tuple[str, ...], content: str) -> bytes:
    if not request.body_exists:
        raise _missing(content)
    _check_given_once(request, "Content-Type", "Content-Encoding", "Transfer-Encoding")
    _check_content_type(request, types)
    _check_uncompressed(request)
    settings = request[CONTEXT].settings
    bytes_max, timeout_s = settings.body_bytes_max, settings.body_timeout_s
    if (request.content_length or 0) > bytes_max:
        raise body_too_large(bytes_max)
    try:
        if request.content.is_eof():
            # The body arrived with the headers, as small ones do: a timer would cost more than the reading.
            body = await request.read()
        else:
            if request.transport is None:
                # Lost before it was served: nobody has told the body that its rest will not come.
                raise ConnectionResetError
            async with asyncio.timeout(timeout_s):
                with giving_way(request), in_flight_of(request[CONTEXT].service).awaiting_body():
                    body = await request.read()
            await _ask_again(request)
    except TimeoutError:
        raise RequestRefused(408, "body_timeout", f"the body took longer than {timeout_s:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise body_too_large(bytes_max) from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise body_unreadable(error) from None
    if not body:
        raise _missing(content)
    return body


async def _ask_again(request: web.Request) -> None:
    """Whoever asks may have lost his credential while the body came. Raises RequestRefused (401), and Unavailable."""
    context = request[CONTEXT]
    if context.principal is not None and context.authentication is not None:
        # Whoever else has sent the rest has no share.
        share, context.share = context.share, None
        with giving_way(request):
            await context.authentication.check_again(request, context.principal)
        context.share = share


def media_type(request: web.Request) -> str:
    """`Content-Type` without its parameters, in small letters; empty if there is none."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _missing(content: str) -> RequestRefused:
    return RequestRefused(400, "missing_body", f"a body is needed: {content}", field="body")


def _check_given_once(request: web.Request, *names: str) -> None:
    """A proxy before us may have gone by the other one."""
    for name in names:
        if len(request.headers.getall(name, ())) > 1:
            raise RequestRefused(400, "invalid_header", f"{name} must be given once", field=name)


def _check_content_type(request: web.Request, types: tuple[str, ...]) -> None:
    value = request.headers.get("Content-Type", "")
    charset = _CHARSET.search(value)
    if media_type(request) not in types or (charset is not None and charset.group(1).lower() not in ("utf-8", "utf8")):
        raise RequestRefused(
            415,
            "unsupported_content_type",
            f"Content-Type must be {' or '.join(types)} in UTF-8, not {value[:80]!a}",
            field="Content-Type",
        )
