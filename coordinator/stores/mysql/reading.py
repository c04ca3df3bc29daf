"""aiomysql's connections, for reads."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aiomysql import Connection
from pymysql.constants import CLIENT, CR
from pymysql.err import OperationalError

from coordinator.stores.mysql.errors import of_no_mysql
from coordinator.stores.mysql.nodes import IS_MEMBER, STATUS, check_takes_writes, is_member, session_of_member

_END_TIMEOUT_S: Final = 1.0


class ReadingConnection(Connection):  # type: ignore[misc]  # aiomysql has no types
    """A connection that refuses to go on without TLS unless that is allowed; aiomysql itself would go on."""

    def __init__(self, *, requires_tls: bool = False, waits: int = 0, **arguments: Any) -> None:
        """`waits` is what waits on a node of a Galera cluster until that has all commits of the others: `READS`."""
        super().__init__(**arguments)
        self._requires_tls = requires_tls
        self._waits = waits
        self._is_member = False

    async def _request_authentication(self) -> None:
        """Before the password is sent."""
        if not self.server_capabilities & CLIENT.SSL:
            if self._requires_tls:
                raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, "TLS is asked for, and the server offers none")
            # aiomysql announces TLS all the same: a server whose offer a proxy took away would wait for it.
            self.client_flag &= ~CLIENT.SSL
        try:
            await super()._request_authentication()
        except BaseException:
            # aiomysql's way to close it would wait for the server to end TLS, and nobody waits for that.
            if self._writer is not None:
                self._writer.transport.abort()
            raise

    async def set_up_session(self) -> None:
        """Raises OperationalError where the server is a node of a Galera cluster that answers no reads."""
        with self._gone_at_once():
            self._is_member = is_member(await self._answer(IS_MEMBER))
            if self._is_member:
                check_takes_writes(await self._answer(STATUS))
                for statement in session_of_member(self._waits):
                    await self.query(statement)

    async def probe(self) -> None:
        """One round trip."""
        with self._gone_at_once():
            if self._is_member:
                # A node that is cut off answers a ping.
                await self.query("SELECT 1")
            else:
                await self.ping(reconnect=False)

    @contextmanager
    def _gone_at_once(self) -> Iterator[None]:
        """A connection that fails in this is gone at once: nobody waits for an orderly end."""
        try:
            yield
        except BaseException:
            if self._writer is not None:
                self._writer.transport.abort()
            raise

    async def _answer(self, statement: str) -> Iterable[Sequence[str]]:
        async with self.cursor() as cursor:
            await cursor.execute(statement)
            found: Iterable[Sequence[str]] = await cursor.fetchall()
            return found

    def _write_bytes(self, data: bytes) -> None:
        """Event loops have each an error of their own, or none, for a connection that the other side has ended."""
        if self._writer.transport.is_closing():
            raise OperationalError(CR.CR_SERVER_GONE_ERROR, "the connection has been ended")
        super()._write_bytes(data)

    async def ensure_closed(self) -> None:
        """End the session, and return once the connection is gone: aiomysql would leave the end of TLS to the loop."""
        writer = self._writer
        if writer is None:
            return
        if writer.transport.is_closing():
            # There is nobody to say goodbye to.
            self.close()
            return
        await super().ensure_closed()
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()


async def connect(**arguments: Any) -> ReadingConnection:
    """Open one."""
    connection = ReadingConnection(**arguments)
    try:
        await connection._connect()  # noqa: SLF001  # as aiomysql's own `connect`
        await connection.set_up_session()
    except OperationalError as error:
        # The loop closes the socket of a handshake that has failed in its next turn: one that ends now would leave it.
        await asyncio.sleep(0)
        if error.__cause__ is None:
            raise
        # aiomysql's text leaves out why, such as a certificate that is not the server's, and on which port.
        where = f", port {connection.port}" if error.args[0] == CR.CR_CONN_HOST_ERROR else ""
        raise OperationalError(error.args[0], f"{error.args[1]}{where}: {error.__cause__}") from error
    except RuntimeError as error:
        # What it asks of a connection that the server has ended meanwhile, event loops refuse by errors of their own.
        raise OperationalError(CR.CR_SERVER_LOST, f"the server ended the connection: {error}") from error
    except Exception as error:
        connection.close()
        said = of_no_mysql(error)
        if said is error:
            raise
        raise said from error
    return connection
