"""Find the hoop loop that runs in this thread, for functions that need one and take none."""
from hoop.core.reactor cimport Reactor

import asyncio


cdef Reactor running_reactor(str user):
    loop = asyncio.get_running_loop()
    if not isinstance(loop, Reactor):
        raise RuntimeError(f"{user} needs a running hoop loop (hoop.run, hoop.new_event_loop), not {loop!r}")
    return loop


def running_loop(str user not None):
    """Return the loop that runs in this thread. RuntimeError if none runs; if another kind does, it names user."""
    return running_reactor(user)
