from hoop.core.flag cimport flag


cdef enum StepOutcome:
    STEP_ENDS                   # `result` is the value of the await expression
    STEP_WAITS                  # for `target`, a future
    STEP_GOES_ON                # with `target`, the iterator of another coroutine


cdef class StepCoroutine:
    """An awaitable that costs one small object. Its subclasses do the work, in begin() and wake()."""
    cdef object subject         # the reader or writer that it works on
    cdef Py_ssize_t size        # an argument
    cdef object target          # what it waits for, or goes on with
    cdef object result          # until it ends, an argument
    cdef flag is_started
    cdef flag is_delegating     # target is the iterator of another coroutine
    cdef flag is_over

    cdef StepOutcome begin(self) except *       # the first step
    cdef StepOutcome wake(self, object future) except *  # the step after the future is done
    cdef int forget(self, object future) except -1  # do not wait for it any more
    cdef str name(self)
    cdef object step(self, object value)
    cdef object delegate(self, object value)
