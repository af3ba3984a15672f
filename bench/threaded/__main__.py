"""Loops in threads of one process, for a Python without a GIL.

    python -m bench.threaded memory [TARGET]      a cluster of 4, as threads and as processes; TARGET as for hoop serve
    python -m bench.threaded pingpong             messages over a socketpair in each of 1 and 2 loops, no client
    python -m bench.threaded loopback [NAME ...]  servers of 1 and 2 loops under load: echo, uvicorn, connect
    python -m bench.threaded model                what 16 and 64 cores would do, from the serial parts measured here

hoop stands beside asyncio and uvloop, in interleaved rounds.
"""

from __future__ import annotations

import sys

from bench.threaded import loopback, memory, model, pingpong


def main(arguments: list[str]) -> None:
    match arguments:
        case ["memory", *target]:
            memory.show(target[0] if target else "bench.servers.protocol_echo:Echo")
        case ["pingpong"]:
            pingpong.show()
        case ["loopback", *names]:
            loopback.show(names)
        case ["model"]:
            model.show()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
