"""The examples that need other packages or programs, each started as its first lines say."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from free_ports import free_port, free_ports
from server_process import ServerProcess, wait_for_listener

if sys.platform != "linux":
    pytest.skip("the cluster's tests are of Linux", allow_module_level=True)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT_S = 60.0
WORKERS = 2

Program = Callable[..., Path]


class Example(ServerProcess):
    def __init__(self, name: str, *arguments: object, **environment: str) -> None:
        path = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
        super().__init__(command, env={**os.environ, "PYTHONPATH": path, **environment})


def ask(port: int, path: str = "/") -> str:
    """By a connection of its own, so that any worker may answer."""
    with httpx.Client(timeout=LIMIT_S, trust_env=False) as client:
        return client.get(f"http://127.0.0.1:{port}{path}").text


def pids(port: int, requests: int = 20) -> set[int]:
    found = [re.search(r"process (\d+)", ask(port)) for _ in range(requests)]
    return {int(one[1]) for one in found if one is not None}


def test_clustered_web_server() -> None:
    """20 requests are answered by as many processes as there are workers, also after one has died."""
    port = free_port()
    with Example("clustered_web_server.py", port, WORKERS) as server:
        assert server.find("serving on") is not None, server.text
        first = pids(port)
        assert len(first) == WORKERS
        with pytest.raises(httpx.RemoteProtocolError):
            ask(port, "/crash")
        assert server.find("ready after", WORKERS + 1) is not None, server.text
        second = pids(port)
        assert len(second) == WORKERS
        assert len(first & second) == WORKERS - 1
        assert server.stop() == 0, server.text


@pytest.fixture
def redis_port(tmp_path: Path, program: Program) -> Iterator[int]:
    binary, port = program("redis-server", debian_package="redis-server"), free_port()
    with ServerProcess([binary, "--port", str(port), "--save", "", "--dir", tmp_path]):
        wait_for_listener(port)
        yield port


def test_counter(redis_port: int) -> None:
    """Every number comes once, whichever worker answers."""
    port = free_port()
    with Example("counter.py", port, redis_port) as server:
        assert server.find("serving on") is not None, server.text
        answers = [re.fullmatch(r"visitor (\d+), answered by worker (\d)\n", ask(port)) for _ in range(20)]
        assert [int(answer[1]) for answer in answers if answer is not None] == list(range(1, 21))
        assert {answer[2] for answer in answers if answer is not None} == {"0", "1"}
        assert server.stop() == 0, server.text


def test_worker_metrics() -> None:
    """Each slot has its port, and the next worker in it takes it over; the master adds up."""
    pytest.importorskip("prometheus_client")
    port, first = free_port(), free_ports(WORKERS + 1)

    def lines(port: int) -> float:
        with httpx.Client(timeout=LIMIT_S, trust_env=False) as client:
            text = client.get(f"http://127.0.0.1:{port}/metrics").text
        assert "hoop_eventloop_turns_total" in text
        return float(re.findall(r"^lines_total (\S+)$", text, re.MULTILINE)[0])

    with Example("worker_metrics.py", port, first) as server:
        assert server.find("serving on") is not None, server.text
        wait_for_listener(first)
        wait_for_listener(first + 1)
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
            client.sendall(b"a\n")
            assert client.recv(10) == b"a\n"
        assert lines(first) + lines(first + 1) == 1
        assert "hoop_cluster_workers" in ask(first + WORKERS, "/metrics")
        server.process.send_signal(signal.SIGHUP)
        assert server.find("exited with status 0", 2) is not None, server.text
        wait_for_listener(first)
        assert lines(first) == 0
        assert server.stop() == 0, server.text


def test_echo_server() -> None:
    with Example("echo_server.py", 0) as server:
        found = server.find(r"listening on port (\d+)")
        assert found is not None, server.text
        address = ("127.0.0.1", int(found[0][1]))
        with socket.create_connection(address, LIMIT_S) as client:
            client.sendall(b"one\ntwo\n")
            answer = b""
            while len(answer) < 8:
                answer += client.recv(100)
            assert answer == b"one\ntwo\n"
            server.process.send_signal(signal.SIGTERM)
            assert client.recv(100) == b""
        assert server.process.wait(LIMIT_S) == 0
    assert "1 connections were accepted, 0 refused" in server.text


def test_thread_pool_size() -> None:
    with Example("thread_pool_size.py", HOOP_THREADPOOL_SIZE="3") as program:
        assert program.process.wait(LIMIT_S) == 0, program.text
    assert "8,000,000 bytes, by 3 threads of at most 3" in program.text
    assert program.text.count("key ") == 8
