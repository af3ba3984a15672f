"""examples/static_file_server.py, as a process of its own, asked over its socket by the standard library's client."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "static_file_server.py"
LIMIT_S = 60.0
LARGE = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_bytes(b"secret")
    folder = outside / "served"
    (folder / "below").mkdir(parents=True)
    (folder / "index.html").write_text("<p>index")
    (folder / "below" / "a file.txt").write_text("a text")
    (folder / "large.bin").write_bytes(LARGE)
    (folder / ".hidden").write_bytes(b"hidden")
    os.mkfifo(folder / "fifo")
    server = subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(folder), "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline().rstrip("/\n").rpartition(":")[2])
        server.send_signal(signal.SIGINT)
        assert server.wait(LIMIT_S) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture
def client(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, target: str, method: str = "GET") -> tuple[int, bytes, str | None]:
    client.request(method, target)
    response = client.getresponse()
    body = response.read()
    if method == "GET" and response.status == 200:
        assert response.getheader("Content-Length") == str(len(body))
        assert response.getheader("Last-Modified", "").endswith("GMT")
    return response.status, body, response.getheader("Content-Type")


def test_files_over_one_connection(client: http.client.HTTPConnection) -> None:
    client.connect()
    sock = client.sock
    for _ in range(3):
        assert ask(client, "/") == (200, b"<p>index", "text/html")
        assert ask(client, "/below/a%20file.txt?query") == (200, b"a text", "text/plain")
        assert ask(client, "/large.bin") == (200, LARGE, "application/octet-stream")
        assert ask(client, "/large.bin", "HEAD") == (200, b"", "application/octet-stream")
        assert ask(client, "/nothing")[:2] == (404, b"")
        assert ask(client, "/below", "POST")[0] == 405
    assert client.sock is sock


@pytest.mark.parametrize(
    "target",
    ["/../secret", "/below/../../secret", "/%2e%2e/secret", "/.hidden", "/fifo", "/below", "/index.html/x", "/a%00b"],
)
def test_what_is_not_to_be_had(client: http.client.HTTPConnection, target: str) -> None:
    assert ask(client, target)[:2] == (404, b"")
    assert ask(client, "/")[0] == 200


def test_what_is_no_http(port: int) -> None:
    for text, answer in ((b"hello\r\n\r\n", b"HTTP/1.1 400"), (b"x" * 100_000, b"")):
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
            try:
                sock.sendall(text)
                assert sock.recv(len(b"HTTP/1.1 400")) == answer
            except ConnectionError:
                assert answer == b""  # closed with unread data: a reset


def test_a_peer_that_leaves_in_the_middle_of_a_large_file(port: int, client: http.client.HTTPConnection) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
            sock.sendall(b"GET /large.bin HTTP/1.1\r\n\r\n")
            assert sock.recv(100)
    assert ask(client, "/")[0] == 200
