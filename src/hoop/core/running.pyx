"""Which hoop loop runs in this thread: for what needs one and is not handed one."""
from hoop.core.reactor cimport Reactor

import asyncio


cdef Reactor running_reactor(str user):
    loop = asyncio.get_running_loop()
    if not isinstance(loop, Reactor):
        raise RuntimeError(f"{user} needs a running hoop loop (hoop.run, hoop.new_event_loop), not {loop!r}")
    return loop


def running_loop(str user not None):
    """The loop that runs in this thread. RuntimeError if none runs; if another one than hoop's does, it names user."""
    return running_reactor(user)
