"""What a call has led to, as a line of text in which no loop's objects show: compare two loops' lines."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import re
import socket
import sys
from asyncio.trsock import TransportSocket
from collections.abc import Mapping
from typing import Any

# How the interpreter, and Cython in its words, refuse arguments that do not fit a signature.
SIGNATURE = re.compile(
    r"missing (\d+|a) required|takes (\d+|from|no|exactly|at (least|most))|unexpected keyword|multiple values|"
    r"required (positional )?argument|keyword-only argument|positional arguments? (but|expected)|no keyword arguments|"
    r"expected at (least|most)|invalid keyword argument"
)
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
ANGLES = re.compile(r"<[^<>]*>")
NUMBER = re.compile(r"\d+")
CALLBACK = re.compile("Exception in callback .*", re.DOTALL)  # its name and place are the loop's own
TEMPORARY = re.compile(r"/[^\s']*/(?=[^/\s']*)")

# The most specific comes first.
KINDS: tuple[tuple[type, str], ...] = (
    (asyncio.AbstractEventLoop, "a loop"),
    (asyncio.Task, "a Task"),
    (asyncio.Future, "a Future"),
    (asyncio.TimerHandle, "a TimerHandle"),
    (asyncio.Handle, "a Handle"),
    (asyncio.SubprocessTransport, "a SubprocessTransport"),
    # Of Python 3.11 asyncio's own datagram transport is none to isinstance().
    *([(asyncio.DatagramTransport, "a DatagramTransport")] if sys.version_info >= (3, 12) else []),
    (asyncio.Transport, "a Transport"),
    (asyncio.WriteTransport, "a WriteTransport"),
    (asyncio.ReadTransport, "a ReadTransport"),
    (asyncio.AbstractServer, "a server"),
    (asyncio.StreamReader, "a StreamReader"),
    (asyncio.StreamWriter, "a StreamWriter"),
    (asyncio.BaseProtocol, "a protocol"),
    (TransportSocket, "a TransportSocket"),
    (socket.socket, "a socket"),
    (contextvars.Context, "a Context"),
)


def without_objects(text: str) -> str:
    """The text, with what differs from run to run (addresses, numbers, folders) and all reprs of objects taken out."""
    text = ADDRESS.sub("", text)
    while ANGLES.search(text):
        text = ANGLES.sub("{}", text)
    return NUMBER.sub("N", TEMPORARY.sub("", text))


def shown(value: Any) -> str:
    """A result: plain values as they are, objects by what they are to their users."""
    if value is None or isinstance(value, (bool, str, bytes)):
        return without_objects(repr(value))
    if isinstance(value, int):
        return repr(value) if -10 < value < 10 else type(value).__name__
    if isinstance(value, float):
        return "a float"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(shown, value))})"
    if isinstance(value, Mapping):
        return "a dict"
    for kind, words in KINDS:
        if isinstance(value, kind):
            return words
    if callable(value):
        return "a callable"
    return f"a {type(value).__name__}"


def shown_error(error: BaseException) -> str:
    """The type, the errno by name, and the text."""
    name = type(error).__name__
    text = str(error)
    if isinstance(error, TypeError) and SIGNATURE.search(text):
        return "TypeError(the arguments do not fit)"
    if isinstance(error, BaseExceptionGroup):
        return f"{name}({', '.join(map(shown_error, error.exceptions))})"
    if isinstance(error, OSError) and error.errno is not None:
        name += f"[{errno.errorcode.get(error.errno, 'gai')}]"
    return f"{name}({without_objects(text)})"


def shown_report(context: dict[str, Any]) -> str:
    """What an exception handler was told."""
    told = CALLBACK.sub("Exception in a callback", without_objects(str(context.get("message"))))
    error = context.get("exception")
    told = told if error is None else f"{told}: {shown_error(error)}"
    keys = sorted(set(context) - {"message", "exception", "source_traceback", "handle_traceback"})
    return f"{told} ({', '.join(keys)})"


def shown_event(name: str, arguments: tuple[Any, ...]) -> str:
    """A callback of a protocol."""
    if name in ("connection_lost", "error_received") and arguments[0] is not None:
        return f"{name}({shown_error(arguments[0])})"
    return f"{name}({', '.join(map(shown, arguments))})"
