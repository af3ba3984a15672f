"""The mixed load: many keep-alive connections that echo, while passwords are hashed and files are read beside them.

    python -m bench.mixed                                # 10,000 connections on hoop, asyncio and uvloop
    python -m bench.mixed --connections 1000 --rounds 1

Messages are due at a fixed rate, spread over all connections, and a message's latency counts from when it was due: a
loop that is held up pays for all that it kept waiting. Each round measures each loop with and without the background
work, which the server counts, so that a loop cannot look good by leaving it undone. Server and client use all cores,
and the client sleeps between messages.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.build import BuildError, build_programs, program
from bench.c10k import CONNECTIONS_PER_SOURCE, OTHER_DESCRIPTORS, SILENCE_LIMIT_S
from bench.loops import LOOPS
from bench.measure import usage_of
from bench.processes import START_LIMIT_S, Child, ChildFailed, running
from bench.progress import Display

LOOPS_COMPARED = "hoop,asyncio,uvloop"
WARM_UP_S = 1.0

Sample = dict[str, Any]  # of one loop in one round: figures, or "failure"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.mixed", description="Echo latency beside background work.")
    parser.add_argument("--loops", default=LOOPS_COMPARED, help="separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a measured window")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5_000, help="messages a second, over all connections")
    parser.add_argument("--passwords", type=float, default=50, help="hashed a second")
    parser.add_argument("--iterations", type=int, default=10_000, help="of PBKDF2-HMAC-SHA256 for each password")
    parser.add_argument("--files", type=float, default=200, help="read a second, 64 KiB each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="samples as JSON")
    return parser.parse_args(arguments)


def server_command(loop: str, options: argparse.Namespace, folder: str, with_work: bool) -> list[str]:
    command = [sys.executable, "-m", "bench.servers.mixed_echo", "--loop", loop, "--folder", folder]
    if with_work:
        command += ["--passwords", str(options.passwords), "--iterations", str(options.iterations)]
        command += ["--files", str(options.files)]
    return command


def client_command(ready: Mapping[str, Any], options: argparse.Namespace) -> list[str]:
    connections = max(1, min(options.connections, int(ready["descriptor_limit"]) - OTHER_DESCRIPTORS))
    command = [program("c10k_client"), "--port", str(ready["port"]), "--server-pid", str(ready["pid"]), "--block"]
    command += ["--connections", str(connections), "--rate", str(options.rate)]
    return [*command, "--sources", str(min(250, math.ceil(connections / CONNECTIONS_PER_SOURCE) + 1))]


def measure(loop: str, options: argparse.Namespace, with_work: bool) -> Sample:
    """One server, one client, a warm-up and a window."""
    with tempfile.TemporaryDirectory() as folder:
        with running(server_command(loop, options, folder, with_work)) as server:
            try:
                ready = server.read_json(START_LIMIT_S)
                with running(client_command(ready, options)) as client:
                    follow(client, "opened")
                    client.write_line(f"echo {WARM_UP_S}")
                    follow(client, "echoed")
                    return measure_window(server, client, options)
            except (ChildFailed, OSError) as failure:
                return {"failure": str(failure)}


def measure_window(server: Child, client: Child, options: argparse.Namespace) -> Sample:
    before = usage_of(server.pid)
    client.write_line(f"echo {options.seconds}")
    echoed = follow(client, "echoed")
    after = usage_of(server.pid)
    if echoed["errors"]:
        raise ChildFailed(f"{echoed['errors']} errors, the first: {echoed['first_error']}")
    return {
        "held": echoed["held"],
        "rate": echoed["rate"],
        "p50_us": echoed["p50_us"],
        "p99_us": echoed["p99_us"],
        "max_us": echoed["max_us"],
        "cpu_share": (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s),
        "done_per_s": work_done(server, before.at_s, after.at_s),
    }


def work_done(server: Child, begin_s: float, end_s: float) -> dict[str, float]:
    """What the server did of each kind of work, a second: from its last report before the window to the first after."""
    first = last = server.read_json(SILENCE_LIMIT_S)
    while last["at_s"] < end_s:
        last = server.read_json(SILENCE_LIMIT_S)
        if last["at_s"] <= begin_s:
            first = last
    seconds = last["at_s"] - first["at_s"]
    return {name: (count - first["done"][name]) / seconds for name, count in last["done"].items()}


def follow(client: Child, event: str) -> dict[str, Any]:
    """What the client reports when that has happened."""
    while True:
        report = client.read_json(SILENCE_LIMIT_S)
        if report["event"] == event:
            return report


def median_of(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(sample[name] for sample in samples)


def heading(options: argparse.Namespace) -> list[str]:
    work = f"{options.passwords:g} passwords/s of {options.iterations} iterations, {options.files:g} files/s of 64 KiB"
    columns = "".join(f"{name:>10}" for name in ("p50 ms", "p99 ms", "max ms"))
    return [
        f"{options.connections} connections, {options.rate:g} messages/s; work: {work}",
        "",
        f"{'loop':<10} {'':<12}{'msg/s':>8}{columns}{'CPU':>9}  work done",
    ]


def row(loop: str, with_work: bool, samples: Sequence[Sample]) -> str:
    label = f"{loop:<10} {'beside work' if with_work else 'alone':<12}"
    failures = [sample["failure"] for sample in samples if "failure" in sample]
    if failures:
        return f"{label} failed: {failures[0]}"
    figures = "".join(f"{median_of(samples, name) / 1000:10.2f}" for name in ("p50_us", "p99_us", "max_us"))
    done = samples[-1]["done_per_s"]
    work = ", ".join(f"{rate:.0f} {name}/s" for name, rate in done.items())
    return f"{label}{median_of(samples, 'rate'):8.0f}{figures}{median_of(samples, 'cpu_share'):9.0%}  {work}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status is 1 if hoop failed."""
    options = parse_arguments(arguments)
    wanted = [name.strip() for name in options.loops.split(",")]
    unknown = [name for name in wanted if name not in LOOPS]
    if unknown:
        print(f"unknown loops {unknown}; known are {', '.join(LOOPS)}", file=sys.stderr)
        return 2
    try:
        build_programs()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    display = Display()
    loops = [name for name in wanted if LOOPS[name].is_installed()]
    samples: dict[tuple[str, bool], list[Sample]] = {(loop, work): [] for loop in loops for work in (False, True)}
    for number in range(options.rounds):
        for (loop, with_work), found in samples.items():
            display.show([f"mixed, round {number + 1}, {loop}, {'beside work' if with_work else 'alone'}"])
            found.append(measure(loop, options, with_work))
    display.say([*heading(options), *(row(*key, found) for key, found in samples.items())], to=sys.stdout)
    if options.json:
        results = [{"loop": loop, "work": work, "samples": found} for (loop, work), found in samples.items()]
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    of_hoop = [sample for (loop, _), found in samples.items() if loop == "hoop" for sample in found]
    return int(any("failure" in sample for sample in of_hoop))


if __name__ == "__main__":
    raise SystemExit(main())
