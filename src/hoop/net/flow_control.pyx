"""Flow control of writing: two marks, and the protocol's pause_writing() and resume_writing() between them.

The keeper of the bytes says how many wait, and asks when it is worth it: a stream when the kernel has refused some, a
TLS session when it may not encrypt.
"""
from hoop.core.reactor cimport Reactor

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef int set_watermarks(FlowControl *flow, object high, object low, Py_ssize_t default_high) except -1:
    """Set both marks as set_write_buffer_limits(high, low) asks. Of a fraction, the whole part counts."""
    if high is None:
        high = default_high if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    high = int(min(high, PY_SSIZE_T_MAX))
    flow.low = int(min(low, PY_SSIZE_T_MAX))
    flow.high = high
    return 0


cdef int pause_above(FlowControl *flow, Py_ssize_t unsent, Reactor reactor, object transport,
                     object protocol) except -1:
    """Tell the protocol to pause if more than the high mark waits. Runs in the current context; may do anything."""
    if flow.is_paused or unsent <= flow.high:
        return 0
    flow.is_paused = True
    try:
        protocol.pause_writing()
    except BaseException as error:
        return reactor.callback_failed(error, "protocol.pause_writing() failed", transport, protocol)
    return 0


cdef int resume_below(FlowControl *flow, Py_ssize_t unsent, Reactor reactor, object transport,
                      object protocol) except -1:
    """Tell a paused protocol to go on if no more than the low mark waits. As pause_above()."""
    if not flow.is_paused or unsent > flow.low:
        return 0
    flow.is_paused = False
    try:
        protocol.resume_writing()
    except BaseException as error:
        return reactor.callback_failed(error, "protocol.resume_writing() failed", transport, protocol)
    return 0
