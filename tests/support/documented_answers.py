"""Whether each answer that a gateway gives in a test is in its OpenAPI document: route, status, media type, code."""

import json
from typing import Any

from aiohttp import web

from coordinator.http.contract.served import ServedContract


class DocumentedAnswers:
    """Watches one gateway. `undocumented` has what it answered and does not say."""

    def __init__(self, app: web.Application, contract: ServedContract) -> None:
        self._contract = contract
        self.undocumented: set[tuple[str, str, int, str]] = set()
        self.seen = 0
        app.on_response_prepare.append(self._look)

    async def _look(self, request: web.Request, response: web.StreamResponse) -> None:
        info = request.match_info
        resource = info.route.resource
        if info.http_exception is not None or resource is None:
            return
        self.seen += 1
        method = "GET" if request.method == "HEAD" else request.method
        code = _code_of(response)
        missing = self._missing(method, resource.canonical, response, code)
        if missing:
            self.undocumented.add((method, resource.canonical, response.status, missing))

    def _missing(self, method: str, path: str, response: web.StreamResponse, code: str | None) -> str:
        document = self._contract.document
        operation = document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            return "the route"
        responses = operation["responses"]
        said = responses.get(str(response.status))
        if said is None:
            return "" if "default" in responses else f"the status, with the code {code}"
        if "$ref" in said:
            said = document["components"]["responses"][said["$ref"].rpartition("/")[2]]
        content = said.get("content", {})
        has_body = isinstance(response, web.Response) and bool(response.body)
        if has_body and response.content_type not in content:
            return f"the type {response.content_type}"
        if code is not None and code in self._contract.problems:
            (media,) = content.values()
            known = media["schema"]["allOf"][1]["properties"]["code"].get("enum")
            if known is not None and code not in known:
                return f"the code {code}"
        for name in response.headers:
            if name not in _OF_HTTP and name not in said.get("headers", {}):
                return f"the header {name}"
        return ""


_OF_HTTP = {
    "Server-Timing",  # a hook's, of which no route knows
    *("Content-Type", "Content-Length", "Date", "Server", "Connection", "Transfer-Encoding", "Cache-Control"),
    *("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"),
    *("Cross-Origin-Resource-Policy", "X-Frame-Options", "X-Accel-Buffering"),
}


def _code_of(response: web.StreamResponse) -> str | None:
    if response.content_type != "application/problem+json" or not isinstance(response, web.Response):
        return None
    body: Any = response.body
    code = json.loads(body)["code"]
    assert isinstance(code, str)
    return code
