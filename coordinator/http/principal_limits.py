"""What one principal may ask of a gateway: so many requests a second, so many commands under way.

One that asks for more is refused (429): before its body is read, for the requests; before anything is issued, for the
commands. A large body counts as several requests; while its client owes for others that came before it, it is refused
unread, and of one client's one at a time is read. So a greedy client is told to wait, and the others go on. The limits
are those of one process: behind two gateways a principal has them twice. Requests of which it is not known who asks
have no part in them.
"""

from collections import OrderedDict
from math import ceil, inf
from time import monotonic
from typing import Final

from multidict import CIMultiDict, istr

from coordinator.http.body_turns import BodyTurns
from coordinator.http.problems import RequestRefused
from coordinator.runtime.settings import GatewaySettings
from coordinator.runtime.token_bucket import BYTES_OF_A_REQUEST, TokenBucket
from coordinator.service.principal import Principal

PRINCIPALS_MAX: Final = 10_000
"""How many a gateway remembers. Beyond that it forgets whoever was quiet for longest, and who comes again has a share
that is full."""

_TOLD_AGAIN_S: Final = 1.0
"""How often somebody is told what is left who has used less than a half."""

_POLICY: Final = istr("RateLimit-Policy")
_LEFT: Final = istr("RateLimit")
_REQUESTS: Final = '"requests"'
_IN_FLIGHT: Final = '"in-flight"'


class TooManyRequests(RequestRefused):
    """Raised for a principal that asks for more than its share. Nothing was issued.

    `is_repeated`: it has not waited for as long as an earlier refusal said.
    """

    def __init__(self, code: str, message: str, retry_after_s: int, *, is_repeated: bool = False) -> None:
        super().__init__(429, code, message)
        self.retry_after_s = retry_after_s
        self.is_repeated = is_repeated


class PrincipalShare:
    """What one principal has left."""

    __slots__ = ("_bucket", "_limits", "_refused_until_s", "_told_until_s", "commands", "turns", "waiting")

    def __init__(self, limits: "PrincipalLimits", bucket: TokenBucket | None) -> None:
        self._limits = limits
        # None: requests are not counted.
        self._bucket = bucket
        # So many requests wait, and commands with them. Whoever holds a place counts both: that is cheaper than a call.
        self.commands = self.waiting = 0
        self._refused_until_s = self._told_until_s = 0.0
        self.turns = BodyTurns(limits.waiting_max)

    @property
    def is_busy(self) -> bool:
        """Whether requests of this principal wait, or are read."""
        return self.waiting > 0 or self.turns.number > 0

    @property
    def has_place(self) -> bool:
        """Whether one more request of this principal may wait."""
        return self.waiting < self._limits.waiting_max

    @property
    def has_place_to_read(self) -> bool:
        """Whether a read of this principal may wait until it is recent enough: one leaves places to the next."""
        return self.waiting < self._limits.reads_max

    def take_request(self) -> None:
        """One more request. Raises TooManyRequests."""
        if self._bucket is None:
            return
        now = monotonic()
        if not self._bucket.take(now):
            raise self._too_often(now)

    def check_debt(self) -> None:
        """Raises TooManyRequests while what this client has sent is not paid for: what it sends now stays unread."""
        if self._bucket is not None and self._bucket.owes(now := monotonic()):
            raise self._too_often(now)

    def check_turns(self) -> None:
        """Raises TooManyRequests where so many of its bodies wait to be read that one more may not."""
        if self.turns.is_full:
            text = f"{self.turns.number} bodies of this client wait here already (a share of GATEWAY_CONNECTIONS_MAX)"
            raise TooManyRequests("too_many_requests", text, max(self._limits.retry_after_s, self._more_in_s))

    def _too_often(self, now: float) -> TooManyRequests:
        retry_after_s, is_repeated = self._more_in_s, now < self._refused_until_s
        if not is_repeated:
            self._refused_until_s = now + retry_after_s
        return TooManyRequests(
            "too_many_requests",
            f"this gateway takes {self._limits.rate_max} requests a second of one client, each command of"
            " `POST /commands` and each 4 KiB of a body being one (GATEWAY_PRINCIPAL_RATE_MAX):"
            f" wait {retry_after_s} s",
            retry_after_s,
            is_repeated=is_repeated,
        )

    def check_room(self, commands: int) -> None:
        """Raises TooManyRequests where this client may not wait for so many more; for those of one request it may."""
        if not self.waiting:
            return
        most = self._limits.in_flight_max
        has_place = self.has_place
        if has_place and (not most or self.commands + commands <= most):
            return
        if has_place:
            text = f"{self.commands} commands of this client are under way here already; {commands} more would be"
            text = f"{text} above {most} (GATEWAY_PRINCIPAL_IN_FLIGHT_MAX)"
        else:
            text = f"{self.waiting} requests of this client wait here already (a share of GATEWAY_CONNECTIONS_MAX)"
        raise TooManyRequests("too_many_requests", text, max(self._limits.retry_after_s, self._more_in_s))

    def tell(self, headers: CIMultiDict[str], *, is_refused: bool) -> None:
        """Say in an answer what is left: draft-ietf-httpapi-ratelimit-headers-11.

        It lets a server say so where a quota is close to exhaustion only: the two fields are a third of what access
        costs. Here a refusal has them, an answer to whoever has used half of it, and of the others one a second.
        """
        limits, bucket = self._limits, self._bucket
        left = None if bucket is None else bucket.left
        has_half = self.commands <= limits.in_flight_half and (left is None or left >= limits.burst_half)
        if has_half and not is_refused:
            now = monotonic()
            if now < self._told_until_s:
                return
            self._told_until_s = now + _TOLD_AGAIN_S
        headers.add(_POLICY, limits.policy)
        headers.add(_LEFT, self._words(left))

    def _words(self, left: int | None) -> str:
        words = []
        if left is not None:
            # At least one comes each second, so who has some left gets the next within that.
            words.append(f"{_REQUESTS};r={left};t={1 if left else self._more_in_s}")
        if in_flight_max := self._limits.in_flight_max:
            words.append(f"{_IN_FLIGHT};r={max(0, in_flight_max - self.commands)}")
        return ", ".join(words)

    def pay_commands(self, commands: int) -> None:
        """So many commands of a request were read. The first of them was paid for when the request came."""
        if self._bucket is not None:
            self._bucket.pay(commands - 1)

    def pay_bytes(self, size_bytes: int) -> None:
        """The body of a request, which was paid for as a small one, has so many bytes."""
        if self._bucket is not None:
            self._bucket.pay(size_bytes // BYTES_OF_A_REQUEST)

    @property
    def _more_in_s(self) -> int:
        """The least that may be said: the fields count whole seconds."""
        return 1 if self._bucket is None else max(1, ceil(self._bucket.more_in_s))


class PrincipalLimits:
    """The shares of all principals of one gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.rate_max = settings.principal_rate_max
        self.in_flight_max = settings.principal_in_flight_max
        self.retry_after_s = settings.retry_after_s
        # As in waiting_requests.py: what one takes leaves room for the writes of others.
        self.waiting_max = -(-settings.connections_max // 2) if self.in_flight_max else settings.connections_max
        # Of the half that may wait to read, one has no more than a half.
        self.reads_max = -(-settings.connections_max // 4) if self.in_flight_max else settings.connections_max
        self.policy = _policy_of(settings)
        # Without a limit of commands under way, no number of them is more than a half.
        self.in_flight_half = settings.principal_in_flight_max / 2 or inf
        self.burst_half = settings.principal_burst_max / 2
        self._burst_max = settings.principal_burst_max
        # Each request that waits has a connection, so there is always somebody who may be forgotten.
        self._principals_max = max(PRINCIPALS_MAX, settings.connections_max + 1)
        self._shares: OrderedDict[tuple[str | None, str], PrincipalShare] = OrderedDict()
        self.nobody = PrincipalShare(self, None) if self.policy else None
        """That of the reads of all of whom it is not known who they are; None: there are no limits."""

    def share_of(self, principal: Principal) -> PrincipalShare | None:
        """The share of this principal; None: there are no limits."""
        if not self.policy:
            return None
        key, shares = (principal.tenant, principal.subject), self._shares
        share = shares.get(key)
        if share is None:
            self._make_room()
            bucket = TokenBucket(self.rate_max, self._burst_max, monotonic()) if self.rate_max else None
            share = shares[key] = PrincipalShare(self, bucket)
        else:
            shares.move_to_end(key)
        return share

    def _make_room(self) -> None:
        while len(self._shares) >= self._principals_max:
            oldest, share = self._shares.popitem(last=False)
            if share.is_busy:
                self._shares[oldest] = share


def _policy_of(settings: GatewaySettings) -> str:
    """The limits, which are the same in all answers; empty: there are none."""
    parts = []
    if settings.principal_rate_max:
        window_s = ceil(settings.principal_burst_max / settings.principal_rate_max)
        parts.append(f"{_REQUESTS};q={settings.principal_burst_max};w={window_s}")
    if settings.principal_in_flight_max:
        parts.append(f'{_IN_FLIGHT};q={settings.principal_in_flight_max};qu="concurrent-requests"')
    return ", ".join(parts)
