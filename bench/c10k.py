"""The C10k demonstration: many concurrent connections to one server process, each echoing, then idling."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.build import program
from bench.loops import LOOPS
from bench.measure import Cores, Usage, usage_of
from bench.processes import CRASH_GRACE_S, START_LIMIT_S, Child, ChildFailed, run_client, running
from bench.progress import Display, bar

OTHER_DESCRIPTORS = 64  # what a server has open beside its connections, generously
CONNECTIONS_PER_SOURCE = 10_000  # from one loopback address, which has some 28,000 ports
SILENCE_LIMIT_S = 20.0  # the client reports several times a second, and gives up on a stall after 5 s
SETTLE_S = 0.5
LINE_INTERVAL_S = 1.0  # of progress lines when there is no terminal
KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Options:
    """What to demonstrate."""

    connections: int = 10_000
    size: int = 64  # bytes of a message
    in_flight: int = 256  # messages, over all connections
    echo_s: float = 4.0
    idle_s: float = 5.0
    again_s: float = 1.0  # echo after idling
    server: str = "protocol_echo"  # a module of bench.servers


class Demonstration:
    """One run on one loop; `outcome` fills as it goes, so that a failure leaves what was seen before."""

    def __init__(self, loop: str, options: Options, cores: Cores, display: Display) -> None:
        self.options = options
        self.cores = cores
        self.display = display
        self.loop = loop
        self.outcome: dict[str, Any] = {
            "loop": loop,
            "server": options.server,
            "version": LOOPS[loop].version(),
            "wanted": options.connections,
            "failure": None,
        }

    def run(self) -> dict[str, Any]:
        """Everything, in order."""
        command = [sys.executable, "-m", f"bench.servers.{self.options.server}", "--loop", self.loop]
        with running(command, self.cores.server) as server:
            try:
                ready = server.read_json(START_LIMIT_S)
                self._load(server, ready)
            except ChildFailed as failure:
                ending = server.ending(CRASH_GRACE_S)
                self.outcome["failure"] = f"server {ending}" if ending else str(failure)
            except OSError:  # its usage cannot be read
                self.outcome["failure"] = f"server {server.ending(CRASH_GRACE_S) or 'cannot be observed'}"
        return self.outcome

    def _load(self, server: Child, ready: Mapping[str, Any]) -> None:
        limit = int(ready["descriptor_limit"])
        self.outcome["server_descriptor_limit"] = limit
        connections = max(1, min(self.options.connections, limit - OTHER_DESCRIPTORS))
        before = self._warm_up(server, int(ready["port"]))
        with running(self._client_command(server, int(ready["port"]), connections), self.cores.client) as client:
            self.outcome["client_descriptor_limit"] = client.read_json(START_LIMIT_S)["soft"]
            self.outcome["opened"] = self._follow(client, "opened", "opening connections")
            client.write_line(f"echo {self.options.echo_s}")
            self.outcome["echoed"] = self._follow(client, "echoed", "echoing")
            self._idle(server, client, before)
            client.write_line(f"echo {self.options.again_s}")
            self.outcome["echoed_again"] = self._follow(client, "echoed", "echoing again")
            client.write_line("quit")
            self.outcome["end"] = self._follow(client, "quit", "closing")

    def _client_command(self, server: Child, port: int, connections: int) -> list[str]:
        command = [program("c10k_client"), "--port", str(port), "--server-pid", str(server.pid)]
        command += ["--connections", str(connections), "--size", str(self.options.size)]
        command += ["--in-flight", str(self.options.in_flight)]
        command += ["--sources", str(min(250, math.ceil(connections / CONNECTIONS_PER_SOURCE) + 1))]
        return command if self.cores.are_separate else [*command, "--block"]

    def _warm_up(self, server: Child, port: int) -> Usage:
        """A little traffic, so that what a server allocates once is not counted as memory of connections."""
        arguments = ["--connections", "16", "--size", str(self.options.size), "--warmup", "0", "--duration", "0.2"]
        report = run_client([program("echo_client"), "--port", str(port), *arguments], self.cores.client, START_LIMIT_S)
        if report["errors"]:
            raise ChildFailed(str(report["first_error"]))
        time.sleep(SETTLE_S)
        return usage_of(server.pid)

    def _follow(self, client: Child, last_event: str, phase: str) -> dict[str, Any]:
        """Show what the client reports until that event, and return it."""
        while True:
            event = client.read_json(SILENCE_LIMIT_S)
            lines = self._lines(phase, event)
            summary = ", ".join(line.strip() for line in lines)
            if event["event"] == last_event:
                self.display.show(self._with_bar(lines, event), summary=summary)
                return event
            self.display.show(self._with_bar(lines, event), summary=summary, interval_s=LINE_INTERVAL_S)

    def _lines(self, phase: str, event: Mapping[str, Any]) -> list[str]:
        lines = [
            f"C10k on {self.loop}: {phase}, {event['seconds']:.1f} s",
            f"  {event['held']:,} connections held, {event['errors']} errors",
        ]
        if event.get("rate"):
            lines.append(f"  {event['rate']:,.0f} messages/s, {_latency(event)}")
        return lines

    def _with_bar(self, lines: list[str], event: Mapping[str, Any]) -> list[str]:
        return [f"{bar(event['held'] / self.options.connections)} {lines[0]}", *lines[1:]]

    def _idle(self, server: Child, client: Child, before: Usage) -> None:
        """No client sends anything: what does the server do then?"""
        time.sleep(SETTLE_S)
        begin = now = usage_of(server.pid)
        while now.at_s - begin.at_s < self.options.idle_s:
            left_s = self.options.idle_s - (now.at_s - begin.at_s)
            text = (
                f"C10k on {self.loop}: idle, {left_s:.0f} s left: server used {_milliseconds(begin, now)} of CPU time"
            )
            self.display.show([text], summary=text, interval_s=LINE_INTERVAL_S)
            time.sleep(min(LINE_INTERVAL_S, left_s))
            now = usage_of(server.pid)
        client.write_line("idle")
        held = client.read_json(SILENCE_LIMIT_S)["held"]
        self.outcome["idle"] = {
            "seconds": now.at_s - begin.at_s,
            "cpu_s": now.cpu_s - begin.cpu_s,
            "voluntary_switches": now.voluntary_switches - begin.voluntary_switches,
            "held": held,
        }
        self.outcome["memory"] = {
            "before_bytes": before.rss_bytes,
            "idle_bytes": now.rss_bytes,
            "bytes_per_connection": (now.rss_bytes - before.rss_bytes) / held if held else None,
        }


def demonstrate(loop: str, options: Options, cores: Cores, display: Display) -> dict[str, Any]:
    """Run the demonstration; the outcome has a "failure" if it could not be completed."""
    return Demonstration(loop, options, cores, display).run()


def _latency(event: Mapping[str, Any]) -> str:
    text = f"p50 {event['p50_us'] / 1000:.2f} ms, p99 {event['p99_us'] / 1000:.2f} ms"
    return text + (f", max {event['max_us'] / 1000:.2f} ms" if "max_us" in event else "")


def _milliseconds(begin: Usage, end: Usage) -> str:
    return f"{(end.cpu_s - begin.cpu_s) * 1000:.1f} ms"


def table(outcome: Mapping[str, Any]) -> list[str]:
    """What was seen, line by line."""
    lines = [f"C10k: concurrent connections to one {outcome['loop']} {outcome['version']} process"]
    if outcome.get("server") == "limited_echo":
        lines[0] += ", each with an idle timeout"
    rows = [*_limit_rows(outcome), *_echo_rows(outcome), *_idle_rows(outcome)]
    if outcome["failure"]:
        rows.append(("failed", outcome["failure"]))
    return [*lines, *(f"  {name:<24}{text}" for name, text in rows), ""]


def _limit_rows(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    server, client = outcome.get("server_descriptor_limit"), outcome.get("client_descriptor_limit")
    if server is None or client is None:
        return []
    rows = [("descriptor limits", f"soft limit raised to the hard one: server {server:,}, client {client:,}")]
    possible = min(server, client) - OTHER_DESCRIPTORS
    if possible < outcome["wanted"]:
        text = f"the hard limit is too low for {outcome['wanted']:,} connections; this run has {max(1, possible):,}"
        rows.append(("CUT SHORT", text))
    return rows


def _echo_rows(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if opened := outcome.get("opened"):
        held = f"{opened['held']:,} of {outcome['wanted']:,}, opened and served within {opened['seconds']:.2f} s"
        rows.append(("connections held", held))
    last = outcome.get("end") or outcome.get("echoed_again") or outcome.get("echoed") or opened
    if last:
        rows.append(("errors", f"{last['errors']}" + (f": {last['first_error']}" if last["first_error"] else "")))
    if echoed := outcome.get("echoed"):
        each = f"{echoed['in_flight']} in flight, at least {echoed['fewest_per_connection']} on each connection"
        rows.append(("messages echoed", f"{echoed['messages']:,}; {each}"))
        rows.append(("messages/s", f"{echoed['rate']:,.0f}"))
        rows.append(("latency", _latency(echoed)))
        if echoed["messages"]:
            rows.append(("CPU per message", f"{echoed['server_cpu_seconds'] / echoed['messages'] * 1e6:.2f} µs"))
    return rows


def _idle_rows(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if memory := outcome.get("memory"):
        resident = f"resident {memory['before_bytes'] / MIB:.1f} -> {memory['idle_bytes'] / MIB:.1f} MiB"
        each = memory["bytes_per_connection"]
        text = "–" if each is None else f"{each / KIB:.2f} KiB"
        rows.append(("memory per connection", f"{text} ({resident}; without the kernel's buffers)"))
    if idle := outcome.get("idle"):
        share = idle["cpu_s"] / idle["seconds"]
        text = f"{share:.2%} CPU ({idle['cpu_s'] * 1000:.1f} ms), {idle['voluntary_switches']} wake-ups"
        rows.append((f"idle for {idle['seconds']:.0f} s", f"{text}, {idle['held']:,} connections still held"))
    if again := outcome.get("echoed_again"):
        each = f"at least {again['fewest_per_connection']} on each"
        rows.append(
            ("after idling", f"{again['held']:,} connections echo again: {again['messages']:,} messages, {each}")
        )
    return rows
