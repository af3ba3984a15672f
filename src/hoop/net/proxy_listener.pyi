"""Types of what the Python modules of hoop use of the compiled listener for proxied connections."""

from collections.abc import Iterable
from typing import Any, Self

from typing_extensions import disjoint_base

from hoop.loop_methods.base_loop import BaseLoop
from hoop.net.listener import Listener

@disjoint_base
class ProxyGate:
    def __new__(
        cls,
        reactor: BaseLoop,
        networks: list[tuple[bytes, int]],
        versions: Iterable[int],
        timeout_s: float,
        ignores_untrusted: bool,
    ) -> Self: ...
    def counts(self) -> dict[str, int]: ...
    @property
    def completed(self) -> int: ...

@disjoint_base
class ProxyListener(Listener):
    def obey(self, gate: ProxyGate) -> None: ...

def end_arrivals_of(reactor: BaseLoop, server: Any) -> None: ...
