"""A server of bench.servers on several loops of one process, a thread, a port and a listening socket for each.

    python -m bench.threaded.server --loop NAME --server MODULE --threads N

A line on its stdin is answered by what the collector has cost until then.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
import threading
import time
from typing import Any

from bench.loops import LOOPS
from bench.servers.serving import listen_on_loopback, raise_descriptor_limit, settle_allocator


class CollectorClock:
    """Seconds that the collector has run. Without a GIL it stops all threads for most of them."""

    def __init__(self) -> None:
        self.seconds = self.begun = 0.0
        gc.callbacks.append(self.note)

    def note(self, phase: str, _: dict[str, Any]) -> None:
        if phase == "start":
            self.begun = time.monotonic()
        else:
            self.seconds += time.monotonic() - self.begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", required=True, choices=list(LOOPS))
    parser.add_argument("--server", required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    serve = importlib.import_module(f"bench.servers.{options.server}").serve
    factory = LOOPS[options.loop].factory()
    raise_descriptor_limit()
    settle_allocator()
    clock = CollectorClock()
    listeners = [listen_on_loopback() for _ in range(options.threads)]

    def run(listener: Any) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve(listener))

    for listener in listeners:
        threading.Thread(target=run, args=(listener,), daemon=True).start()
    print(json.dumps({"ports": [listener.getsockname()[1] for listener in listeners]}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"gc_s": clock.seconds, "cpu_s": time.process_time()}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
