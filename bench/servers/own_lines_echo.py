"""As lines_echo, with the streams that come with the loop: hoop's compiled ones, or asyncio's."""

from __future__ import annotations

from bench.servers.lines_echo import echo
from bench.servers.own_streams_echo import serve_with_own_streams
from bench.servers.serving import run_server

if __name__ == "__main__":
    run_server(lambda listener: serve_with_own_streams(listener, echo))
