"""examples/drained_web_server.py: uvicorn ended by SIGTERM between a load balancer and its clients."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from free_ports import free_port
from server_process import ServerProcess, wait_for_listener

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "drained_web_server.py"
DEADLINE_S = 60.0


class Server(ServerProcess):
    def __init__(self, delay: str) -> None:
        self.port = free_port()
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
        super().__init__([sys.executable, EXAMPLE, str(self.port), delay], env=environment)
        self.wait_for("started")
        wait_for_listener(self.port)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_S)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        yield server


@pytest.mark.parametrize("server", ["0"], indirect=True)
def test_request_under_way_is_answered_and_the_lifespan_ends(server: Server) -> None:
    with server.client() as keeps_alive, socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as slow:
        assert keeps_alive.get("/").headers.get("connection") is None
        slow.sendall(b"GET /slow HTTP/1.1\r\nhost: here\r\n\r\n")
        server.wait_for("a slow request has begun")
        assert server.stop() == 0
        answer = b""
        while piece := slow.recv(1000):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head
    assert body == b"Hello, world!\n"
    assert server.log[-1] == "the lifespan has ended\n"


@pytest.mark.parametrize("server", ["30"], indirect=True)
def test_d14_readiness_fails_before_the_listener_goes_and_liveness_does_not(server: Server) -> None:
    with server.client() as balancer, socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as slow:
        assert [balancer.get(path).status_code for path in ("/livez", "/readyz", "/")] == [200, 200, 200]
        slow.sendall(b"GET /slow HTTP/1.1\r\nhost: here\r\n\r\n")
        server.wait_for("a slow request has begun")
        server.process.send_signal(15)
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")  # draining() has returned
        answers = [balancer.get(path) for path in ("/livez", "/readyz", "/")]
        assert [answer.status_code for answer in answers] == [200, 503, 200]
        assert [answer.headers["connection"] for answer in answers] == ["close"] * 3
        assert server.stop() == 128 + 15  # the second signal does not wait for the delay
