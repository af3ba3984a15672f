"""A chat server on socket handles, without asyncio: each line that somebody sends goes to everybody else.

    python examples/chat_server.py [port]
    nc 127.0.0.1 PORT          # the first line is your name

What strangers may do is bounded: 30 s for a name, 10 minutes of silence, 1000 guests, 20 from one address, lines of 4
KiB, and whoever does not read what the others say is let go at 1 MiB.
"""

from __future__ import annotations

import sys

import hoop

LONGEST_LINE = 4096  # bytes
LIMITS = hoop.Limits(
    first_byte_timeout=30,
    header_timeout=30,
    idle_timeout=600,
    max_connections=1000,
    max_connections_per_host=20,
    max_write_buffer=1 << 20,
    keepalive_idle=60,
    keepalive_interval=10,
    keepalive_count=6,
)


class Room:
    """Everybody who is here."""

    def __init__(self) -> None:
        self.guests: set[Guest] = set()

    def say(self, line: bytes, but: Guest | None = None) -> None:
        for guest in self.guests - {but}:
            guest.socket.write(line + b"\n")


class Guest:
    """One connection: first a name, then lines."""

    def __init__(self, room: Room, socket: hoop.Socket) -> None:
        self.room = room
        self.socket = socket
        self.name = b""
        self.unfinished = b""
        socket.on_data = self.on_data
        socket.on_error = self.on_error
        socket.on_close = self.on_close

    def on_data(self, socket: hoop.Socket, data: bytes) -> None:
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        for line in lines:
            self.hear(line.strip())
        if len(self.unfinished) > LONGEST_LINE:
            socket.destroy(ValueError(f"a line of more than {LONGEST_LINE} bytes"))

    def hear(self, line: bytes) -> None:
        if self.name:
            self.room.say(self.name + b": " + line, but=self)
        elif line:
            self.name = line
            # This ends header_timeout.
            self.socket.write(b"welcome, %b; %d others are here\n" % (line, len(self.room.guests)))
            self.room.say(line + b" comes in")
            self.room.guests.add(self)

    def on_error(self, socket: hoop.Socket, error: Exception) -> None:
        print(f"{socket.remote_address}: {error}", flush=True)  # a limit, a reset, a line that is too long

    def on_close(self, socket: hoop.Socket) -> None:
        if self in self.room.guests:
            self.room.guests.remove(self)
            self.room.say(self.name + b" leaves")


def main(port: int = 0, limits: hoop.Limits = LIMITS) -> None:
    room = Room()
    loop = hoop.new_event_loop()
    server = loop.listen_tcp(lambda socket: Guest(room, socket), "127.0.0.1", port, limits=limits)
    print(f"listening on {server.address[0]} port {server.address[1]}", flush=True)
    try:
        loop.run()
    except KeyboardInterrupt:
        print(server.stats())
    finally:
        loop.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
