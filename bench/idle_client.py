"""Holds connections to an echo server, plain or TLS, and lets them echo when told to. Blocking sockets, one at a time.

It prints a line of JSON when all are open, then takes lines on stdin: "echo BYTES" (on each connection, in pieces, and
then a small message), and "quit" or the end of stdin.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import socket
import ssl
import sys

LIMIT_S = 20.0
PIECE = 64 * 1024  # bytes in flight: below what the kernel holds, so that neither end waits for the other to read
LAST = 1  # byte: what a handler read last stays in its variable, and is not the memory of the loop
CONNECTIONS_PER_SOURCE = 10_000


def connect(port: int, number: int, context: ssl.SSLContext | None) -> socket.socket:
    """One connection; thousands need several source addresses."""
    source = (f"127.0.0.{2 + number // CONNECTIONS_PER_SOURCE}", 0)
    sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S, source_address=source)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if context is None else context.wrap_socket(sock)


def echo(sock: socket.socket, size: int) -> None:
    """Send size bytes and have them back. AssertionError if others come."""
    for number in range(math.ceil(size / PIECE)):
        piece = bytes([number % 256]) * min(PIECE, size - number * PIECE)
        sock.sendall(piece)
        received = bytearray()
        while len(received) < len(piece):
            chunk = sock.recv(len(piece) - len(received))
            assert chunk, "closed by the server"
            received += chunk
        assert received == piece, "other bytes came back than were sent"


def tell(**message: object) -> None:
    """A line for the runner."""
    print(json.dumps(message), flush=True)


def main() -> None:
    """Open, then do as told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = None
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    held = [connect(arguments.port, number, context) for number in range(arguments.connections)]
    tell(event="opened", held=len(held))
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        for sock in held:
            echo(sock, int(words[1]))
            echo(sock, LAST)
        tell(event="echoed", held=len(held))


if __name__ == "__main__":
    main()
