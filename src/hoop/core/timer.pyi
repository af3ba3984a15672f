"""Types of the compiled Timer."""

from typing import Self

from typing_extensions import disjoint_base

from hoop.core.handle import Closable

@disjoint_base
class Timer(Closable):
    @property
    def delay(self) -> float: ...
    @property
    def repeats(self) -> bool: ...
    def when(self) -> float: ...
    def refresh(self) -> Self: ...
