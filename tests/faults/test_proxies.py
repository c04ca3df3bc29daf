"""What is done to the proxies before the members of a cluster is done to each of them."""

import asyncio
from contextlib import AsyncExitStack

from coordinator.dev.servers.addresses import HOST
from tests.faults.proxies import Proxies
from tests.faults.proxy import AtCommit

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


async def test_the_next_commit_is_struck_at_whichever_server_it_comes_to() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(await asyncio.start_server(serve, HOST, 0)) for _ in range(2)]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        proxies = await Proxies.before(ports, stack)
        url = proxies.through(f"postgresql://a:b@{HOST}:{ports[0]},{HOST}:{ports[1]}/users")
        assert url == f"postgresql://a:b@{','.join(f'{HOST}:{proxy.port}' for _, proxy in proxies.each)}/users"
        strike = asyncio.create_task(proxies.strike_at_commit(AtCommit.LOSE_REQUEST, within_s=10))
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(HOST, proxies.each[1][1].port)
        writer.write(COMMIT)
        assert await strike
        assert await reader.read() == b""
        writer.close()
        assert not await proxies.strike_at_commit(AtCommit.LOSE_REQUEST, within_s=0.05)
    assert COMMIT not in seen
