"""/livez and /readyz: the master answers, whatever its workers do."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from clusters import LINES_APP, Address, Client, Cluster, address_in, cluster, refuses, started, workers_of

HEALTH = {"health_bind": "127.0.0.1:0"}


def health_of(running: Cluster) -> Address:
    found = running.expect(r"health at (\S+)")[1]
    return address_in(found.replace("http://", "tcp://"))


def send(address: Address, request: bytes) -> bytes:
    """All that comes back."""
    with Client(address) as client:
        client.socket.sendall(request)
        return b"".join(iter(lambda: client.socket.recv(65536), b""))


def get(address: Address, path: str, method: str = "GET") -> tuple[int, str]:
    head, _, body = (
        send(address, f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).decode().partition("\r\n\r\n")
    )
    return int(head.split()[1]), body


def test_alive_and_ready(tmp_path: Path) -> None:
    with cluster(tmp_path, **HEALTH) as running:
        health = health_of(running)
        running.serving()
        assert get(health, "/livez") == (200, "alive\n")
        assert get(health, "/readyz") == (200, "2 of 2 workers are ready\n")
        assert get(health, "/readyz?verbose") == (200, "2 of 2 workers are ready\n")
        assert get(health, "/readyz", "HEAD") == (200, "")
        assert get(health, "/") == (404, "there is /livez, /readyz\n")
        assert get(health, "/livez", "POST") == (405, "GET or HEAD\n")
        assert running.stop() == 0
        assert refuses(health)


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET /livez\r\n\r\n", b"x" * 9000, b"GET /livez SPDY/3\r\n\r\n"], ids=len
)
def test_what_is_no_request_is_refused(tmp_path: Path, request_: bytes) -> None:
    with cluster(tmp_path, workers=1, **HEALTH) as running:
        health = health_of(running)
        assert b" 400 Bad Request\r\n" in send(health, request_)
        assert running.expect("serving on")
        assert running.stop() == 0


def test_a_request_may_come_byte_by_byte(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, **HEALTH) as running:
        health = health_of(running)
        with Client(health) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"GET /livez HTTP/1.0\n\n":
                client.socket.sendall(bytes([byte]))
            assert client.socket.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        running.serving()
        assert running.stop() == 0


def test_trap_d14_one_blocked_worker_fails_neither(tmp_path: Path) -> None:
    with cluster(tmp_path, blocked_timeout=60, **HEALTH) as running:
        health = health_of(running)
        address = running.serving()
        with Client(address) as client:
            client.ask("who")
            client.send("block 300")
            assert get(health, "/livez")[0] == 200
            assert get(health, "/readyz")[0] == 200


def test_trap_d14_readiness_fails_while_it_drains_and_liveness_does_not(tmp_path: Path) -> None:
    source = "import hoop, hoop.cluster\nhoop.cluster.run('app:main', workers=2, bind='127.0.0.1:0', control=False,"
    source += " health_bind='127.0.0.1:0', drain=hoop.Drain(timeout=60))"
    (tmp_path / "app.py").write_text(LINES_APP)
    with started(source, tmp_path) as running:
        health = health_of(running)
        address = running.serving()
        with Client(address) as client:
            client.ask("who")
            client.send("wait 2")
            running.send(signal.SIGTERM)
            running.expect("stopping")
            status, text = get(health, "/readyz")
            assert (status, text[:7]) == (503, "it ends")
            assert get(health, "/livez")[0] == 200
            assert client.answer() == "waited"
        assert running.wait() == 0


def test_trap_d15_ready_when_enough_workers_are(tmp_path: Path) -> None:
    """The second worker waits for a byte before it says that it is ready."""
    source = LINES_APP.replace(
        "    worker.ready()",
        """
    if worker.id == 1:
        print("waiting", flush=True)
        await asyncio.to_thread(open, "gate")
    worker.ready()""",
    )
    os.mkfifo(tmp_path / "gate")
    with cluster(tmp_path, source, min_ready=2, **HEALTH) as running:
        health = health_of(running)
        running.expect("waiting")
        assert get(health, "/readyz")[0] == 503
        with (tmp_path / "gate").open("w"):
            running.expect("serving on")
        assert get(health, "/readyz") == (200, "2 of 2 workers are ready\n")
        (tmp_path / "gate").unlink()
        assert running.stop() == 0


def test_without_workers_it_is_not_ready(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, **HEALTH) as running:
        health = health_of(running)
        address = running.serving()
        broken = LINES_APP + "\nraise ValueError('broken')\n"
        (tmp_path / "app.py").write_text(broken)
        os.kill(workers_of(address, 1)[0], signal.SIGKILL)
        running.expect("broken")
        assert get(health, "/readyz") == (503, "0 of 1 workers are ready\n")
        assert get(health, "/livez")[0] == 200
        assert running.stop() == 0


def test_a_path_and_a_port_in_use(tmp_path: Path) -> None:
    path = tmp_path / "health"
    with cluster(tmp_path, workers=1, health_bind=f"unix:{path}") as running:
        assert re.search(re.escape(str(path)), running.expect("health at.*")[0])
        assert get(str(path), "/livez") == (200, "alive\n")
        running.serving()
        assert running.stop() == 0
        assert not path.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with cluster(tmp_path, workers=1, bind=f"unix:{path}", health_bind=bind) as running:
            assert running.wait() == 1
            assert f"cannot listen on tcp://{bind}" in running.rest()
            assert not path.exists()
