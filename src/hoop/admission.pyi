"""Types of what the Python modules of hoop use of the compiled Admission."""

from hoop.base_loop import BaseLoop
from hoop.limits import Limits

class Admission:
    def __init__(self, reactor: BaseLoop, limits: Limits | None) -> None: ...
    def counts(self) -> dict[str, int]: ...
