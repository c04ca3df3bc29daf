"""One connection to Redis on which calls follow one another without waiting for answers.

Redis answers in the order of the calls. So a connection is a queue of futures, and a task that reads.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from coordinator.runtime.addresses import Host
from coordinator.runtime.awaited import LATE_S, Late
from coordinator.runtime.ending import end_tasks
from coordinator.runtime.settings import BrokerSettings, broker_setting
from coordinator.runtime.tls_look import Greeting, refusal_in, tls_problem
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.reconnecting import BrokerRefuses
from coordinator.transports.redis.driver_arguments import RedisAddress, redis_address
from coordinator.transports.redis.durability import check_durable
from coordinator.transports.redis.scripts import ALL, Script

_NO_SUCH_DATABASE: Final = ("DB index is out of range", "invalid DB index")
"""Redis's answer to the number of a database that it has not."""
_GREETING: Final = Greeting(b"PING\r\n", lambda answer: answer.startswith((b"+PONG", b"-NOAUTH", b"-DENIED")))
_LACKS_RIGHT: Final = re.compile("no permissions|ACL failure|user executing the script", re.IGNORECASE)
"""In a script that is no NOPERM, but a text that depends on the version."""
_ASK_EVERY_S: Final = 0.5
"""How often a connection on which nothing happens is asked whether it lives."""


class RedisConnection:
    """An open connection. Used within one event loop, but for `late`.

    `run` names the process of Redis; `waits_for_sync`: a write is safe only once WAITAOF says so.
    `on_message` takes what is published to the channels that are subscribed to.
    """

    def __init__(self, raw: Connection, where: str, name: str, heartbeat_s: float) -> None:
        self._raw = raw
        self._where = where
        self._what = f"Redis (connection {name})"
        self._heartbeat_s = heartbeat_s
        self._calls: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._unsent: list[Sequence[Any]] = []
        self._unsent_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self.lost: asyncio.Future[BrokerUnavailable] = asyncio.get_running_loop().create_future()
        self.on_message: Callable[[bytes, bytes], None] | None = None
        self.run = ""
        self.waits_for_sync = False
        self._reading = asyncio.create_task(self._read(), name=f"reads {name}")
        self._asking = asyncio.create_task(self._ask(), name=f"asks {name}")

    @classmethod
    async def open(
        cls, settings: BrokerSettings, name: str, *, must_sync: bool = True, heartbeat_s: float | None = None
    ) -> "RedisConnection":
        """Connect to the master; `name` shows in CLIENT LIST. An attempt that is given up leaves nothing behind.

        With `must_sync` Redis must be one whose confirmed writes outlive it. `heartbeat_s` is how long a call may take
        before the connection counts as dead, if another than that of the settings.
        Raises BrokerUnavailable, and ConfigurationError if another attempt would end in the same way.
        """
        address = redis_address(settings)
        connection: RedisConnection | None = None
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                host = await _master(address, settings)
                raw = await _connected(address, host, address.arguments, _client_name(name))
                connection = cls(raw, f"Redis at {host}", name, heartbeat_s or settings.heartbeat_s)
                await connection._begin(address, must_sync=must_sync)
        except TimeoutError:
            if connection is not None:
                await connection.close()
            await _check_tls(address)
            text = f"Redis at {address} did not answer within {settings.connect_timeout_s:g} s"
            raise BrokerUnavailable(text) from None
        except BrokerUnavailable:
            if connection is not None:
                await connection.close()
            await _check_tls(address)
            raise
        except BaseException:
            if connection is not None:
                await connection.close()
            raise
        return connection

    @property
    def late(self) -> Late | None:
        """The oldest answer that is awaited, if it is late. For any thread."""
        with suppress(IndexError):
            since_s = self._calls[0][0]
            waited_s = time.monotonic() - since_s
            if waited_s >= LATE_S and not self.lost.done():
                return Late(self._what, since_s, waited_s)
        return None

    @property
    def unsent_bytes(self) -> int:
        """About how many bytes wait for Redis to read them."""
        transport = None if self._raw._writer is None else self._raw._writer.transport  # noqa: SLF001
        return self._unsent_bytes + (0 if transport is None else transport.get_write_buffer_size())

    def call(self, *words: Any) -> "asyncio.Future[Any]":
        """Send a command. The future has its answer, or fails: with BrokerUnavailable if the connection is lost, with
        the driver's ResponseError if Redis refuses it, and with UnicodeError if a word is no text, which is not sent.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            # What fails later leaves calls without an answer, and each would have that of another.
            words = tuple([word.encode() if isinstance(word, str) else word for word in words])
        except UnicodeError as error:
            future.set_exception(error)
            return future
        if self.lost.done():
            future.set_exception(BrokerUnavailable(str(self.lost.result())))
            return future
        self._calls.append((time.monotonic(), future))
        self._unsent.append(words)
        self._unsent_bytes += sum(len(word) for word in words if isinstance(word, bytes))
        if self._writing is None:
            # What is called in the same turn of the loop is sent together.
            self._writing = asyncio.create_task(self._write())
        return future

    def run_script(self, script: Script, keys: Sequence[str], *arguments: Any) -> "asyncio.Future[Any]":
        """Call a script, as `call`."""
        return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)

    def end_because(self, why: BrokerUnavailable) -> None:
        """Drop the connection, for this reason."""
        if not self.lost.done():
            self.lost.set_result(why)
        for _, future in self._calls:
            if not future.done():
                future.set_exception(type(why)(str(why)))
                future.exception()  # whoever gave it up does not read it
        self._calls.clear()
        self._unsent.clear()
        if self._raw._writer is not None:  # noqa: SLF001
            self._raw._writer.transport.abort()  # noqa: SLF001

    async def close(self) -> None:
        """Drop the connection, and return once its tasks have ended."""
        self.end_because(BrokerUnavailable(f"the connection to {self._where} was closed"))
        try:
            await end_tasks(self._reading, self._asking, self._writing)
        finally:
            with suppress(Exception):
                await self._raw.disconnect(nowait=True)

    async def _begin(self, address: RedisAddress, *, must_sync: bool) -> None:
        try:
            server, replication = await asyncio.gather(self.call("INFO", "server"), self.call("INFO", "replication"))
            about = _info(server) | _info(replication)
            if about.get("role") != "master":
                raise BrokerUnavailable(f"{self._where} is a replica, which takes no writes")
            self.run = about["run_id"]
            await asyncio.gather(*(self.call("SCRIPT", "LOAD", script.text) for script in ALL))
            if must_sync:
                self.waits_for_sync = await check_durable(self.call, about, allows=address.allows_unsynced)
        except redis.RedisError as error:
            raise translated(error, self._where) from error
        except KeyError:
            raise BrokerUnavailable(f"{self._where} does not say which process it is") from None

    async def _write(self) -> None:
        try:
            while self._unsent:
                words, self._unsent, self._unsent_bytes = self._unsent, [], 0
                await self._raw.send_packed_command(self._raw.pack_commands(words), check_health=False)
        except (redis.RedisError, OSError, RuntimeError) as error:
            self.end_because(self._lost_because(error))
        finally:
            self._writing = None

    async def _read(self) -> None:
        try:
            while True:
                try:
                    answer: Any = await self._raw.read_response(disconnect_on_error=False)
                except redis.ResponseError as error:
                    answer = error
                if self.on_message is not None and isinstance(answer, list) and answer[0] == b"message":
                    self.on_message(answer[1], answer[2])
                    continue
                _, future = self._calls.popleft()
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (redis.RedisError, OSError, EOFError, RuntimeError, IndexError) as error:
            # An IndexError is that of an answer to nothing.
            self.end_because(self._lost_because(error))

    async def _ask(self) -> None:
        """Ask a silent connection whether it lives, and end one that does not answer."""
        while not self.lost.done():
            await asyncio.sleep(_ASK_EVERY_S)
            if not self._calls:
                self.call("PING").add_done_callback(lambda done: done.cancelled() or done.exception())
            elif time.monotonic() - self._calls[0][0] > self._heartbeat_s:
                self.end_because(BrokerUnavailable(f"{self._where} has not answered for {self._heartbeat_s:g} s"))

    def _lost_because(self, error: BaseException) -> BrokerUnavailable:
        if isinstance(error, BrokerUnavailable):
            return error
        return BrokerUnavailable(f"the connection to {self._where} was lost: {type(error).__name__}: {error}")


def lacks_right(error: BaseException) -> bool:
    """Whether Redis refuses it for want of a right of this user."""
    return isinstance(error, redis.ResponseError) and _LACKS_RIGHT.search(str(error)) is not None


def translated(error: redis.RedisError, where: str) -> Exception:
    """A ConfigurationError if another attempt would end in the same way, and else BrokerUnavailable."""
    text = str(error)
    if text.startswith(_NO_SUCH_DATABASE):
        return ConfigurationError(f"{broker_setting('BROKER_URL')}: {where} has no database of this number: {text}")
    if isinstance(error, redis.AuthenticationError):
        return BrokerRefuses.the_account(
            f"{broker_setting('BROKER_URL')}: {where} refuses this user, or its password: {text}"
        )
    if lacks_right(error):
        return BrokerRefuses(f"{broker_setting('BROKER_URL')}: {where} refuses a right that this user needs: {text}")
    return BrokerUnavailable(f"{where}: {text}")


async def _master(address: RedisAddress, settings: BrokerSettings) -> Host:
    """The server to connect to: where Sentinels watch it, the one that the first which answers names."""
    if address.master is None:
        return address.hosts[0]
    reasons: list[str] = []
    for sentinel in address.hosts:
        try:
            async with asyncio.timeout(settings.connect_timeout_s / (len(address.hosts) + 1)):
                raw = await _connected(address, sentinel, address.sentinel_arguments, None)
                try:
                    await raw.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master)
                    answer: Any = await raw.read_response()
                finally:
                    await raw.disconnect(nowait=True)
            if answer:
                return Host(answer[0].decode(), int(answer[1]))
            reasons.append(f"{sentinel} knows no {address.master!r}")
        except (redis.RedisError, OSError, TimeoutError, BrokerUnavailable) as error:
            reasons.append(f"{sentinel}: {error or type(error).__name__}")
    raise BrokerUnavailable(f"no Sentinel names the master: {'; '.join(reasons)}")


async def _connected(address: RedisAddress, host: Host, arguments: dict[str, Any], name: str | None) -> Connection:
    kind = SSLConnection if address.arguments.get("ssl") else Connection
    given = {key: value for key, value in arguments.items() if key != "ssl" and value is not None}
    raw = kind(
        host=host.name,
        port=host.port or 0,
        client_name=name,
        driver_info=None,
        protocol=2,
        socket_timeout=None,
        # Our own limit covers the whole attempt.
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
        **given,
    )
    try:
        await raw.connect()  # type: ignore[no-untyped-call]
    except BaseException as error:
        await raw.disconnect(nowait=True)
        if isinstance(error, redis.AuthenticationError) or not isinstance(error, redis.ConnectionError):
            if isinstance(error, redis.RedisError):
                raise translated(error, f"Redis at {host}") from error
            raise
        if (refusal := refusal_in(error)) is not None:
            raise ConfigurationError(
                f"{broker_setting('BROKER_URL')}: no TLS connection to Redis at {host} can be made: {refusal}"
            ) from error
        raise BrokerUnavailable(f"Redis at {host} cannot be reached: {error}") from error
    return raw


async def _check_tls(address: RedisAddress) -> None:
    """Raise ConfigurationError if no attempt can succeed, as the server has no TLS, or the address does not say so."""
    if address.master is None:
        is_tls = bool(address.arguments.get("ssl"))
        problem = await asyncio.to_thread(tls_problem, address.hosts, _GREETING, is_tls=is_tls)
        if problem is not None:
            raise ConfigurationError(f"{broker_setting('BROKER_URL')}: {problem}: rediss:// is with TLS")


def _client_name(name: str) -> str:
    """As Redis takes it: without spaces."""
    return "".join(character if "!" <= character <= "~" else "-" for character in name)


def _info(answer: Any) -> dict[str, str]:
    lines = (line.partition(":") for line in bytes(answer).decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
