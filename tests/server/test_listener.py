"""The socket that the server listens on: what is sent on its connections leaves at once."""

import asyncio
import socket

from outrider.server.options import ServerOptions
from outrider.server.serve import _bound


def test_connections_do_not_collect_small_packets() -> None:
    async def accepted_nodelay() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with _bound(ServerOptions(port=0)) as listener:
            server = await asyncio.start_server(on_connection, sock=listener)
            async with server:
                _, writer = await asyncio.open_connection(*listener.getsockname())
                value = await seen
                writer.close()
                await writer.wait_closed()
        return value

    assert asyncio.run(accepted_nodelay()) != 0
