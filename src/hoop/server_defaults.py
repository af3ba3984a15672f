"""hoop.ServerDefaults: what a loop's servers get if their maker does not say."""

from __future__ import annotations

from hoop.drain import Drain
from hoop.limits import Limits
from hoop.proxy_protocol import ProxyProtocol


class ServerDefaults:
    """loop.server_defaults: for servers that a framework makes, which has no parameter for what hoop adds.

    Set its attributes before the server is made; each may be None. A server whose maker gives limits= or
    proxy_protocol= gets those instead: hoop.Limits() for none, proxy_protocol=False for none. drain is the course of
    Server.drain() and Loop.drain() whose caller gives none; it is looked at when they are called. kept_files are paths
    of UNIX sockets whose files another process owns: a server on such a socket does not remove them when it closes.
    """

    __slots__ = ("_drain", "_limits", "_proxy_protocol", "kept_files")

    def __init__(self) -> None:
        self.kept_files: frozenset[str] = frozenset()
        self._limits: Limits | None = None
        self._proxy_protocol: ProxyProtocol | None = None
        self._drain: Drain | None = None

    def __repr__(self) -> str:
        return (
            f"ServerDefaults(limits={self._limits!r}, proxy_protocol={self._proxy_protocol!r}, drain={self._drain!r})"
        )

    @property
    def limits(self) -> Limits | None:
        """hoop.Limits of every server of the loop. TypeError for anything else but None."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits | None) -> None:
        self._limits = None if limits is None else self.limits_for(limits)

    @property
    def proxy_protocol(self) -> ProxyProtocol | None:
        """hoop.ProxyProtocol of every server of the loop. TypeError for anything else but None."""
        return self._proxy_protocol

    @proxy_protocol.setter
    def proxy_protocol(self, proxy_protocol: ProxyProtocol | None) -> None:
        if proxy_protocol is not None and not isinstance(proxy_protocol, ProxyProtocol):
            raise TypeError(f"proxy_protocol must be a hoop.ProxyProtocol or None, not {proxy_protocol!r}")
        self._proxy_protocol = proxy_protocol

    @property
    def drain(self) -> Drain | None:
        """hoop.Drain of every server of the loop, and of the loop. TypeError for anything else but None."""
        return self._drain

    @drain.setter
    def drain(self, drain: Drain | None) -> None:
        self._drain = None if drain is None else self.drain_for(drain)

    def drain_for(self, drain: Drain | None) -> Drain:
        """The course of a drain whose caller has given drain: by default hoop.Drain()."""
        if drain is not None and not isinstance(drain, Drain):
            raise TypeError(f"drain must be a hoop.Drain or None, not {drain!r}")
        return drain or self._drain or Drain()

    def limits_for(self, limits: Limits | None) -> Limits | None:
        """What a server gets whose maker has given limits."""
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits must be a hoop.Limits, not {limits!r}")
        return self._limits if limits is None else limits

    def proxy_protocol_for(self, proxy_protocol: ProxyProtocol | bool | None) -> ProxyProtocol | None:
        """What a server gets whose maker has given proxy_protocol."""
        if proxy_protocol is None:
            return self._proxy_protocol
        if proxy_protocol is False:
            return None
        if not isinstance(proxy_protocol, ProxyProtocol):
            raise TypeError(f"proxy_protocol must be a hoop.ProxyProtocol, not {proxy_protocol!r}")
        return proxy_protocol
