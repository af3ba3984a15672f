"""A storm over one loop, and the judgement. Exit status 0 if every promise was kept; stdout has what was broken.

By hand:

    PYTHONPATH=tests python -m faults.chaos.run --loop hoop --seed 1 --seconds 20 --connections 2000
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from conformance.peers import MOST_IDLE_TURNS, idle_turns
from faults.chaos.plans import ENTRANCES
from faults.chaos.sessions import Buffered, ChaosError, Ledger, Plain, judge
from faults.chaos.storm import Posters, Storm, begin_peers, signals
from loop_factories import loop_factory_named

FAR_TOO_LONG_S = 100.0  # for what comes after the storm
DESCRIPTORS_FOR_EACH = 3  # connection, at most: both ends of those that the loop dials, and room


def expected_report(context: dict[str, Any]) -> bool:
    """Whether the storm has asked for what the exception handler is told."""
    if isinstance(context.get("exception"), ChaosError):
        return True
    return "out of system resource" in context["message"]


async def weather(ledger: Ledger, options: argparse.Namespace, folder: Path) -> list[Any]:
    """All of it, from the first server to the last connection; what the peers have to say."""
    loop = asyncio.get_running_loop()
    streams = importlib.import_module(options.loop)
    storm = Storm(ledger, streams, options.seed, folder, options.connections // 4)
    for entrance in ENTRANCES:
        if entrance != "out":
            await storm.open(entrance)
    storm.peers = peers = begin_peers(options.seed, options.connections)
    assert peers.stdin is not None and peers.stdout is not None
    peers.stdin.write(json.dumps(storm.addresses) + "\n")
    peers.stdin.flush()
    storm.peers_address = tuple(json.loads(peers.stdout.readline()))
    said: asyncio.Future[str] = loop.create_future()
    posters = Posters(ledger, loop)
    with signals(ledger, loop):
        await disturb(ledger, storm, options.seconds)
        ledger.counts["connections at a time"] = ledger.most_alive
    posters.stop()
    peers.stdin.close()
    listen = threading.Thread(target=lambda: loop.call_soon_threadsafe(said.set_result, peers.stdout.read()))
    listen.start()
    lines = (await said).splitlines()
    listen.join()
    peers.stdout.close()
    if peers.wait() != 0:
        ledger.violate("harness", f"the peers ended with {peers.returncode}")
    await calm(ledger, storm)
    if posters.arrived != posters.posted:
        ledger.violate("threads", f"{posters.arrived} arrived of {posters.posted}")
    return [json.loads(line) for line in lines]


async def disturb(ledger: Ledger, storm: Storm, seconds: float) -> None:
    """Every disturbance, for so long. Their tasks are let go of at the end: tracebacks keep what they held."""
    disturbances = [asyncio.get_running_loop().create_task(begin()) for begin in storm.disturbances()]
    done, _ = await asyncio.wait(disturbances, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in disturbances:
        task.cancel()
    await asyncio.wait(disturbances)
    for task in done:
        ledger.violate("harness", f"a disturbance ended: {task!r}")


async def calm(ledger: Ledger, storm: Storm) -> None:
    """After the storm: everything still works, ends, and is gone."""
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGALRM, heard.set)
    os.kill(os.getpid(), signal.SIGALRM)
    await heard.wait()
    loop.remove_signal_handler(signal.SIGALRM)
    while storm.dialled or ledger.tasks or ledger.handlers:
        await asyncio.wait(storm.dialled | ledger.tasks | ledger.handlers)
    servers = list(storm.servers.values())
    for entrance in list(storm.servers):
        await storm.close(entrance)
    for server in servers:
        if not isinstance(server, asyncio.Task):
            await server.wait_closed()
    while ledger.alive:  # for ever, if one is forgotten: then the run does not end in time
        await asyncio.sleep(0.01)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        ledger.violate("tasks", f"{len(others)} too many, such as {next(iter(others))!r}")
    turns = await idle_turns()
    ledger.counts["turns of the idle loop"] = turns
    if turns > MOST_IDLE_TURNS:
        ledger.violate("turns", f"an idle loop takes {turns}")
    gc.collect()
    await asyncio.sleep(0.01)
    gc.collect()
    if ledger.protocols:
        ledger.violate(
            "objects", f"{len(ledger.protocols)} protocols too many, such as {next(iter(ledger.protocols))!r}"
        )


def descriptors() -> dict[int, str]:
    """This process's open descriptors, and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found


def drive(loop: asyncio.AbstractEventLoop, main: Any) -> Any:
    """Run main, though the loop is stopped again and again."""
    task = loop.create_task(main)
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        loop.run_forever()
    return task.result()


def tell_who_waits(ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
    """For a run that does not end: who is left; then the process's end."""
    print(f"VIOLATION hang: {ledger.alive} connections left, {dict(ledger.counts)}")
    for task in asyncio.all_tasks(loop):
        print(task)
    for protocol in list(ledger.protocols):
        if isinstance(protocol, Plain | Buffered) and protocol.made and not protocol.lost:
            print(f"{protocol.transport!r} {vars(protocol)} {vars(protocol.session)}"[:2000])
    sys.stdout.flush()
    faulthandler.dump_traceback()
    os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", default="hoop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=10, help="how long the storm lasts; what follows is not counted"
    )
    parser.add_argument("--connections", type=int, default=2000, help="at a time")
    options = parser.parse_args()
    faulthandler.enable()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 200 + DESCRIPTORS_FOR_EACH * options.connections), hard))
    ledger = Ledger(options.seed)

    def handle(loop: Any, context: dict[str, Any]) -> None:
        ledger.counts[f"reported: {context['message']}"] += 1
        if not expected_report(context):
            ledger.violate("reports", f"{context}")

    began = time.monotonic()
    before = descriptors()
    loop = loop_factory_named(options.loop)()
    loop.set_exception_handler(handle)
    watchdog = threading.Timer(options.seconds + FAR_TOO_LONG_S, tell_who_waits, (ledger, loop))
    watchdog.daemon = True
    watchdog.start()
    with tempfile.TemporaryDirectory() as folder:
        results = drive(loop, weather(ledger, options, Path(folder)))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    watchdog.cancel()
    watchdog.join()
    judge(ledger, results)
    del loop, watchdog
    gc.collect()
    left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what}
    if left:
        ledger.violate("descriptors", f"{len(left)} too many: {left}")
    for what, count in sorted(ledger.counts.items()):
        print(f"{count:10} {what}")
    print(f"{time.monotonic() - began:10.1f} seconds")
    for what in ledger.violations:
        print(f"VIOLATION {what}")
    return 1 if ledger.violations else 0


if __name__ == "__main__":
    sys.exit(main())
