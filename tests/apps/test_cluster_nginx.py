"""nginx in front of a cluster: PROXY protocol from its stream module, HTTP with kept connections, sticky by a hash."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_process import Cluster, Load, ask_once, workers_at
from free_ports import free_ports
from missing import fail_or_skip
from server_process import ServerProcess, wait_for_listener

pytestmark = pytest.mark.once  # as all of tests/cluster

if sys.platform != "linux":
    pytest.skip("other systems have neither pidfds nor all addresses of 127.0.0.0/8", allow_module_level=True)

Program = Callable[..., Path]
Start = Callable[..., Cluster]

WORKERS = 2
RELOADS = 3
SESSIONS = 24
DRAIN = "drain=hoop.Drain(idle_grace=0.2, timeout=10)"
MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules")
BEGINNING = """\
{module}
daemon off;
pid nginx.pid;
error_log stderr warn;
{user}
worker_processes 1;
events {{ worker_connections 512; }}
"""
STREAM = """\
stream {{
    server {{
        listen 127.0.0.1:{front};
        proxy_pass 127.0.0.1:{port};
        proxy_protocol on;
    }}
}}
"""
# `proxy_next_upstream off`: what the cluster does not answer is an error, and not hidden by a second attempt.
HTTP = """\
http {{
    access_log off;
    client_body_temp_path bodies;
    proxy_temp_path proxied;
    fastcgi_temp_path unused-fastcgi;
    uwsgi_temp_path unused-uwsgi;
    scgi_temp_path unused-scgi;
    keepalive_requests 100000;
    upstream applications {{
        {choice}
        {servers}
        keepalive 16;
        keepalive_requests 100000;
    }}
    server {{
        listen 127.0.0.1:{front};
        location / {{
            proxy_pass http://applications;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
            add_header X-Upstream $upstream_addr always;
        }}
    }}
}}
"""


@pytest.fixture
def nginx(tmp_path: Path, program: Program) -> Iterator[Callable[..., int]]:
    """`nginx(configuration)`: the port where it listens, once it does; the configuration has it as {front}."""
    binary = program("nginx", debian_package="nginx")
    running: list[ServerProcess] = []

    def start(configuration: str, **values: object) -> int:
        front = free_ports(1)
        module = f"load_module {stream_module()};" if configuration is STREAM else ""
        user = "user root;" if os.geteuid() == 0 else ""
        text = BEGINNING.format(module=module, user=user) + configuration.format(front=front, **values)
        (tmp_path / "nginx.conf").write_text(text)
        command = [binary, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"]
        running.append(ServerProcess(command, cwd=tmp_path))
        wait_for_listener(front)
        return front

    yield start
    for server in running:
        server.stop()
        assert not [word for word in ("[emerg]", "[alert]", "[error]") if word in server.text], server.text


def stream_module() -> Path:
    found = [path for folder in MODULES if (path := Path(folder) / "ngx_stream_module.so").exists()]
    if found:
        return found[0]
    return fail_or_skip("nginx has no stream module (Debian and Ubuntu: apt-get install libnginx-mod-stream)")


async def reloads_under_load(served: Cluster, front: int, port: int) -> None:
    """Three reloads; nobody in front of nginx may notice any. `port`: where new connections come to all workers."""
    async with Load(front, 8) as kept, Load(front, 4, fresh=True) as opened:
        for _ in range(RELOADS):
            await served.reload(await workers_at(port, WORKERS))
        await kept.more(100)
        await opened.more(100)
    assert max(kept.generations.values()) == max(opened.generations.values()) == RELOADS + 1
    assert not kept.errors and not opened.errors, (kept.errors, opened.errors)


def test_proxy_protocol_from_the_stream_module(cluster: Start, nginx: Callable[..., int]) -> None:
    """nginx passes on bytes; the application sees the client, and reloads cost no client of nginx an answer."""
    port = free_ports(1)
    trusting = "hoop.ProxyProtocol(trusted=['127.0.0.1'])"
    served = cluster(f"workers={WORKERS}, bind='127.0.0.1:{port}', proxy_protocol={trusting}, {DRAIN}")
    wait_for_listener(port)
    front = nginx(STREAM, port=port)

    async def main() -> None:
        for number in range(2, 10):
            assert (await ask_once(front, source=f"127.0.0.{number}")).client == f"127.0.0.{number}"
        await reloads_under_load(served, front, front)

    asyncio.run(main())


def test_http_over_kept_connections(cluster: Start, nginx: Callable[..., int]) -> None:
    """nginx uses a connection for many clients' requests: a worker that goes must not take one with it."""
    port = free_ports(1)
    served = cluster(f"workers={WORKERS}, bind='127.0.0.1:{port}', {DRAIN}")
    wait_for_listener(port)
    front = nginx(HTTP, choice="", servers=f"server 127.0.0.1:{port} max_fails=0;")
    asyncio.run(reloads_under_load(served, front, port))


def test_sticky_by_a_hash_over_a_port_for_each_worker(cluster: Start, nginx: Callable[..., int]) -> None:
    """A session comes to one worker's slot, also when the worker has been replaced."""
    port = free_ports(WORKERS)
    served = cluster(f"workers={WORKERS}, bind='127.0.0.1:{port}', balance='port_per_worker', {DRAIN}")
    for slot in range(WORKERS):
        wait_for_listener(port + slot)
    servers = "\n        ".join(f"server 127.0.0.1:{port + slot};" for slot in range(WORKERS))
    front = nginx(HTTP, choice="hash $arg_session consistent;", servers=servers)

    async def main() -> None:
        async def slots() -> list[int]:
            answers = [await ask_once(front, f"/?session={number}") for number in range(SESSIONS)]
            assert [answer.fields["x-upstream"] for answer in answers] == [
                f"127.0.0.1:{port + answer.worker}" for answer in answers
            ]
            workers.update(answer.pid for answer in answers)
            return [answer.worker for answer in answers]

        workers: set[int] = set()
        before = await slots()
        assert set(before) == set(range(WORKERS))
        assert await slots() == before
        assert len(workers) == WORKERS
        await served.reload(set(workers))
        assert await slots() == before
        assert len(workers) == 2 * WORKERS

    asyncio.run(main())
