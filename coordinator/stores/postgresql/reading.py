"""psycopg's asynchronous connections, for reads that end in time though the server does not answer."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, Final, Self

from psycopg import AsyncConnection, capabilities, generators, waiting
from psycopg.abc import PQGen
from psycopg.errors import Error, OperationalError
from psycopg.pq import TransactionStatus

from coordinator.stores.postgresql.direct_tls import explained
from coordinator.stores.postgresql.session import set_up_reader
from coordinator.stores.sql.hosts_in_turns import HOST_CONNECT_TIMEOUT_S

_CANCEL_TIMEOUT_S: Final = 5.0
_cancelling: set[asyncio.Task[None]] = set()


class PromptConnection(AsyncConnection[Any]):
    """A connection that is given up with its statement.

    psycopg would keep the caller until the server has taken the cancellation and ended the statement, 5 s for each.
    Here the socket is closed at once, and the server is asked to cancel meanwhile.
    """

    @classmethod
    async def connect(cls, conninfo: str = "", **arguments: Any) -> Self:
        """Open one, and set its session up."""
        if await _has_several_addresses(arguments):
            arguments["connect_timeout"] = HOST_CONNECT_TIMEOUT_S
        try:
            connection = await super().connect(conninfo, **arguments)
        except OperationalError as error:
            raise await asyncio.to_thread(explained, error, arguments) from None
        try:
            await set_up_reader(connection)
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection

    async def wait(
        self,
        gen: PQGen[Any],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109  # as psycopg has it
    ) -> Any:
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._cancel_on_server()
                self.pgconn.finish()
            raise

    def _cancel_on_server(self) -> None:
        """Ask on a connection of its own, which nobody waits for. Without libpq 17 the server's own limit has to do."""
        if not capabilities.has_cancel_safe():
            return
        cancel = self.pgconn.cancel_conn()
        try:
            cancel.start()
        except Error:
            return
        asked = asyncio.create_task(_ask(generators.cancel(cancel)), name="cancelling a read")
        _cancelling.add(asked)
        asked.add_done_callback(_cancelling.discard)


async def _has_several_addresses(arguments: Mapping[str, Any]) -> bool:
    """Whether the host is a name with several addresses: psycopg tries them one after the other, each for as long as a
    connection may take."""
    host = str(arguments.get("host", ""))
    if not host or host.startswith("/") or "," in host or "hostaddr" in arguments:
        return False
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        # psycopg says it.
        return False
    return len(found) > 1


async def _ask(cancel: Any) -> None:
    try:
        await waiting.wait_conn_async(cancel, timeout=_CANCEL_TIMEOUT_S)
    except Error:
        # The server is away: it ends the statement by its own limit, or with the connection.
        return
