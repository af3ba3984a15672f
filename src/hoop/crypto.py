"""Hashes, key derivation and random bytes in the loop's pool, so that a password does not hold up 10,000 connections.

The work is done by hashlib, hmac and os of the standard library, on the interpreter's own OpenSSL; hoop has no
cryptography of its own. Each function takes the arguments of the standard one, raises its errors (TypeError for an
object without a buffer), and needs a running hoop loop (RuntimeError elsewhere). Cancelling takes a job out of the
queue; a job that a thread has begun runs to its end, and its result is dropped.

Buffers other than bytes (bytearray, memoryview) are copied before the call returns to the loop: later changes to them
have no effect.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import hmac
import os
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from hoop.jobs import offload

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

__all__ = [
    "INLINE_SIZE",
    "compare_digest",
    "digest",
    "file_digest",
    "hmac_digest",
    "pbkdf2_hmac",
    "random_bytes",
    "scrypt",
]

# We hash, or generate, up to this many bytes on the loop's thread: about 11 µs of SHA-256, 30 of SHA-512. A hop to a
# thread and back takes 10 to 100 µs, by whether the threads share a core, and as much of the loop's time as hashing
# 4 to 16 KiB.
INLINE_SIZE = 16_384
FILE_PIECE = 262_144  # bytes of one read of a file; we look for cancellation after each

_run = functools.partial(offload.run, "hoop.crypto")


async def pbkdf2_hmac(
    hash_name: str, password: ReadableBuffer, salt: ReadableBuffer, iterations: int, dklen: int | None = None
) -> bytes:
    """As hashlib.pbkdf2_hmac (RFC 8018), in the pool: dklen bytes (None: as many as the hash's digest has).

    ValueError for an unknown hash, and for iterations or dklen below 1.
    """
    hashlib.new(hash_name)  # OpenSSL's own error would not name it
    password, salt = offload.immutable_bytes(password), offload.immutable_bytes(salt)
    return await _run(False, hashlib.pbkdf2_hmac, hash_name, password, salt, iterations, dklen)


async def scrypt(
    password: ReadableBuffer, *, salt: ReadableBuffer, n: int, r: int, p: int, maxmem: int = 0, dklen: int = 64
) -> bytes:
    """As hashlib.scrypt (RFC 7914), in the pool: dklen bytes. maxmem is in bytes; 0 is OpenSSL's 32 MiB.

    ValueError for values that RFC 7914 excludes or that need more than maxmem; NotImplementedError if this Python's
    hashlib lacks scrypt.
    """
    if not hasattr(hashlib, "scrypt"):
        raise NotImplementedError("this Python was built against a library without scrypt")
    derive = functools.partial(
        hashlib.scrypt, salt=offload.immutable_bytes(salt), n=n, r=r, p=p, maxmem=maxmem, dklen=dklen
    )
    return await _run(False, derive, offload.immutable_bytes(password))


async def digest(
    name: str, data: ReadableBuffer, *, length: int | None = None, inline_size: int = INLINE_SIZE
) -> bytes:
    """The digest of data by the hash of that name, as hashlib.new(name, data).digest().

    length: bytes of the digest, for shake_128 and shake_256 only (TypeError if missing there, or given elsewhere).
    inline_size: data of up to so many bytes is hashed on the loop's thread, unless the digest is longer. ValueError for
    an unknown hash.
    """
    content = offload.immutable_bytes(data)
    size = len(content) if length is None else max(len(content), length)
    return await _run(size <= inline_size, digest_now, name, content, length)


async def file_digest(name: str, path: StrOrBytesPath | int, *, length: int | None = None) -> bytes:
    """The digest of a file's content, read piece by piece in the pool; name and length as for digest().

    OSError as open(); BlockingIOError for a non-blocking descriptor that has nothing to read yet. Once cancelled, it
    ends after the current piece of 256 KiB. A descriptor given as path is read from its position, and not closed.
    (hashlib.file_digest.)
    """
    work = FileDigest(name, path, length)
    try:
        return await _run(False, work.run)
    finally:
        work.is_cancelled = True


async def hmac_digest(
    key: ReadableBuffer, msg: ReadableBuffer, digest: str, *, inline_size: int = INLINE_SIZE
) -> bytes:
    """As hmac.digest (RFC 2104); digest is the hash's name. ValueError for an unknown hash.

    inline_size: a key and a message of up to so many bytes each are hashed on the loop's thread.
    """
    hashlib.new(digest)  # as above
    secret, message = offload.immutable_bytes(key), offload.immutable_bytes(msg)
    size = max(len(secret), len(message))  # a key longer than a block is hashed too
    return await _run(size <= inline_size, hmac.digest, secret, message, digest)


async def random_bytes(size: int, *, inline_size: int = INLINE_SIZE) -> bytes:
    """size bytes that suit cryptography, as os.urandom: from getrandom(2) where the system has it.

    ValueError for a negative size. inline_size: up to so many bytes are generated on the loop's thread.
    """
    return await _run(size <= inline_size, os.urandom, size)


def digest_now(name: str, data: bytes, length: int | None) -> bytes:
    return end_digest(hashlib.new(name, data), length)


def end_digest(state: Any, length: int | None) -> bytes:
    result: bytes = state.digest() if length is None else state.digest(length)
    return result


class FileDigest:
    """A file that a thread hashes; the loop's thread sets is_cancelled."""

    def __init__(self, name: str, path: StrOrBytesPath | int, length: int | None) -> None:
        self.name = name
        self.path = path
        self.length = length
        self.is_cancelled = False

    def run(self) -> bytes:
        state = hashlib.new(self.name)
        piece = memoryview(bytearray(FILE_PIECE))
        with open(self.path, "rb", buffering=0, closefd=not isinstance(self.path, int)) as file:
            while not self.is_cancelled and (size := file.readinto(piece)) != 0:
                if size is None:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                state.update(piece[:size])
        return end_digest(state, self.length)
