"""Connections of gateways to MySQL that the server ends while they are opened: as a server does that starts or dies."""

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
import uvloop
from pymysql.err import OperationalError

from coordinator.stores.mysql.reading import connect
from tests.support.answering_server import answering

ATTEMPTS, AT_ONCE = 400, 10
"""Without the translation of errors some of so many attempts end with another one."""
GREETING = (
    b"\x4a\0\0\0\x0a8.0.30\0\x08\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15"
    + bytes(10)
    + b"abcdefghijkl\0mysql_native_password\0"
)


@pytest.fixture
def resetting_port() -> Iterator[int]:
    """A server that greets, and ends each connection."""

    def reset(connection: socket.socket) -> None:
        connection.send(GREETING)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with answering(reset) as port:
        yield port


def test_what_the_server_ends_is_an_error_of_the_driver_s(resetting_port: int) -> None:
    """So it is 503 at a gateway, and not a defect of ours."""

    async def attempt() -> None:
        with pytest.raises(OperationalError):
            await connect(host="127.0.0.1", port=resetting_port, user="reader", password="x", connect_timeout=5)

    async def attempts() -> None:
        for _ in range(ATTEMPTS):
            await asyncio.gather(*(attempt() for _ in range(AT_ONCE)))

    uvloop.run(attempts())


async def test_a_server_that_is_away_is_named_by_its_port() -> None:
    with pytest.raises(OperationalError, match=r"Can't connect to MySQL server on '127\.0\.0\.1', port 9: "):
        await connect(host="127.0.0.1", port=9, user="nobody", password="none")
