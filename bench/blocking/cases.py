"""What programs do that holds a loop. Each case is a function that a coroutine calls, and blocks in its last line."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

HELD_S = 0.2
SHORT_S = 0.005


def later(function: Callable[..., object], *arguments: Any) -> None:
    """In another thread, when the loop has been held for long enough."""
    timer = threading.Timer(HELD_S, function, arguments)
    timer.daemon = True
    timer.start()


def hold_by_sleep() -> None:
    time.sleep(HELD_S)


def hold_by_socket() -> None:
    ours, theirs = socket.socketpair()
    later(theirs.send, b"x")
    ours.recv(1)


def hold_by_pipe() -> None:
    reading, writing = os.pipe()
    later(os.write, writing, b"x")
    os.read(reading, 1)


def hold_by_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    later(lock.release)
    lock.acquire()


def hold_by_subprocess() -> None:
    subprocess.run(["sleep", str(HELD_S)], check=True)


def hold_by_hash() -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 500_000)


def hold_by_python() -> None:
    end = time.perf_counter() + HELD_S
    while time.perf_counter() < end:
        pass


def hold_the_gil() -> None:
    poll = ctypes.PyDLL(None).poll  # unlike CDLL, this does not release it
    poll(None, 0, int(HELD_S * 1000))


def hold_by_regex() -> None:
    text = "a" * 23 + "b"
    re.match(r"(a+)+$", text)


def hold_by_json() -> None:
    text = "[" + "1," * 2_000_000 + "1]"
    json.loads(text)


def hold_for_short() -> None:
    time.sleep(SHORT_S)


CASES: dict[str, tuple[Callable[[], None], str]] = {
    "sleep": (hold_by_sleep, "`time.sleep(0.2)`"),
    "socket": (hold_by_socket, "`recv()` of a blocking socket"),
    "pipe": (hold_by_pipe, "`os.read()` of a pipe"),
    "lock": (hold_by_lock, "`Lock.acquire()`"),
    "subprocess": (hold_by_subprocess, "`subprocess.run()`"),
    "hash": (hold_by_hash, "`hashlib.pbkdf2_hmac()`"),
    "python": (hold_by_python, "a loop in Python"),
    "gil": (hold_the_gil, "a C call that keeps the GIL"),
    "regex": (hold_by_regex, "a regular expression that explodes"),
    "json": (hold_by_json, "`json.loads()` of 4 MB"),
    "short": (hold_for_short, "`time.sleep(0.005)`, below the threshold"),
}


def line_of(case: str) -> int:
    """The number of the line that blocks."""
    code = CASES[case][0].__code__
    return max(line for _, _, line in code.co_lines() if line is not None)
