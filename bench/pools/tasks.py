"""What tasks of the stress test do in a worker. Nothing but the standard library is imported here, so workers start
fast."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def double(number: int) -> int:
    return number * 2


def fail(number: int) -> None:
    raise ValueError(number)


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(number: int) -> None:
    os._exit(number % 100)


def hang(number: int) -> None:
    time.sleep(600)


def unpicklable(number: int) -> Any:
    return lambda: number


def large(number: int) -> bytes:
    return bytes([number % 256]) * (300_000 + number)
