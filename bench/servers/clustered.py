"""A server of the benchmark as one worker of hoop's cluster: --server protocol_echo or uvicorn_plain.

Prints where it listens, and the worker's process, which is the one whose CPU time counts. Ends when stdin ends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

import hoop.cluster

from bench.servers.serving import BACKLOG, raise_descriptor_limit, serve_protocol, settle_allocator

SERVERS = {"protocol_echo": "main", "uvicorn_plain": "uvicorn"}  # and who serves them


def _announce(sock: socket.socket) -> None:
    settle_allocator()
    threading.Thread(target=_end_at_end_of_stdin, daemon=True).start()
    ready = {"port": sock.getsockname()[1], "pid": os.getpid(), "loop": "hoop"}
    print(json.dumps(ready), flush=True)


def _end_at_end_of_stdin() -> None:
    """The runner holds the other end: however it ends, no cluster is left behind."""
    try:
        while os.read(sys.stdin.fileno(), 4096):
            pass
    finally:
        os.kill(os.getppid(), signal.SIGTERM)


async def protocol_echo() -> None:
    """What the worker runs."""
    from bench.servers.protocol_echo import Echo

    worker = hoop.cluster.worker
    (listener,) = worker.sockets
    _announce(listener)
    worker.ready()
    await serve_protocol(listener, Echo)


def uvicorn_plain() -> Any:
    """A factory of the application, in the worker."""
    from bench.servers.uvicorn_plain import application

    _announce(hoop.cluster.worker.sockets[0])
    return application


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.servers.clustered")
    parser.add_argument("--server", choices=SERVERS, required=True)
    name = parser.parse_args().server
    raise_descriptor_limit()
    hoop.cluster.run(
        f"bench.servers.clustered:{name}",
        workers=1,
        bind="127.0.0.1:0",
        backlog=BACKLOG,
        server=SERVERS[name],
        factory=SERVERS[name] != "main",
        control=False,
        drain=hoop.Drain(idle_grace=0, timeout=1),
    )


if __name__ == "__main__":
    main()
