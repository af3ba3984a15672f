"""Hashes, key derivation and random bytes in the loop's pool, so that a password does not hold up 10,000 connections.

All of it is hashlib, hmac and os of the standard library, on the interpreter's own OpenSSL; hoop has no cryptography of
its own. Each function takes what the standard one takes, raises what that raises, and needs a running hoop loop
(RuntimeError elsewhere). Cancelling takes work out of the queue; what is running in a thread ends there unheard.

Buffers other than bytes (bytearray, memoryview) are copied before the call returns to the loop: changing one afterwards
changes nothing.
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

# Up to this many bytes are hashed, or made, at once: about 11 µs of SHA-256, 30 of SHA-512. The way to a thread and back
# takes 10 to 100 µs, by whether the threads share a core, and as much of the loop's time as hashing 4 to 16 KiB.
INLINE_SIZE = 16_384
FILE_PIECE = 262_144  # bytes read at once from a file; after each, cancellation is looked for

run = functools.partial(offload.run, "hoop.crypto")


async def pbkdf2_hmac(
    hash_name: str, password: ReadableBuffer, salt: ReadableBuffer, iterations: int, dklen: int | None = None
) -> bytes:
    """As hashlib.pbkdf2_hmac (RFC 8018), in the pool: dklen bytes (None: as long as the hash's digest).

    ValueError for an unknown hash, and for iterations or dklen below 1.
    """
    hashlib.new(hash_name)  # OpenSSL's own error would not name it
    return await run(
        False, hashlib.pbkdf2_hmac, hash_name, offload.frozen(password), offload.frozen(salt), iterations, dklen
    )


async def scrypt(
    password: ReadableBuffer, *, salt: ReadableBuffer, n: int, r: int, p: int, maxmem: int = 0, dklen: int = 64
) -> bytes:
    """As hashlib.scrypt (RFC 7914), in the pool: dklen bytes. maxmem is in bytes; 0 is OpenSSL's 32 MiB.

    ValueError for values that RFC 7914 excludes or that need more than maxmem; NotImplementedError if this Python's
    hashlib has no scrypt.
    """
    if not hasattr(hashlib, "scrypt"):
        raise NotImplementedError("this Python was built against a library without scrypt")
    derive = functools.partial(
        hashlib.scrypt, salt=offload.frozen(salt), n=n, r=r, p=p, maxmem=maxmem, dklen=dklen
    )
    return await run(False, derive, offload.frozen(password))


async def digest(
    name: str, data: ReadableBuffer, *, length: int | None = None, inline_size: int = INLINE_SIZE
) -> bytes:
    """The digest of data by the hash of that name, as hashlib.new(name, data).digest().

    length: bytes of the digest, for shake_128 and shake_256 only (TypeError if missing there, or given elsewhere).
    inline_size: data of up to so many bytes is hashed at once, if the digest is no longer either. ValueError for an
    unknown hash.
    """
    content = offload.frozen(data)
    size = len(content) if length is None else max(len(content), length)
    return await run(size <= inline_size, digest_now, name, content, length)


async def file_digest(name: str, path: StrOrBytesPath | int, *, length: int | None = None) -> bytes:
    """The digest of a file's content, read piece by piece in the pool; name and length as for digest().

    OSError as open(); BlockingIOError for a non-blocking descriptor that has nothing to read yet. Once cancelled, it
    ends after the piece of 256 KiB at hand. A descriptor given as path is read from where it stands, and not closed.
    """
    work = FileDigest(name, path, length)
    try:
        return await run(False, work.run)
    finally:
        work.is_cancelled = True


async def hmac_digest(
    key: ReadableBuffer, msg: ReadableBuffer, digest: str, *, inline_size: int = INLINE_SIZE
) -> bytes:
    """As hmac.digest (RFC 2104); digest is the hash's name. Key and message of up to inline_size bytes each are done at
    once.

    ValueError for an unknown hash.
    """
    hashlib.new(digest)  # as above
    secret, message = offload.frozen(key), offload.frozen(msg)
    size = max(len(secret), len(message))  # a key longer than a block is hashed too
    return await run(size <= inline_size, hmac.digest, secret, message, digest)


async def random_bytes(size: int, *, inline_size: int = INLINE_SIZE) -> bytes:
    """size bytes that suit cryptography, as os.urandom: from getrandom(2) where there is one.

    ValueError for a negative size. Up to inline_size bytes are made at once.
    """
    return await run(size <= inline_size, os.urandom, size)


def digest_now(name: str, data: bytes, length: int | None) -> bytes:
    return finished(hashlib.new(name, data), length)


def finished(state: Any, length: int | None) -> bytes:
    made: bytes = state.digest() if length is None else state.digest(length)
    return made


class FileDigest:
    """A file being hashed in a thread; is_cancelled is set from the loop's."""

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
        return finished(state, self.length)
