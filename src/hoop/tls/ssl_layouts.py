"""In which interpreters it is known where the objects of the ssl module keep what they have of OpenSSL.

An allow-list, read from Modules/_ssl.c of each version: an interpreter that is not on it gets the safe engine.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

POINTER = struct.calcsize("P")
OBJECT_HEADS = {  # of a release build, by sys.abiflags: the size of PyObject_HEAD, which every object begins with
    "": 2 * POINTER,  # reference count and type
    "t": 4 * POINTER,  # free-threaded, 64 bit: a thread, a lock and three counters before the type
}


class SslLayout(NamedTuple):
    """Where a pointer stands in an object, in bytes from the end of PyObject_HEAD; `of_build` adds that."""

    connection: int  # SSL * in _ssl._SSLSocket
    context: int  # SSL_CTX * in _ssl._SSLContext
    bio: int  # BIO * in ssl.MemoryBIO

    def of_build(self, head: int) -> SslLayout:
        """The same, in bytes from the beginning."""
        return SslLayout(*(place + head for place in self))


# _SSLSocket begins with a weak reference to its socket; in the others it is the first field.
USUAL = SslLayout(connection=POINTER, context=0, bio=0)
LAYOUTS = {(3, 11): USUAL, (3, 12): USUAL, (3, 13): USUAL, (3, 14): USUAL, (3, 15): USUAL}


def known_layout() -> SslLayout | str:
    """The layout in this interpreter, or why it is not known."""
    if sys.implementation.name != "cpython":
        return f"nothing is known of the ssl module of {sys.implementation.name}"
    head = object.__basicsize__
    if OBJECT_HEADS.get(getattr(sys, "abiflags", "")) != head:
        return "this build of Python lays objects out otherwise than usual ones do"
    version = (sys.version_info[0], sys.version_info[1])
    if version not in LAYOUTS:
        return f"nothing is known of the ssl module of Python {version[0]}.{version[1]}"
    return LAYOUTS[version].of_build(head)
