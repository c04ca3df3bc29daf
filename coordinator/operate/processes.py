"""What coordinators and effect workers tell at their health endpoints."""

import http.client
import itertools
import math
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from coordinator.lane.delivery import SuspensionCause
from coordinator.runtime.addresses import without_credentials
from coordinator.runtime.asking import open_within, read_within
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.text import storable

TIMEOUT_S: Final = 1.5
BYTES_MAX: Final = 1 << 20
PROCESSES_MAX: Final = 100
LANES_MAX: Final = 1000
"""Of one process; the rest are not looked at."""
TEXT_CHARACTERS_MAX: Final = 500
"""Of a text that a process says. It is shown to everybody who watches, again and again."""
TELL_HELD: Final = ("active", "unready")
"""States of a lane's process by which it is known how many messages were delivered: a standby does not know."""
_VALUE: Final = rb" (\S+)$"
_EPOCHS = re.compile(rb'^coordinator_lane_epoch\{lane="([^"]*)"\}' + _VALUE, re.MULTILINE)
_HELD = re.compile(rb'^coordinator_lane_unacknowledged\{lane="([^"]*)"\}' + _VALUE, re.MULTILINE)
_CAUSES = re.compile(rb'^coordinator_lane_suspended\{cause="([^"]*)",lane="([^"]*)"\} 1\.0$', re.MULTILINE)
_UNDER_WAY = re.compile(rb'^coordinator_effects_under_way\{service="[^"]*"\}' + _VALUE, re.MULTILINE)
_OLDEST = re.compile(rb'^coordinator_effects_oldest_seconds\{service="[^"]*"\}' + _VALUE, re.MULTILINE)
_IN_TURN = re.compile(rb'^coordinator_effects_in_turn\{service="[^"]*"\}' + _VALUE, re.MULTILINE)
_HELD_BACK = re.compile(rb'^coordinator_effects_held_back\{service="[^"]*"\}' + _VALUE, re.MULTILINE)
_AWAY = re.compile(rb'^coordinator_effects_breaker_open\{service="[^"]*"\}' + _VALUE, re.MULTILINE)


class SeenProcess(Struct, frozen=True, kw_only=True):
    """A coordinator's lane, or an effect worker, as its health endpoint tells.

    `lane` is whose it is. `state`: active, standby, unready, or away; of a worker working, provider_away, unready, or
    away. `held` messages were delivered to it: those of a coordinator wait there, and a worker carries its own out.
    `waiting` are a worker's others: they wait for their turn, or until their next attempt is due. `reason` says why it
    does not do its work, or what somebody else does not do for it; `cause` is the kind of that of a suspended lane.
    """

    url: str
    lane: str | None
    state: str
    is_worker: bool = False
    epoch: int = 0
    held: int = 0
    waiting: int = 0
    oldest_s: float = 0.0
    reason: str | None = None
    cause: SuspensionCause | None = None


class _LaneReadyz(Struct):
    status: str = "unready"
    reason: str | None = None


class _Readyz(Struct):
    """What a process answers: a coordinator names its lane, or each of several, an effect worker its service."""

    status: str
    lane: str | None = None
    lanes: dict[str, _LaneReadyz] | None = None
    effects: str | None = None
    reason: str | None = None


def seen(url: str, readyz: bytes, metrics: bytes) -> list[SeenProcess]:
    """What two answers of a process tell, of each of its lanes.

    Raises MsgspecError for what is no answer of one, whatever it is.
    """
    said = _said(readyz)
    if said.lanes is None:
        return [_seen(url, said, metrics)]
    epochs, held, causes = _by_lane(_EPOCHS, metrics), _by_lane(_HELD, metrics), _causes(metrics)
    found = []
    for name, lane in itertools.islice(said.lanes.items(), LANES_MAX):
        reason = None if lane.reason is None else storable(lane.reason, TEXT_CHARACTERS_MAX)
        shown, key = storable(name, TEXT_CHARACTERS_MAX), name.encode(errors="replace")
        numbers = epochs.get(key, 0), held.get(key, 0)
        found.append(_seen_lane(url, shown, lane.status, reason, *numbers, causes.get(key)))
    return found


def _seen(url: str, said: _Readyz, metrics: bytes) -> SeenProcess:
    if said.effects is not None:
        is_away = bool(_number(_AWAY, metrics))
        state = "unready" if said.status == "unready" else "provider_away" if is_away else "working"
        return SeenProcess(
            url=url,
            lane=said.effects,
            state=state,
            is_worker=True,
            held=int(_number(_UNDER_WAY, metrics)),
            waiting=int(_number(_IN_TURN, metrics) + _number(_HELD_BACK, metrics)),
            oldest_s=round(_number(_OLDEST, metrics), 1),
            reason=said.reason,
        )
    epoch, held = (next(iter(_by_lane(metric, metrics).values()), 0) for metric in (_EPOCHS, _HELD))
    cause = next(iter(_causes(metrics).values()), None)
    return _seen_lane(url, said.lane, said.status, said.reason, epoch, held, cause)


def _seen_lane(
    url: str, lane: str | None, status: str, reason: str | None, epoch: int, held: int, cause: SuspensionCause | None
) -> SeenProcess:
    state = "unready" if reason is not None and status != "ready" else "active" if epoch else "standby"
    return SeenProcess(url=url, lane=lane, state=state, epoch=epoch, held=held, reason=reason, cause=cause)


def _causes(metrics: bytes) -> dict[bytes, SuspensionCause]:
    """What each lane waits for; one of another release may wait for what nobody here knows."""
    known = {name.encode(): name for name in get_args(SuspensionCause)}
    return {lane: known[cause] for cause, lane in _CAUSES.findall(metrics) if cause in known}


def _by_lane(metric: re.Pattern[bytes], metrics: bytes) -> dict[bytes, int]:
    """Raises MsgspecError for what is no count."""
    return {lane: int(_count(text)) for lane, text in metric.findall(metrics)}


def _said(readyz: bytes) -> _Readyz:
    """Its texts are cut. Raises MsgspecError."""
    try:
        said = msgspec.json.decode(readyz, type=_Readyz)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"it says what cannot be read ({type(error).__name__})") from None
    cut = {name: storable(text, TEXT_CHARACTERS_MAX) for name, text in _texts_of(said)}
    return msgspec.structs.replace(said, **cut)


def _texts_of(said: _Readyz) -> list[tuple[str, str]]:
    return [(name, text) for name in said.__struct_fields__ if isinstance(text := getattr(said, name), str)]


def away(url: str, before: Sequence[SeenProcess], error: BaseException) -> list[SeenProcess]:
    """A process that does not answer. Whose it is is known from before."""
    text = "it does not answer" if isinstance(error, TimeoutError) else f"it does not answer: {error}"
    whose = [(each.lane, each.is_worker) for each in before] or [(None, False)]
    return [
        SeenProcess(url=url, lane=lane, state="away", is_worker=is_worker, reason=text[:200])
        for lane, is_worker in whose
    ]


def ask_all(urls: Sequence[str]) -> list[SeenProcess]:
    """Ask all of them at once, and wait. Never raises for one that does not answer."""
    if not urls:
        return []
    with ThreadPoolExecutor(min(len(urls), 20)) as threads:
        return list(itertools.chain.from_iterable(threads.map(_ask, urls)))


def checked_addresses(texts: Sequence[str]) -> list[str]:
    """Addresses of processes, each once. Raises ValueError for what is none, or too many."""
    found = list(dict.fromkeys(each.rstrip("/") for each in texts))
    if len(found) > PROCESSES_MAX:
        raise ValueError(f"{len(found)} addresses are named, and {PROCESSES_MAX} at most are asked")
    for each in found:
        try:
            parts = urlsplit(each)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
        except ValueError:
            is_good = False
        if not is_good or parts.path or parts.query or parts.fragment or parts.username is not None:
            # A comma in a password has made parts of it of one address.
            shown = "one of them" if any("@" in text for text in texts) else repr(without_credentials(each)[:100])
            raise ValueError(f"{shown} is no address of a coordinator, such as http://10.0.0.5:9101")
    return found


def _ask(url: str) -> list[SeenProcess]:
    try:
        return seen(url, _get(f"{url}/readyz"), _get(f"{url}/metrics"))
    except (OSError, ValueError, http.client.HTTPException, msgspec.MsgspecError) as error:
        return away(url, (), error)


def _get(url: str) -> bytes:
    try:
        # No proxy is asked: the addresses are of this system's own machines.
        with open_within(url, TIMEOUT_S, has_proxies=False) as answer:
            return read_within(answer, BYTES_MAX)
    except urllib.error.HTTPError as error:
        # An unready one says why.
        with error:
            return read_within(cast(http.client.HTTPResponse, error.fp), BYTES_MAX)


def _number(metric: re.Pattern[bytes], metrics: bytes) -> float:
    """A count, or seconds: 0 where the process does not tell. Raises MsgspecError for what is neither."""
    found = metric.search(metrics)
    return 0.0 if found is None else _count(found.group(1))


def _count(text: bytes) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= INTEGER_MAX:
        raise msgspec.ValidationError(f"it tells {text[:40]!r}, which is no count")
    return number
