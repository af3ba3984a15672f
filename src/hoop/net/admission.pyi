"""Types of what the Python modules of hoop use of the compiled Admission."""

from typing import Self

from typing_extensions import disjoint_base

from hoop.limits import Limits
from hoop.loop_methods.base_loop import BaseLoop

@disjoint_base
class Admission:
    def __new__(cls, reactor: BaseLoop, limits: Limits | None) -> Self: ...
    def counts(self) -> dict[str, int]: ...
