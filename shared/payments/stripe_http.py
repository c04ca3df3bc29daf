"""Bounds the reading of answers by Stripe's package: no more bytes than Stripe ever sends."""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import stripe

ANSWER_BYTES_MAX: Final = 8 << 20
"""A page of a hundred payments, each with all the metadata that Stripe allows, has fewer bytes."""


class AnswerTooLarge(aiohttp.ClientError):
    """Raised while an answer is read: the rest of it is left."""


class BoundedHttp(stripe.AIOHTTPClient):
    """Raises AnswerTooLarge."""

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        args, options = self._get_request_args_kwargs(method, url, headers, post_data)
        try:
            response = await self._session.request(*args, **options)
        except Exception as error:  # noqa: BLE001  # it becomes the package's own
            self._handle_request_error(error)
        async with response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    response.close()
                    raise AnswerTooLarge(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
            return bytes(body), response.status, response.headers
