"""A TCP proxy that can cut and stall connections, and lose a COMMIT or its answer."""

import asyncio
import contextlib
import re
from enum import Enum, auto
from typing import Self

from coordinator.dev.servers.addresses import HOST
from coordinator.dev.servers.ports import free_port

_CHUNK_BYTES = 1 << 16
# The driver of MongoDB asks to be told when its server changes: that is answered seconds later.
_WATCHES = b"maxAwaitTimeMS\x00"


class AtCommit(Enum):
    """What happens to the next COMMIT that comes by."""

    LOSE_REQUEST = auto()
    LOSE_ANSWER = auto()
    DELIVER_LATE = auto()
    """The client's connection is cut; the server gets the COMMIT later."""
    HOLD_REQUEST = auto()
    """The server gets the COMMIT, and the client the answer, once `resume` is called."""
    HOLD_ANSWER = auto()
    """Nothing comes back on this connection until `resume`; the server has the COMMIT."""


class CommitSpotter:
    """Recognises a COMMIT among the bytes that one client sends, in each database's protocol.

    The store on PostgreSQL sends none: the end of the pipeline whose first statement is the fence commits.
    """

    # Query; COM_QUERY; a command of OP_MSG.
    _PLAIN = re.compile(rb"Q....COMMIT\x00|\x03COMMIT$|\x10commitTransaction\x00", re.DOTALL)
    # Parse, whose name the Binds of later pipelines bear.
    _PARSE = re.compile(rb"P....([^\x00]+)\x00(?:COMMIT\x00|\s*WITH current_lease AS )", re.DOTALL)
    _SYNC = b"S\x00\x00\x00\x04"

    def __init__(self) -> None:
        self._bound: list[re.Pattern[bytes]] = []
        self._is_under_way = False

    def sees(self, chunk: bytes) -> bool:
        """Whether this chunk asks for a COMMIT. Small messages are taken to be whole, which on loopback they are."""
        if self._PLAIN.search(chunk) is not None:
            return True
        parsed = self._PARSE.search(chunk)
        if parsed is not None:
            self._bound.append(re.compile(rb"B....[^\x00]*\x00" + re.escape(parsed.group(1)) + rb"\x00", re.DOTALL))
        if any(bound.search(chunk) is not None for bound in self._bound):
            self._is_under_way = True
        if not self._is_under_way or not chunk.endswith(self._SYNC):
            return False
        self._is_under_way = False
        return True


# A packet of MySQL's protocol 10: the version, the thread, a part of the nonce; then what the server can do.
_GREETING = re.compile(rb".{3}\x00\x0a[0-9][^\x00]*\x00.{12}\x00.(.)", re.DOTALL)
_CAN_DO_TLS = 0x08  # CLIENT_SSL, 0x800, in the second byte


def in_clear(greeting: bytes) -> bytes:
    """What a server says first; MySQL's without the offer of TLS, which our clients would take: it hides a COMMIT."""
    found = _GREETING.match(greeting)
    if found is None or int.from_bytes(greeting[:3], "little") != len(greeting) - 4:
        return greeting
    place = found.start(1)
    return greeting[:place] + bytes([greeting[place] & ~_CAN_DO_TLS]) + greeting[place + 1 :]


class _Link:
    """One client's connection and ours to the server on its behalf."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.answers_are_lost = False
        self.is_asked = False
        self.answers_flow = asyncio.Event()
        self.answers_flow.set()
        self.is_silent = False

    def cut(self) -> None:
        """Both sides see a reset."""
        self.client.transport.abort()
        self.server.transport.abort()

    def end(self) -> None:
        """Both sides see an orderly end, as of a server that has had enough."""
        self.client.close()
        self.server.close()


class TcpProxy:
    """Stands between some processes of ours and one server. Used within one event loop."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._links: set[_Link] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._at_commit: AtCommit | None = None
        self._late_s = 0.0
        self._struck = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        self.resume()
        await self.passed()

    @property
    def is_asked(self) -> bool:
        """Whether the server owes an answer."""
        return any(link.is_asked for link in self._links)

    def cut(self) -> None:
        """Reset every connection; new ones are taken at once."""
        for link in list(self._links):
            link.cut()

    def end(self) -> None:
        """End every connection, in order; new ones are taken at once."""
        for link in list(self._links):
            link.end()

    def silence(self) -> None:
        """Lose all that is sent on these connections, as a firewall does that has forgotten them; new ones work."""
        for link in self._links:
            link.is_silent = True

    def stall(self) -> None:
        """Nothing passes, in either direction, and nobody is told; new connections are taken and wait too."""
        self._flowing.clear()

    def resume(self) -> None:
        """What was stalled passes, and the answer that was held."""
        self._flowing.set()
        for link in self._links:
            link.answers_flow.set()

    async def passed(self) -> None:
        """Wait until no connection is left, and with it nothing that is held back."""
        await self._is_idle.wait()

    async def strike_at_commit(self, what: AtCommit, within_s: float, late_s: float = 0.0) -> bool:
        """Do it to the next COMMIT; False: none came by in time."""
        self._struck.clear()
        self._at_commit, self._late_s = what, late_s
        try:
            async with asyncio.timeout(within_s):
                await self._struck.wait()
        except TimeoutError:
            return False
        finally:
            self._at_commit = None
        return True

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link(to_client, to_server)
        self._links.add(link)
        self._is_idle.clear()
        requests = asyncio.create_task(self._pass_requests(link, from_client))
        answers = asyncio.create_task(self._pass_answers(link, from_server))
        try:
            await asyncio.wait({requests, answers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            link.cut()
            for task in (requests, answers):
                task.cancel()
            await asyncio.gather(requests, answers, return_exceptions=True)
            if not self._links:
                self._is_idle.set()

    async def _pass_requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        spotter = CommitSpotter()
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                link.is_asked = _WATCHES not in chunk
                if link.is_silent:
                    continue
                await self._flowing.wait()
                if spotter.sees(chunk) and self._at_commit is not None:
                    what, self._at_commit = self._at_commit, None
                    self._struck.set()
                    if what is AtCommit.LOSE_REQUEST:
                        return
                    if what is AtCommit.DELIVER_LATE:
                        link.client.transport.abort()
                        await asyncio.sleep(self._late_s)
                    if what in (AtCommit.HOLD_ANSWER, AtCommit.HOLD_REQUEST):
                        link.answers_flow.clear()
                        if what is AtCommit.HOLD_REQUEST:
                            await link.answers_flow.wait()
                    else:
                        link.answers_are_lost = True
                link.server.write(chunk)
                await link.server.drain()
                if link.answers_are_lost:
                    await asyncio.sleep(2)  # the answer's arrival cuts before

    async def _pass_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        is_first = True
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if link.is_silent:
                    continue
                await self._flowing.wait()
                await link.answers_flow.wait()
                if link.answers_are_lost:
                    return
                link.is_asked = False
                link.client.write(in_clear(chunk) if is_first else chunk)
                is_first = False
                await link.client.drain()
