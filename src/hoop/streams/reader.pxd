from hoop.core.flag cimport flag
from hoop.core.step_coroutine cimport StepCoroutine, StepOutcome
from hoop.net.chunks cimport Chunks


cdef class StreamReader:
    cdef object loop
    cdef object transport
    cdef object waiter          # the future of the one coroutine that waits for data, or None
    cdef object error           # set_exception()
    cdef Chunks unread          # as it came; empty while there is something in `joined`
    cdef bytearray joined       # all that is unread, once it was searched across chunks; None when empty
    cdef Py_ssize_t wanted      # unread bytes at which to wake it
    cdef readonly Py_ssize_t _limit
    cdef readonly flag _eof
    cdef flag is_paused
    cdef dict __dict__
    cdef object __weakref__

    cdef int feed(self, bytes data) except -1
    cdef Py_ssize_t available(self) noexcept
    cdef bytes take_unread(self, Py_ssize_t size)
    cdef Py_ssize_t find_unread(self, bytes separator, Py_ssize_t offset) except -2
    cdef int join_unread(self) except -1
    cdef int wake_reader(self) except -1
    cdef object begin_wait(self, str caller, Py_ssize_t wanted)
    cdef int resume_if_low(self) except -1


cdef class ReadingCoroutine(StepCoroutine):
    cdef StepOutcome attempt(self, StreamReader reader) except *
    cdef StepOutcome wait(self, StreamReader reader, str caller, Py_ssize_t wanted) except *
    cdef StepOutcome take(self, StreamReader reader, Py_ssize_t size) except *


cdef class ReadCoroutine(ReadingCoroutine):
    pass


cdef class ReadExactlyCoroutine(ReadingCoroutine):
    pass


cdef class ReadUntilCoroutine(ReadingCoroutine):
    cdef StepOutcome cut_short(self, StreamReader reader, bytes partial) except *
    cdef StepOutcome overrun(self, StreamReader reader, str message, Py_ssize_t consumed) except *


cdef class ReadLineCoroutine(ReadUntilCoroutine):
    pass


cdef class NextLineCoroutine(ReadLineCoroutine):
    pass
