"""The rows of the table: each is a deploy or an accident, done to one server, and returns what came of it."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.processes import ChildFailed, running
from bench.serving.clients import REQUEST
from bench.serving.servers import ANSWER_S, HOOP, ServerKind, Serving, children_of, parsed, serving

RELOADS_AT_S = (1.0, 4.5, 8.0)
LOAD_S = 12.0
WORKERS = 2
MANY_RELOADS = 10
RELOADED_WITHIN_S = 20.0
BROKEN_S = 15.0  # a broken deploy is watched for
KILL_AFTER_S = 1.5
KILL_LOAD_S = 6.0
BLOCK_WATCHED_S = 45.0
SHARE_CONNECTIONS = 2048
SHARE_WORKERS = (2, 4, 16)
WAVE = 64
POLL_S = 0.001

Measured = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table. `only` names the servers that it is for; none stands for all."""

    name: str
    title: str
    measure: Callable[[ServerKind], Measured]
    needs: str | None = None  # a program
    only: tuple[str, ...] = ()
    is_idle: bool = False  # several servers may be measured side by side


# ---- reload under load -----------------------------------------------------------------------------------------------


def client_command(port: int, *options: object) -> list[str]:
    """A process of bench.serving.clients."""
    return [sys.executable, "-m", "bench.serving.clients", "--port", str(port), *map(str, options)]


def wrk_command(port: int, connections: int, seconds: float) -> list[str]:
    return ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", f"http://127.0.0.1:{port}/"]


def _reloads(server: Serving) -> None:
    """Reload at the times of RELOADS_AT_S."""
    begun = time.monotonic()
    for at_s in RELOADS_AT_S:
        time.sleep(max(0.0, begun + at_s - time.monotonic()))
        server.reload()


def _last_generation(server: Serving) -> int:
    """What a new connection is answered by at the end."""
    answer = server.ask()
    return answer[1] if answer else 0


def reload_with_clients(*options: object) -> Callable[[ServerKind], Measured]:
    """A row: three reloads while clients of bench.serving.clients ask."""

    def measure(kind: ServerKind) -> Measured:
        with serving(kind, WORKERS) as server:
            command = client_command(server.port, "--seconds", LOAD_S, *options)
            with running(command) as clients:
                _reloads(server)
                report = clients.read_json(LOAD_S + 2 * ANSWER_S)
            return {**report, "generation": _last_generation(server)}

    return measure


def reload_with_wrk(kind: ServerKind) -> Measured:
    """Three reloads under wrk."""
    with serving(kind, WORKERS) as server:
        with wrk(server.port, 64, LOAD_S) as report:
            _reloads(server)
        return {**report, "generation": _last_generation(server)}


@contextlib.contextmanager
def wrk(port: int, connections: int, seconds: float) -> Iterator[Measured]:
    """wrk beside the block; what it counted is in the dictionary afterwards."""
    report: Measured = {}
    with subprocess.Popen(wrk_command(port, connections, seconds), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield report
            text, _ = process.communicate(timeout=seconds + 2 * ANSWER_S)
        finally:
            process.kill()
    report.update(wrk_report(text))


def wrk_report(text: str) -> Measured:
    """What wrk prints, as numbers; "failed" is every error and every answer that is not 200."""
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    counts = [int(count) for count in errors.groups()] if errors else [0] * 4
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    answered = re.search(r"(\d+) requests in", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if answered is None or p99 is None:
        raise ChildFailed(f"wrk said {text[-200:]!r}")
    not_200 = int(other[1]) if other else 0
    return {
        "answered": int(answered[1]),
        "failed": sum(counts) + not_200,
        **dict(zip(("connect", "read", "write", "timeout"), counts, strict=True)),
        "not_200": not_200,
        "p99_ms": round(float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]], 2),
    }


def ten_reloads(kind: ServerKind) -> Measured:
    """Reloads one after another, each whole, under wrk and clients with a new connection each time."""
    seconds = MANY_RELOADS * 5.0
    with serving(kind, WORKERS) as server:
        steady = _both_loads(server, 5.0, lambda: None)
        reloaded_ms: list[float] = []

        def reload_all() -> None:
            reloaded_ms.extend(_reload_to_the_end(server) for _ in range(MANY_RELOADS))

        loaded = _both_loads(server, seconds, reload_all)
        longest = max(reloaded_ms)
        return {
            "failed": loaded["wrk"]["failed"] + loaded["fresh"]["failed"],
            "answered": loaded["wrk"]["answered"] + loaded["fresh"]["answered"],
            "p99_ratio": round(loaded["wrk"]["p99_ms"] / steady["wrk"]["p99_ms"], 2),
            "generation": _last_generation(server),
            "longest_reload_ms": longest,
            **loaded,
        }


def _both_loads(server: Serving, seconds: float, during: Callable[[], None]) -> Measured:
    with running(client_command(server.port, "--seconds", seconds, "--connections", 64, "--fresh")) as fresh:
        with wrk(server.port, 64, seconds) as report:
            during()
        return {"wrk": report, "fresh": fresh.read_json(seconds + 2 * ANSWER_S)}


def _reload_to_the_end(server: Serving) -> float:
    """Reload, and wait until no process of the old version is left; the milliseconds that it took."""
    before = children_of(server.process.pid)
    begun = time.monotonic()
    server.reload()
    while before & children_of(server.process.pid):
        if time.monotonic() - begun > RELOADED_WITHIN_S:
            raise ChildFailed(f"a reload was not over after {RELOADED_WITHIN_S:g} s")
        time.sleep(0.01)
    return round((time.monotonic() - begun) * 1000, 1)


# ---- accidents -------------------------------------------------------------------------------------------------------


def broken_deploy(kind: ServerKind) -> Measured:
    """Reload onto code that raises at import; afterwards the code is mended."""
    with serving(kind, WORKERS) as server:
        command = client_command(server.port, "--seconds", BROKEN_S, "--connections", 4, "--fresh", "--think", 0.01)
        with running(command) as clients:
            time.sleep(1.0)
            begun = time.monotonic()
            server.reload(broken=True)
            down_s = _down_after(server, begun, BROKEN_S - 3.0)
            report = clients.read_json(BROKEN_S + 2 * ANSWER_S)
        answer = server.ask()
        mended = None
        if answer is not None:
            server.reload()
            mended = _answers_with(server, server.generation)
        says_why = "broken deploy" in server.log()
        return {**report, "down_after_s": down_s, "serves": answer is not None, "says_why": says_why, "mended": mended}


def _down_after(server: Serving, begun: float, watched_s: float) -> float | None:
    """Seconds until nobody listens; None if somebody does all the time."""
    while (passed := time.monotonic() - begun) < watched_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) != 0:
                return round(passed, 2)
        time.sleep(0.02)
    return None


def _answers_with(server: Serving, generation: int) -> bool:
    """Whether that version comes to serve."""
    deadline = time.monotonic() + RELOADED_WITHIN_S
    while time.monotonic() < deadline:
        answer = server.ask()
        if answer is not None and answer[1] == generation:
            return True
        time.sleep(0.05)
    return False


def killed_worker(kind: ServerKind) -> Measured:
    """SIGKILL to one of two workers, under keep-alive connections and clients with new ones."""
    with serving(kind, WORKERS) as server:
        workers = server.wait_until_up()
        keeping = client_command(server.port, "--seconds", KILL_LOAD_S, "--connections", 16)
        opening = client_command(server.port, "--seconds", KILL_LOAD_S, "--connections", 4, "--fresh")
        with running(keeping) as kept, running(opening) as opened:
            time.sleep(KILL_AFTER_S)
            victim = min(workers)
            forked_ms, serves_ms = _time_to_replacement(server, victim, workers)
            reports = [child.read_json(KILL_LOAD_S + 2 * ANSWER_S) for child in (kept, opened)]
        answer = server.ask()
        elsewhere = sum(
            count for report in reports for pid, count in report["failed_at"].items() if int(pid) not in (victim, 0)
        )
        return {
            "forked_ms": forked_ms,
            "serves_ms": serves_ms,
            "failed": sum(report["failed"] for report in reports),
            "refused": sum(report["refused"] for report in reports),
            "failed_elsewhere": elsewhere,
            "serves": answer is not None,
            "keeping": reports[0],
            "opening": reports[1],
        }


def _time_to_replacement(server: Serving, victim: int, workers: set[int]) -> tuple[float | None, float | None]:
    """Milliseconds from SIGKILL until there is a new process, and until it answers."""
    before = children_of(server.process.pid)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    forked_ms = serves_ms = None
    while (passed := time.monotonic() - killed) < KILL_LOAD_S - KILL_AFTER_S - 1.0:
        if forked_ms is None:
            if children_of(server.process.pid) - before:
                forked_ms = round(passed * 1000, 1)
            elif server.process.poll() is not None:
                break
            time.sleep(POLL_S)
            continue
        answer = server.ask()
        if answer is not None and answer[0] not in workers:
            serves_ms = round((time.monotonic() - killed) * 1000, 1)
            break
        time.sleep(POLL_S)
    return forked_ms, serves_ms


def blocked_loop(kind: ServerKind) -> Measured:
    """One of two workers runs a handler that blocks its loop."""
    with serving(kind, WORKERS) as server, socket.create_connection(("127.0.0.1", server.port), ANSWER_S) as sock:
        sock.sendall(REQUEST)
        blocked = _whose(sock)
        sock.sendall(REQUEST.replace(b"/", b"/block", 1))
        begun = time.monotonic()
        gone_s = replaced_s = None
        while (passed := time.monotonic() - begun) < BLOCK_WATCHED_S:
            alive = blocked in children_of(server.process.pid)
            if not alive and gone_s is None:
                gone_s = round(passed, 1)
            if gone_s is not None and len(_answering(server)) == WORKERS:
                replaced_s = round(time.monotonic() - begun, 1)
                break
            time.sleep(0.05)
        stack = "block_the_loop" in server.log()
        return {"gone_s": gone_s, "replaced_s": replaced_s, "stack": stack, "noticed": gone_s is not None or stack}


def _answering(server: Serving) -> set[int]:
    """The workers that a few new connections are answered by."""
    answers = (server.ask() for _ in range(4 * WORKERS))
    return {answer[0] for answer in answers if answer is not None}


# ---- shares ----------------------------------------------------------------------------------------------------------


def shares(kind: ServerKind) -> Measured:
    """How 2,048 connections are shared out, paced and in waves: the largest share / the mean, by number of workers."""
    found: Measured = {}
    for workers in SHARE_WORKERS:
        with serving(kind, workers) as server:
            found[str(workers)] = {"paced": _share(server, 1, 0.001), "waves": _share(server, WAVE, 0.0)}
    return found


def _share(server: Serving, wave: int, pause_s: float) -> float:
    """Open the connections, `wave` at once, and ask each whose it is."""
    count: collections.Counter[int] = collections.Counter()
    for _ in range(SHARE_CONNECTIONS // wave):
        begun = time.monotonic()
        with contextlib.ExitStack() as opened:
            connections = [opened.enter_context(socket.socket()) for _ in range(wave)]
            for sock in connections:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", server.port))
            for sock in connections:
                sock.settimeout(ANSWER_S)
                sock.sendall(REQUEST)
            for sock in connections:
                count[_whose(sock)] += 1
        time.sleep(max(0.0, begun + pause_s - time.monotonic()))
    return round(max(count.values()) * server.workers / count.total(), 3)


def _whose(sock: socket.socket) -> int:
    answer = b""
    while (found := parsed(answer)) is None:
        data = sock.recv(65536)
        if not data:
            raise ChildFailed(f"no answer on a new connection but {answer[:80]!r}")
        answer += data
    return found[0]


ROWS = {
    row.name: row
    for row in (
        Row("reload-wrk", "`wrk -c64`, keep-alive: errors", reload_with_wrk, needs="wrk"),
        Row(
            "reload-keep-alive",
            "16 keep-alive connections: failed requests",
            reload_with_clients("--connections", 16),
        ),
        Row(
            "reload-fresh",
            "16 clients, a new connection each time: failed",
            reload_with_clients("--connections", 16, "--fresh"),
        ),
        Row(
            "reload-thinking",
            "64 keep-alive clients that think for 0.3 s: failed",
            reload_with_clients("--connections", 64, "--think", 0.3),
        ),
        Row(
            "ten-reloads",
            "ten reloads, `wrk -c64` and 64 clients with new connections: failed",
            ten_reloads,
            needs="wrk",
            only=(HOOP,),
        ),
        Row("broken", "reload onto code that fails at import", broken_deploy),
        Row("kill", "`kill -9` of one of two workers", killed_worker),
        Row("blocked", "a handler blocks the loop for 40 s", blocked_loop, is_idle=True),
        Row("shares", "shares of 2,048 connections, largest / mean", shares),
    )
}


def missing_program(row: Row) -> str | None:
    """What the row needs and is not on PATH."""
    return row.needs if row.needs is not None and shutil.which(row.needs) is None else None
