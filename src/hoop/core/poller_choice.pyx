"""Choose the poller's back end for a loop."""
from hoop.core.csrc cimport hoop_poller, hoop_poller_open
from hoop.core.errors cimport check

import errno
import os


cdef int open_poller(hoop_poller *poller, object name) except -1:
    """Open the back end called name; for None, the one that HOOP_POLLER names, or else the platform's best."""
    cdef bytes encoded
    cdef int result
    if name is None:
        name = os.environ.get("HOOP_POLLER") or None
    if name is None:
        return check(hoop_poller_open(poller, NULL))
    if not isinstance(name, str):
        raise TypeError(f"poller must be the name of a back end, not {name!r}")
    encoded = name.encode()
    result = hoop_poller_open(poller, encoded)
    if result == -errno.ENOTSUP:
        raise ValueError(f"no poller back end called {name!r} on this platform")
    return check(result)
