"""Look names up, off the loop's thread; answer numeric addresses at once."""

from __future__ import annotations

import _socket
import socket
from collections.abc import Sequence
from typing import Any

from hoop.loop_methods.executors import Executors
from hoop.names.address_info import Literals, is_patched, literal_family
from hoop.names.name_history import NameHistory
from hoop.names.name_jobs import ELSEWHERE, LOCAL_NAMES, OTHER_NAMES, AddressQuestion, NameQuestion

AddressInfo = tuple[Any, Any, int, str, Any]

ORIGINAL_GETNAMEINFO = _socket.getnameinfo  # what has replaced it is called, as asyncio would


def is_number(port: object) -> bool:
    """Whether a port needs no look-up in the services database."""
    if isinstance(port, (bytes, bytearray)):
        port = bytes(port).decode("ascii", "replace")
    return port is None or isinstance(port, int) or (isinstance(port, str) and port.isascii() and port.isdigit())


class NameLookups(Executors):
    """getaddrinfo and getnameinfo for a loop."""

    _literals: Literals
    _name_history: NameHistory
    _resolver: Any  # a hoop.dns.Resolver, made by that module at first use

    def _begin_name_lookups(self) -> None:
        self._literals = Literals()
        self._name_history = NameHistory()
        self._resolver = None

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """As socket.getaddrinfo. Answers numeric hosts and ports at once; libc answers the rest, in the pool.

        Raises socket.gaierror (an OSError), as getaddrinfo(3) does. Where socket.getaddrinfo has been replaced (a
        test's mock), the replacement is called, in the default executor.
        """
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        answer = self._literals.answer(host, port, family, type, proto, flags)
        if answer is not None:
            return answer
        if is_patched():
            return await self.run_in_executor(None, socket.getaddrinfo, host, port, family, type, proto, flags)
        found: list[AddressInfo] = await self._ask_libc(AddressQuestion(host, port, family, type, proto, flags))
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """As socket.getnameinfo, in a thread of the pool. Raises socket.gaierror. Calls a replaced one, as above."""
        if socket.getnameinfo is not ORIGINAL_GETNAMEINFO:
            return await self.run_in_executor(None, socket.getnameinfo, sockaddr, flags)
        name: tuple[str, str] = await self._ask_libc(NameQuestion(sockaddr, flags))
        return name

    async def _ask_libc(self, question: AddressQuestion | NameQuestion) -> Any:
        """Ask in the pool, in the lane that the name's history gives it: a name that gets answers does not wait behind
        names that get none. First ask whether this machine answers by itself, unless a name server was asked about the
        name a moment ago.
        """
        history, key = self._name_history, question.key
        lane = history.lane(key, self.time())
        try:
            answer = await question.ask(self.pool, self, lane)
            if answer is ELSEWHERE and lane == LOCAL_NAMES:
                lane = OTHER_NAMES
                answer = await question.ask(self.pool, self, lane)
        except OSError as error:
            history.note_error(key, lane, error, self.time())
            raise
        history.note_answer(key, lane, self.time())
        return answer

    def _answer_literal(
        self, host: object, port: object, family: int, type: int, proto: int, flags: int
    ) -> list[AddressInfo] | None:
        """Return what getaddrinfo will answer if that takes neither a look-up nor a replacement, else None."""
        return self._literals.answer(host, port, family, type, proto, flags)

    async def _ensure_resolved(
        self, address: Sequence[Any], *, family: int = 0, type: int = socket.SOCK_STREAM, proto: int = 0, flags: int = 0
    ) -> list[AddressInfo]:
        """Return the addresses of (host, port, ...); a numeric one stands for itself, as in the socket module."""
        host, port = address[:2]
        if isinstance(host, str) and "\0" in host:
            raise ValueError("embedded null character")
        info = numeric_info(host, port, family, type, proto, tuple(address[2:]))
        if info is not None:
            return [info]
        return await self.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)


def numeric_info(host: Any, port: Any, family: int, type: int, proto: int, rest: tuple[Any, ...]) -> AddressInfo | None:
    """Return the address of a numeric host and port, or None where only libc knows. Checks no range: the socket call
    says what is wrong with a port of 70000."""
    own_family = literal_family(host)
    if own_family is None or not is_number(port) or family not in (socket.AF_UNSPEC, own_family):
        return None
    if type == socket.SOCK_STREAM and proto in (0, socket.IPPROTO_TCP):
        proto = socket.IPPROTO_TCP
    elif type == socket.SOCK_DGRAM and proto in (0, socket.IPPROTO_UDP):
        proto = socket.IPPROTO_UDP
    else:
        return None
    text = host if isinstance(host, str) else bytes(host).decode("ascii")
    number = 0 if port is None else int(port)
    if own_family == socket.AF_INET6:
        return (socket.AF_INET6, type, proto, "", (text, number, *(rest or (0, 0))))
    return (socket.AF_INET, type, proto, "", (text, number))
