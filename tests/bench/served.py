"""What answers HTTP in a run: this project's gateways, or an application on DBOS or Restate."""

import time
import urllib.request
from collections.abc import Callable
from typing import Final

from msgspec import Struct

IDLE_TIMEOUT_S: Final = 15.0
_IDLE_POLL_S: Final = 0.01


class Served(Struct, frozen=True):
    """`pids` are those of groups whose CPU time is counted; `under_way` counts the writes that are not finished."""

    addresses: list[str]
    pids: dict[str, list[int]]
    under_way: Callable[[], int]

    def await_idle(self) -> None:
        """Return once nothing is under way: what the load generator left is then done, and can be verified.

        Raises TimeoutError after IDLE_TIMEOUT_S.
        """
        deadline = time.monotonic() + IDLE_TIMEOUT_S
        while (writes := self.under_way()) > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{writes} writes are still under way {IDLE_TIMEOUT_S:g} s after the last request")
            time.sleep(_IDLE_POLL_S)


def fetched(url: str, body: bytes | None = None) -> str:
    """The body of the answer to a GET request, or to a POST of this JSON. Raises OSError."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    request = urllib.request.Request(url, data=body, headers=headers if body is not None else {})
    with urllib.request.urlopen(request, timeout=IDLE_TIMEOUT_S) as response:
        return str(response.read().decode())
