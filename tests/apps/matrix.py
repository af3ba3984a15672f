"""Write docs/apps.md: every application of tests/apps on asyncio, hoop and uvloop. `python tests/apps/matrix.py`.

It runs the tests once with the Python that runs it, which has to have uvloop, and writes down what came of it.
"""

from __future__ import annotations

import collections
import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "apps.md"
LOOPS = ("asyncio", "hoop", "uvloop")

# Module: the packages whose versions are told, and what is done with them.
ROWS: dict[str, tuple[tuple[str, ...], str]] = {
    "test_aiohttp": (("aiohttp",), "server and client: bodies, streaming, WebSockets, cancellation, shutdown"),
    "test_aioquic": (("aioquic",), "HTTP/3 server and client over UDP: retry, 0-RTT, resets, a client that moves"),
    "test_asyncpg": (("asyncpg",), "PostgreSQL by UNIX socket, TCP and TLS: COPY, NOTIFY, cancelling, pool"),
    "test_asyncssh": (("asyncssh",), "SSH server and client: SFTP, subprocesses through a channel, tunnels"),
    "test_grpc": (("grpcio",), "grpc.aio server and client: all four kinds of call, deadlines, cancelling"),
    "test_hypercorn": (("hypercorn", "h2"), "HTTP/2 over TLS to httpx: many streams, flow control"),
    "test_nginx": (("aiohttp", "httpx"), "nginx over TLS, HTTP/1.1 and HTTP/2: 50 MB each way, checksums"),
    "test_prefork": (("uvicorn", "gunicorn"), "several workers on one listener; SIGTERM under keep-alive load"),
    "test_redis": (("redis",), "redis-server: pipelines, publish and subscribe, blocking calls, pool"),
    "test_tls_in_tls": (("aiohttp", "httpx"), "TLS in TLS: through an HTTPS proxy to an HTTPS origin"),
    "test_uvicorn": (("uvicorn", "httptools"), "httptools, slow and rude clients, shutdown, command line"),
    "test_websockets": (("websockets",), "a thousand clients, backpressure, lost connections"),
}
NO_ROW = {  # these have no loop to choose
    *("test_recipes", "test_matrix", "test_balancers", "test_drained_uvicorn", "test_examples"),
    *(f"test_cluster_{name}" for name in ("chat", "haproxy", "nginx", "pod", "systemd")),
}

HEAD = """\
# Applications on hoop

What `tests/apps` runs: each body of a test on every loop, against real servers from Debian where the row names one.
Cells are tests passed. CI runs the columns asyncio and hoop, where one failure is a red build; this page is written by
`python tests/apps/matrix.py`, which runs uvloop beside them.
"""


class Tally:
    """What came of one module's tests on one loop."""

    def __init__(self) -> None:
        self.passed = 0
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def __str__(self) -> str:
        total = self.passed + len(self.failed)
        return str(self.passed) if not self.failed else f"{self.passed} of {total}"


def run_tests() -> tuple[dict[tuple[str, str], Tally], list[str]]:
    """The tally of each (module, loop), and how the requests were shared among workers."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        modules = [str(HERE / f"{name}.py") for name in ROWS]
        options = ["-q", "--timeout", "120", "-p", "no:cacheprovider"]
        options += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
        environment = {**os.environ, "HOOP_TEST_LOOPS": ",".join(LOOPS)}
        command = [sys.executable, "-m", "pytest", *options, *modules]
        subprocess.run(command, env=environment, cwd=HERE.parents[1], check=False)
        root = xml.etree.ElementTree.parse(report).getroot()
    tallies: dict[tuple[str, str], Tally] = collections.defaultdict(Tally)
    shares = []
    for case in root.iter("testcase"):
        module = case.get("classname", "").rsplit(".", 1)[-1]
        name = case.get("name", "")
        parameters = re.split(r"[\[\]-]", name)
        loop = next((loop for loop in LOOPS if loop in parameters), None)
        if loop is None:
            continue
        tally = tallies[module, loop]
        problem = next((part for kind in ("failure", "error") if (part := case.find(kind)) is not None), None)
        if problem is not None:
            tally.failed.append(f"{name}: {(problem.get('message') or '').splitlines()[0][:120]}")
        elif (skipped := case.find("skipped")) is not None:
            tally.skipped.append(f"{name}: {skipped.get('message')}")
        else:
            tally.passed += 1
        for told in case.iter("property"):
            if told.get("name") == "share":
                server = next(word for word in ("uvicorn", "gunicorn") if word in parameters)
                shares.append(f"| {server} | {loop} | {told.get('value')} |")
    return tallies, sorted(shares)


def program_versions() -> str:
    told = []
    for command in (["postgres", "--version"], ["redis-server", "--version"], ["nginx", "-v"]):
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
        found = re.search(r"(\d+\.\d+(\.\d+)?)", done.stdout + done.stderr)
        assert found is not None, done
        told.append(f"{command[0]} {found[1]}")
    return ", ".join(told)


def page(tallies: dict[tuple[str, str], Tally], shares: list[str]) -> str:
    system = f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}"
    lines = [HEAD, f"This run: {system}, uvloop {version('uvloop')}, {program_versions()}.", ""]
    lines += [f"| Test | Packages | What | {' | '.join(LOOPS)} |", "|---|---|---|" + "---|" * len(LOOPS)]
    for module, (packages, what) in ROWS.items():
        versions = ", ".join(f"{package} {version(package)}" for package in packages)
        cells = " | ".join(str(tallies[module, loop]) for loop in LOOPS)
        lines.append(f"| `{module}` | {versions} | {what} | {cells} |")
    for title, kind in (("Failed", "failed"), ("Skipped", "skipped")):
        told = [f"- {line}" for _, tally in sorted(tallies.items()) for line in getattr(tally, kind)]
        if told:
            lines += ["", f"{title}:", "", *told]
    lines += ["", "## Shares of two workers", ""]
    lines += ["Requests of 600, each on a new connection, 32 at once; the client needs a core for itself.", ""]
    lines += ["| Server | Loop | Requests of each worker |", "|---|---|---|", *shares]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(*run_tests()))
