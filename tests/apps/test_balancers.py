"""uvicorn on hoop behind HAProxy and nginx, as docs/proxy_protocol.md has it: the application sees the client.

The files are the blocks of that page, with other ports, and so is the command.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import hoop
import pytest
from free_ports import free_port
from server_process import STARTING_S, ServerProcess, wait_for_listener

pytestmark = pytest.mark.once  # as all of tests/cluster

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "proxy_protocol.md").read_text()
(APPLICATION,) = re.findall(r"^```python no-run\n# app\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(COMMAND,) = re.findall(r"^```sh\npython (.*)\n```$", PAGE, re.MULTILINE)
(HAPROXY,) = re.findall(r"^```haproxy\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(NGINX,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

STATISTICS = "\nfrontend statistics\n    mode http\n    bind 127.0.0.1:{port}\n    stats enable\n    stats uri /stats\n"
CLIENT = "127.0.0.77"  # Linux: all of 127.0.0.0/8 is here
NGINX_BEGINNING = """\
{module}
daemon off;
pid nginx.pid;
error_log stderr info;
{user}
worker_processes 1;
events {{ worker_connections 512; }}
"""

Program = Callable[..., Path]


@pytest.fixture
def application(tmp_path: Path) -> Iterator[tuple[ServerProcess, int]]:
    """uvicorn with the page's application, and its port."""
    (tmp_path / "app.py").write_text(APPLICATION)
    command = [sys.executable, *shlex.split(COMMAND.replace("8000", "0")), "--workers", "1"]
    package = str(Path(hoop.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "PYTHONUNBUFFERED": "1"}
    with ServerProcess(command, cwd=tmp_path, env=environment) as server:
        (found,) = server.wait_for(r"running on http://127\.0\.0\.1:([1-9]\d*)")
        yield server, int(found[1])
    assert "Traceback" not in server.text, server.text


def answer_of(port: int, source: str = CLIENT, count: int = 1) -> bytes:
    """What a client gets that connects from source, for the last of its requests on one connection."""
    with socket.create_connection(("127.0.0.1", port), STARTING_S, source_address=(source, 0)) as sock:
        with sock.makefile("rb") as answers:
            for _ in range(count):
                sock.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                while (line := answers.readline()) != b"\r\n":
                    assert line
                body = b""
                while size := int(answers.readline(), 16):
                    body += answers.read(size)
                    answers.readline()
                answers.readline()
    return body


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no addresses of the loopback but one")
@pytest.mark.parametrize("sending", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_haproxy(tmp_path: Path, program: Program, application: tuple[ServerProcess, int], sending: str) -> None:
    binary = program("haproxy", debian_package="haproxy")
    server, backend = application
    front, statistics = free_port(), free_port()
    page = HAPROXY.replace("8080", str(front)).replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    page = page.replace("send-proxy-v2", sending).replace("mode tcp", "mode tcp\n    unique-id-format %ci:%cp")
    (tmp_path / "haproxy.cfg").write_text(page + STATISTICS.format(port=statistics))
    with ServerProcess([binary, "-db", "-f", tmp_path / "haproxy.cfg"]) as balancer:
        wait_for_listener(front)
        for number in range(2, 20):
            assert answer_of(front, f"127.0.0.{number}", count=3) == b"you are 127.0.0.%d\n" % number
        state = state_of(statistics)
        assert (state["status"], state["check_status"]) == ("UP", "L4OK")  # the check sends LOCAL
        assert (state["econ"], state["eresp"], state["chkfail"], state["chkdown"]) == ("0",) * 4
    assert "PROXY protocol" not in server.text, server.text
    assert balancer.process.returncode in (0, 143, -15)


def state_of(port: int) -> dict[str, str]:
    """What HAProxy thinks of the server."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/stats;csv", timeout=STARTING_S) as answer:
        names, *rows = (line.split(",") for line in answer.read().decode().lstrip("# ").splitlines())
    (row,) = [row for row in rows if row[:2] == ["applications", "one"]]
    return dict(zip(names, row, strict=False))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no addresses of the loopback but one")
def test_nginx(tmp_path: Path, program: Program, application: tuple[ServerProcess, int]) -> None:
    binary = program("nginx", debian_package="nginx")
    front = free_port()
    _, backend = application
    user = "user root;" if os.geteuid() == 0 else ""
    page = NGINX.replace("8080", str(front)).replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    (tmp_path / "nginx.conf").write_text(NGINX_BEGINNING.format(module=stream_module(), user=user) + page)
    with ServerProcess(
        [binary, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"], cwd=tmp_path
    ) as balancer:
        wait_for_listener(front)
        for number in range(2, 20):
            assert answer_of(front, f"127.0.0.{number}", count=3) == b"you are 127.0.0.%d\n" % number
    assert "[emerg]" not in balancer.text, balancer.text


def stream_module() -> str:
    """The directive that loads it, where it is a package of its own."""
    for folder in ("/usr/lib/nginx/modules", "/usr/share/nginx/modules"):
        path = Path(folder) / "ngx_stream_module.so"
        if path.exists():
            return f"load_module {path};"
    if os.environ.get("CI"):
        pytest.fail("nginx has no stream module (CI is set, so this is not skipped)", pytrace=False)
    pytest.skip("nginx has no stream module (Debian and Ubuntu: apt-get install libnginx-mod-stream)")


def test_a_client_that_comes_around_the_balancer_is_refused(application: tuple[ServerProcess, int]) -> None:
    server, backend = application
    with socket.create_connection(("127.0.0.1", backend), STARTING_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    server.wait_for("PROXY protocol: closed a connection from .*: no PROXY header")
