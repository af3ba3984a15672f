"""An echo server that bounds its clients: idle time, TCP keep-alive, connections in all and from one address.

    python examples/echo_server.py [PORT]
    $ nc 127.0.0.1 8007

A line is answered with itself. Who is silent for 60 s is let go; a peer whose machine has gone is noticed by TCP's
probes after 30 + 3 * 10 s; the connection after the 1000th, and the 101st of one address, is closed as it comes.
"""

import contextlib
import sys

import hoop

LIMITS = hoop.Limits(
    idle_timeout=60,
    keepalive_idle=30,
    keepalive_interval=10,
    keepalive_count=3,
    max_connections=1000,
    max_connections_per_host=100,
    max_write_buffer=1 << 20,  # who does not read what it asked for
)


async def echo(reader, writer):
    with contextlib.suppress(ConnectionError, TimeoutError):  # the client is gone, or was let go
        async for line in reader:
            writer.write(line)
            await writer.drain()
    writer.close()


async def main(port, limits=LIMITS):
    server = await hoop.start_server(echo, "127.0.0.1", port, limits=limits, backlog=512)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    await hoop.draining()
    stats = server.stats()
    print(
        f"{stats.accepted} connections were accepted, {stats.refused_full + stats.refused_per_host} refused", flush=True
    )


if __name__ == "__main__":
    hoop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8007), drain=hoop.Drain(timeout=10))
