"""A cluster as a service of systemd; the test is the manager. (sd_notify(3), sd_listen_fds(3), systemd.socket(5))"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_process import LIMIT_S, Cluster, ask_once
from free_ports import free_ports
from server_process import STARTING_S

pytestmark = pytest.mark.once  # as all of tests/cluster

if sys.platform != "linux":
    pytest.skip("systemd is of Linux", allow_module_level=True)

Start = Callable[..., Cluster]
WORKERS = 2
# LISTEN_PID has to be the process that is executed.
ACTIVATION = """\
import os, sys

os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """The manager's socket, as the variable NOTIFY_SOCKET names it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(LIMIT_S)

    def told(self) -> dict[str, str]:
        """The next message."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_for(self, name: str) -> dict[str, str]:
        """The next message with that assignment; none before it may have to do with the state."""
        deadline = time.monotonic() + LIMIT_S
        while name not in (message := self.told()):
            assert message.keys() <= {"WATCHDOG", "STATUS", "EXTEND_TIMEOUT_USEC"}, message
            assert time.monotonic() < deadline, f"{name} did not come"
        return message


@pytest.fixture(params=["path", "abstract"])
def manager(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Manager]:
    address = f"@hoop-{os.getpid()}-{os.urandom(4).hex()}" if request.param == "abstract" else str(tmp_path / "notify")
    made = Manager(address)
    with made.socket:
        yield made


def test_d16_a_service_from_its_start_to_its_end(cluster: Start, manager: Manager) -> None:
    """READY when the workers are, RELOADING with the time of it, WATCHDOG, STOPPING; workers know no manager."""
    port = free_ports(1)
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    served = cluster(f"workers={WORKERS}, bind='127.0.0.1:{port}'", environment=environment)
    assert manager.wait_for("READY")["READY"] == "1"

    async def workers(generation: int) -> set[int]:
        pids: set[int] = set()
        while len(pids) < WORKERS:
            answer = await ask_once(port)
            assert answer.generation == generation
            assert not answer.knows_manager
            pids.add(answer.pid)
        return pids

    async def reload() -> None:
        old = await workers(1)
        for _ in range(3):
            assert manager.wait_for("WATCHDOG")["WATCHDOG"] == "1"
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        ended = asyncio.ensure_future(served.reload(old))
        reloading = await asyncio.to_thread(manager.wait_for, "RELOADING")
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert before <= int(reloading["MONOTONIC_USEC"]) <= after
        assert (await asyncio.to_thread(manager.wait_for, "READY"))["READY"] == "1"
        await ended
        await workers(2)

    asyncio.run(reload())
    served.send(signal.SIGTERM)
    assert manager.wait_for("STOPPING")["STOPPING"] == "1"
    assert served.process.wait(STARTING_S) == 0


def test_the_manager_makes_the_socket(cluster: Start) -> None:
    """Socket activation: the queue is the manager's, so that a restart of the whole service refuses nobody."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        prefix = (sys.executable, "-c", ACTIVATION, str(listener.fileno()))
        passed = {"prefix": prefix, "pass_fds": [listener.fileno()]}
        first = cluster(f"workers={WORKERS}", **passed)
        answer = asyncio.run(ask_once(port))
        assert answer.generation == 1
        assert first.stop() == 0, first.text
        with socket.create_connection(("127.0.0.1", port), STARTING_S) as early:
            early.sendall(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
            cluster(f"workers={WORKERS}", **passed)
            assert early.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
