"""Types of the compiled module, for the Python modules of hoop."""

import socket
from typing import Any, final

def is_patched() -> bool: ...
def literal_family(host: object) -> socket.AddressFamily | None: ...

@final
class Literals:
    def answer(
        self, host: object, port: object, family: int, type: int, proto: int, flags: int
    ) -> list[tuple[Any, Any, int, str, Any]] | None: ...
