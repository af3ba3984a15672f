"""Uses an installed hoop once: is what the wheel brought along whole? Called by .ci/run, outside of the clone."""

import asyncio
import socket
import sys

import hoop


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, hoop.Loop)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        message = bytes(range(256)) * 4096
        writer.write(message)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 30) == message
        writer.close()
        await writer.wait_closed()
    order: list[str] = []
    loop.call_soon(order.append, "call_soon")
    loop.next_tick(order.append, "next_tick")
    await asyncio.sleep(0.01)
    assert order == ["next_tick", "call_soon"], order
    assert (await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))[0][4] == ("127.0.0.1", 80)
    assert await asyncio.to_thread(sum, [1, 2]) == 3


hoop.run(main())
for poller in (None, "poll"):
    loop = hoop.Loop(poller=poller)
    loop.run_until_complete(main())
    print(f"hoop {hoop.__version__} of {hoop.__file__} works: {loop!r}, Python {sys.version.split()[0]}")
    loop.close()
