"""An issuer's public keys (a JSON Web Key Set, RFC 7517), from a file or an address, kept fresh."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from math import inf
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from jwt import PyJWK
from msgspec import Raw, Struct

from coordinator.runtime.addresses import without_credentials
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.plain_files import read_plain_file
from coordinator.runtime.repeated_line import RepeatedLine
from coordinator.service.descriptions import described
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.repeated_names import repeated_name
from coordinator.service.text import printable

BYTES_MAX: Final = 256 << 10
KEYS_MAX: Final = 100
RSA_BITS_MIN: Final = 2048
FETCH_TIMEOUT_S: Final = 3.0
UNKNOWN_EVERY_S: Final = 10.0
"""How often an unknown key id has the set fetched: made-up ids cost the issuer no more than this."""
RETRY_S: Final = 5.0

Keys = Mapping[str | None, PyJWK]
"""By id. The one without an id has None."""

log = structlog.get_logger("access")


class KeySetRefused(Exception):
    """Raised for a set that cannot be used; the message says why."""


class NoKeys(Unavailable):
    """Raised while no key is known."""

    code = "authentication_unavailable"


class KeySet:
    """The keys at one place. `source` is the path of a file, or an address."""

    def __init__(self, source: str, algorithms: frozenset[str], *, refresh_s: float, age_s_max: float) -> None:
        self._source = source
        self._shown = without_credentials(source)
        self._algorithms = algorithms
        self._refresh_s = refresh_s
        self._age_s_max = age_s_max
        self._keys: Keys = {}
        self.good_until_s = -inf
        self._tried_at: float | None = None
        self._why: str | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._line = RepeatedLine()
        self._passed_over = RepeatedLine()
        self.generation = 0
        """It counts the changes of the set."""

    @property
    def _is_file(self) -> bool:
        return "://" not in self._source

    async def start(self) -> None:
        """Raises ConfigurationError for a file that cannot be used; an address may be away for now."""
        await self._fetch()
        if self._is_file and not self._keys:
            raise ConfigurationError(f"ACCESS_TOKEN_KEYS: {self._why}")
        self._refreshing = asyncio.create_task(self._refresh(), name="keys of tokens")

    async def close(self) -> None:
        await end_tasks(self._refreshing, self._fetching)

    def problem(self) -> str | None:
        """Why the keys are not what they should be, in words for anybody; None: they are."""
        return None if self._why is None else "the keys of tokens cannot be fetched"

    async def find(self, key_id: str | None) -> PyJWK | None:
        """The key with this id; None: there is none. An unknown id has the set fetched again, but not often.

        Raises NoKeys.
        """
        if (key_id not in self._keys or self.is_too_old()) and (self._is_fetching or self._may_try()):
            # While it is under way, too: the first token of a new key is not the only one that comes with it.
            await self._fetch()
        if not self.has_any:
            raise NoKeys("tokens cannot be checked now")
        return self._keys.get(key_id)

    @property
    def has_any(self) -> bool:
        """Whether a token can be checked."""
        return bool(self._keys) and not self.is_too_old()

    def is_too_old(self) -> bool:
        """Whether no key counts: the set could not be fetched for too long, or never."""
        return time.monotonic() > self.good_until_s

    @property
    def _is_fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    def _may_try(self) -> bool:
        return self._tried_at is None or time.monotonic() - self._tried_at >= UNKNOWN_EVERY_S

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s if self._why is None else min(RETRY_S, self._refresh_s))
            await self._fetch()

    async def _fetch(self) -> None:
        """All who want it at a time share one attempt. It raises nothing."""
        if self._fetching is None or self._fetching.done():
            self._tried_at = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch_once())
        await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        read: Callable[[], Awaitable[bytes]] = self._read_file if self._is_file else self._read_address
        try:
            keys = keys_of(await read(), self._algorithms, self._pass_over)
        except (KeySetRefused, OSError, TimeoutError, aiohttp.ClientError) as error:
            self._not_fetched(str(error) or type(error).__name__)
            return
        except Exception as error:  # noqa: BLE001  # a defect: withdrawn keys must not count on
            self._not_fetched(described(error), error)
            return
        self._take(keys)
        if not keys:
            self._not_fetched(f"it has no public key for {', '.join(sorted(self._algorithms))}")
            return
        if self._why is not None:
            log.info("token_keys_fetched", source=self._shown, keys=len(keys))
        self._why = None

    def _take(self, keys: Keys) -> None:
        """What the set says counts, also where it has no key any more: all that it had are withdrawn."""
        self.good_until_s = time.monotonic() + self._age_s_max
        if {name: _thumb(key) for name, key in keys.items()} != {name: _thumb(key) for name, key in self._keys.items()}:
            self._keys = keys
            self.generation += 1

    def _not_fetched(self, reason: str, defect: Exception | None = None) -> None:
        # An address may have the password by which the issuer knows us, and errors quote it.
        reason = without_credentials(reason)
        self._why = f"the keys at {self._shown} cannot be used: {reason}"
        if self._line.is_due(self._why, time.monotonic()):
            log.error("token_keys_not_fetched", source=self._shown, reason=reason, exc_info=defect)

    def _pass_over(self, reason: str) -> None:
        if self._passed_over.is_due(reason, time.monotonic()):
            log.warning("token_key_passed_over", source=self._shown, reason=printable(reason))

    async def _read_file(self) -> bytes:
        return await asyncio.to_thread(read_plain_file, self._source, BYTES_MAX + 1)

    async def _read_address(self) -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        body = bytearray()
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            # A redirect could lead to a place without TLS.
            session.get(self._source, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise KeySetRefused(f"the answer is {response.status}")
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BYTES_MAX:
                    break
        return bytes(body)


def keys_of(text: bytes, algorithms: frozenset[str], pass_over: Callable[[str], object] = bool) -> Keys:
    """The usable keys of a set, by id. Raises KeySetRefused.

    Keys for encryption, secret and private keys, and those for other algorithms are passed over, as RFC 7517 asks; so
    is one that has a name twice, since readers differ in which value counts, and so are several with one id. A set of
    which nothing is left is no reason to go on with the keys of before.
    """
    if len(text) > BYTES_MAX:
        raise KeySetRefused(f"it is larger than {BYTES_MAX} bytes")
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])["keys"]
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as error:  # ValueError: it is not UTF-8
        raise KeySetRefused(f"it is no JSON Web Key Set: {error}") from None
    if not isinstance(found, list) or len(found) > KEYS_MAX:
        raise KeySetRefused(f"`keys` must be a list of at most {KEYS_MAX} keys")
    by_id: dict[str | None, dict[bytes, PyJWK]] = {}
    for each in _unambiguous(text, found, pass_over):
        key = _usable(each, algorithms, pass_over)
        if key is not None:
            # The same key twice is one.
            by_id.setdefault(key.key_id, {})[_thumb(key)] = key
    for key_id in [key_id for key_id, several in by_id.items() if len(several) > 1]:
        pass_over(f"two keys have the id {key_id!r}")
        del by_id[key_id]
    return {key_id: key for key_id, (key,) in ((key_id, of.values()) for key_id, of in by_id.items())}


class _Set(Struct):
    keys: list[Raw]


def _unambiguous(text: bytes, found: list[Any], pass_over: Callable[[str], object]) -> list[Any]:
    """Those of the keys that have no name twice. Raises KeySetRefused where the set itself has one."""
    if repeated_name(text) is None:
        return found
    kept = []
    for key, raw in zip(found, msgspec.json.decode(text, type=_Set).keys, strict=True):
        if (name := repeated_name(bytes(raw))) is None:
            kept.append(key)
            continue
        pass_over(f"the key {key.get('kid')!r} has {name!r} twice" if isinstance(key, dict) else f"{name!r} twice")
        text = text.replace(bytes(raw), b"{}")
    if (name := repeated_name(text)) is not None:
        raise KeySetRefused(f"it has the name {name!r} twice")
    return kept


def _usable(given: Any, algorithms: frozenset[str], pass_over: Callable[[str], object]) -> PyJWK | None:
    if not isinstance(given, dict) or given.get("kty") == "oct" or not _is_for_signatures(given):
        return None
    if not isinstance(given.get("kid"), str | None) or "d" in given:
        # A private key checks no signature here, and whoever reads the set can sign with it.
        return None
    algorithm = given.get("alg")
    if given.get("kty") == "RSA" and not algorithm:
        algorithm = _algorithm_of_rsa(algorithms)
        if algorithm is None:
            pass_over(
                f"the key {given.get('kid')!r} names no `alg`, and ACCESS_TOKEN_ALGORITHMS leaves open which it is"
            )
            return None
    try:
        key = PyJWK(given, algorithm)
    except Exception:  # noqa: BLE001  # whatever a library says of it: the issuer's other keys count
        return None
    bits = getattr(key.key, "key_size", RSA_BITS_MIN)
    if key.key_type == "RSA" and bits < RSA_BITS_MIN:
        return None
    return key if key.algorithm_name in algorithms else None


def _algorithm_of_rsa(algorithms: frozenset[str]) -> str | None:
    """That of an RSA key that names none; None: it may be one of several. Each key has one alone (RFC 8725, 3.1)."""
    of_rsa = [each for each in algorithms if each.startswith(("RS", "PS"))]
    if len(of_rsa) == 1:
        return of_rsa[0]
    return "RS256" if "RS256" in of_rsa or not of_rsa else None


def _is_for_signatures(given: dict[str, Any]) -> bool:
    operations = given.get("key_ops", ["verify"])
    return given.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _thumb(key: PyJWK) -> bytes:
    return msgspec.json.encode(key._jwk_data, order="deterministic")  # noqa: SLF001  # what the key was made of
