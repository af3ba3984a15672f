"""Flow control of writing: two marks, and the protocol's pause_writing() and resume_writing() between them.

The keeper of the bytes says how many wait, and asks when it is worth it: a stream when the kernel has refused some, a
TLS session when it may not encrypt.
"""
from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef int set_watermarks(Watermarks *marks, object high, object low, Py_ssize_t default_high) except -1:
    """Set both marks as set_write_buffer_limits(high, low) asks. Of a fraction, the whole part counts."""
    if high is None:
        high = default_high if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    high = int(min(high, PY_SSIZE_T_MAX))
    marks.low = int(min(low, PY_SSIZE_T_MAX))
    marks.high = high
    return 0


cdef int pause_above(const Watermarks *marks, flag *is_paused, Py_ssize_t unsent, Reactor reactor, object transport,
                     object protocol) except -1:
    """Tell the protocol to pause if more than the high mark waits, unless it was told so and not yet to resume. Runs in
    the current context; may do anything."""
    if is_paused[0] or unsent <= marks.high:
        return 0
    is_paused[0] = True
    try:
        protocol.pause_writing()
    except BaseException as error:
        return reactor.callback_failed(error, "protocol.pause_writing() failed", transport, protocol)
    return 0


cdef int resume_below(const Watermarks *marks, flag *is_paused, Py_ssize_t unsent, Reactor reactor, object transport,
                      object protocol) except -1:
    """Tell a paused protocol to go on if no more than the low mark waits. As pause_above()."""
    if not is_paused[0] or unsent > marks.low:
        return 0
    is_paused[0] = False
    try:
        protocol.resume_writing()
    except BaseException as error:
        return reactor.callback_failed(error, "protocol.resume_writing() failed", transport, protocol)
    return 0
