"""Types of the compiled module, for the Python modules of hoop."""

from typing import Any

def running_loop(user: str) -> Any: ...  # a hoop.Loop, which stands on a higher floor
