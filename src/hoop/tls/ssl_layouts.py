"""In which interpreters it is known where the objects of the ssl module keep what they have of OpenSSL.

An allow-list, read from Modules/_ssl.c of each version: an interpreter that is not on it gets the safe engine.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

POINTER = struct.calcsize("P")
OBJECT_HEAD = 2 * POINTER  # PyObject_HEAD of a release build with a GIL: reference count and type


class SslLayout(NamedTuple):
    """Where a pointer stands in an object, in bytes from its beginning."""

    connection: int  # SSL * in _ssl._SSLSocket
    context: int  # SSL_CTX * in _ssl._SSLContext
    bio: int  # BIO * in ssl.MemoryBIO


# _SSLSocket begins with a weak reference to its socket; in the others it is the first field.
USUAL = SslLayout(connection=OBJECT_HEAD + POINTER, context=OBJECT_HEAD, bio=OBJECT_HEAD)
LAYOUTS = {(3, 11): USUAL, (3, 12): USUAL, (3, 13): USUAL, (3, 14): USUAL, (3, 15): USUAL}


def known_layout() -> SslLayout | str:
    """The layout in this interpreter, or why it is not known."""
    if sys.implementation.name != "cpython":
        return f"nothing is known of the ssl module of {sys.implementation.name}"
    if getattr(sys, "abiflags", "") or object.__basicsize__ != OBJECT_HEAD:
        return "debug and free-threaded builds lay objects out otherwise"
    version = (sys.version_info[0], sys.version_info[1])
    if version not in LAYOUTS:
        return f"nothing is known of the ssl module of Python {version[0]}.{version[1]}"
    return LAYOUTS[version]
