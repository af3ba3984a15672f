"""HAProxy in front of a cluster: health checks, PROXY protocol, stickiness by cookie, reloads that it never sees."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_process import Cluster, Load, ask, ask_once, connection, workers_at
from free_ports import free_ports
from server_process import STARTING_S, ServerProcess, wait_for_listener

pytestmark = pytest.mark.once  # as all of tests/cluster

if sys.platform != "linux":
    pytest.skip("other systems have neither pidfds nor all addresses of 127.0.0.0/8", allow_module_level=True)

Program = Callable[..., Path]
Start = Callable[..., Cluster]

WORKERS = 2
RELOADS = 3
CHECKED = """\
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 500ms fastinter 50ms downinter 50ms fall 2 rise 1
"""  # inter is also what a check may take to connect: HAProxy itself may have no processor for that long
CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout check 20s
    timeout server 60s
    timeout http-keep-alive 60s
    retries 0

frontend public
    bind 127.0.0.1:{front}
    default_backend applications

backend applications
{backend}
frontend statistics
    bind 127.0.0.1:{statistics}
    stats enable
    stats uri /stats
"""


class Balancer(ServerProcess):
    """HAProxy with a backend of our own, without a retry: what a server refuses is an error."""

    def __init__(self, binary: Path, folder: Path, backend: str) -> None:
        self.port = free_ports(2)
        file = folder / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(front=self.port, statistics=self.port + 1, backend=backend))
        super().__init__([binary, "-db", "-f", file])
        wait_for_listener(self.port)

    def server(self, name: str) -> dict[str, str]:
        """What HAProxy has counted of a server."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port + 1}/stats;csv", timeout=STARTING_S) as answer:
            names, *rows = (line.split(",") for line in answer.read().decode().lstrip("# ").splitlines())
        (row,) = [row for row in rows if row[:2] == ["applications", name]]
        return dict(zip(names, row, strict=False))

    async def state(self, name: str, wanted: str) -> None:
        """Return once the server is in that state; HAProxy says each change."""
        found = await asyncio.to_thread(self.find, rf"Server applications/{name} is {wanted}")
        assert found is not None, self.text


@pytest.fixture
def balancer(tmp_path: Path, program: Program) -> Iterator[Callable[[str], Balancer]]:
    """`balancer(lines of its backend)`: HAProxy, running."""
    binary = program("haproxy", debian_package="haproxy")
    with contextlib.ExitStack() as running:
        yield lambda backend: running.enter_context(Balancer(binary, tmp_path, backend))


@pytest.mark.parametrize("sending", ["", "send-proxy check-send-proxy", "send-proxy-v2 check-send-proxy"])
def test_the_backend_is_never_down_over_reloads(
    cluster: Start, balancer: Callable[[str], Balancer], sending: str
) -> None:
    """Nor does it see an error, though it keeps connections to workers that are replaced, and retries nothing."""
    port = free_ports(1)
    trusting = "hoop.ProxyProtocol(trusted=['127.0.0.1'])" if sending else "None"
    course = "hoop.Drain(idle_grace=0.2, timeout=10)"
    served = cluster(f"workers={WORKERS}, bind='127.0.0.1:{port}', proxy_protocol={trusting}, drain={course}")
    wait_for_listener(port)
    haproxy = balancer(f"{CHECKED}    http-reuse safe\n    server one 127.0.0.1:{port} {sending}\n")

    async def main() -> None:
        async with Load(haproxy.port, 8) as kept, Load(haproxy.port, 4, fresh=True) as opened:
            for generation in range(1, RELOADS + 1):
                # HAProxy shares its connections among clients, unless each begins with a client's address.
                workers = opened.workers(WORKERS, generation) if sending else workers_at(port, WORKERS)
                await served.reload(await workers)
            await kept.more(100)
            await opened.more(100)
        assert not kept.errors and not opened.errors, (kept.errors, opened.errors)
        if sending:
            answer = await ask_once(haproxy.port, source="127.0.0.77")
            assert answer.client == "127.0.0.77"

    asyncio.run(main())
    state = haproxy.server("one")
    assert (state["status"], state["check_status"].removeprefix("* ")) == ("UP", "L7OK")  # *: one is under way
    for name in ("econ", "eresp", "wretr", "wredis", "chkfail", "chkdown", "hrsp_5xx"):
        assert state[name] == "0", (name, state, haproxy.text)
    assert "is DOWN" not in haproxy.text


def test_sticky_by_cookie_over_a_port_for_each_worker(cluster: Start, balancer: Callable[[str], Balancer]) -> None:
    """A client with the cookie comes to its worker's slot, also when the worker has been replaced."""
    port = free_ports(WORKERS)
    served = cluster(f"workers={WORKERS}, bind='127.0.0.1:{port}', balance='port_per_worker'")
    for slot in range(WORKERS):
        wait_for_listener(port + slot)
    servers = "".join(f"    server s{slot} 127.0.0.1:{port + slot} cookie s{slot}\n" for slot in range(WORKERS))
    haproxy = balancer(f"{CHECKED}    balance roundrobin\n    cookie SLOT insert indirect nocache\n{servers}")

    async def main() -> None:
        first = [await ask_once(haproxy.port) for _ in range(2 * WORKERS)]
        assert {answer.worker for answer in first} == set(range(WORKERS))
        cookies = [answer.fields["set-cookie"].partition(";")[0] for answer in first]
        assert cookies == [f"SLOT=s{answer.worker}" for answer in first]
        for _ in range(2):
            for answer, cookie in zip(first, cookies, strict=True):
                again = [await ask_once(haproxy.port, cookie=cookie) for _ in range(3)]
                assert {one.worker for one in again} == {answer.worker}
                assert not any("set-cookie" in one.fields for one in again)
            if served.generation == 1:
                await served.reload({answer.pid for answer in first})
        assert again[-1].generation == 2

    asyncio.run(main())
    assert [haproxy.server(f"s{slot}")["chkdown"] for slot in range(WORKERS)] == ["0"] * WORKERS


def test_a_balancer_sees_the_drain_and_goes_to_another(cluster: Start, balancer: Callable[[str], Balancer]) -> None:
    """SIGTERM to one of two clusters: its readiness fails while it serves on, HAProxy takes it out, nobody notices."""
    ports = [free_ports(1), free_ports(1)]
    both = [
        cluster(f"workers=1, bind='127.0.0.1:{port}', drain=hoop.Drain(delay=2, idle_grace=0.2, timeout=10)")
        for port in ports
    ]
    for port in ports:
        wait_for_listener(port)
    servers = "".join(f"    server s{number} 127.0.0.1:{port}\n" for number, port in enumerate(ports))
    haproxy = balancer(f"{CHECKED}    balance roundrobin\n{servers}")

    async def main() -> None:
        async with Load(haproxy.port, 8) as kept, Load(haproxy.port, 4, fresh=True) as opened:
            workers = await opened.workers(2)
            both[0].send(signal.SIGTERM)
            await haproxy.state("s0", "DOWN")
            async with connection(ports[0]) as (reader, writer):
                late = await ask(reader, writer)
                assert late.pid in workers and late.closes
            status = await asyncio.to_thread(both[0].process.wait, STARTING_S)
            assert status == 0, both[0].text
            await kept.more(100)
            await opened.more(100)
        assert not kept.errors and not opened.errors, (kept.errors, opened.errors)

    asyncio.run(main())
    assert haproxy.server("s1")["chkdown"] == "0"
