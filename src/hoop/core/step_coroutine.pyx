"""Coroutines of the streams as compiled objects: read() and drain() are called for each message.

An `async def` that Cython compiles makes four objects for a call that waits: the coroutine, its closure, the wrapper
that `await` iterates over, and the iterator of the future. Here it is one. To its users it is a coroutine:
create_task() takes it, isinstance() finds collections.abc.Coroutine, and an object that was never awaited warns.
"""
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from hoop.core.cpython_api cimport PyType_Modified

import warnings

ctypedef PyObject *(*iternextfunc)(PyObject *)

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        iternextfunc tp_iternext

    void set_error "PyErr_SetObject" (object kind, object value)

cdef object over = object()
cdef object warn = warnings.warn  # a C variable: Python may have emptied this module when the last coroutines go


@cython.freelist(128)
cdef class StepCoroutine:
    def __dealloc__(self):
        if not self.is_started:
            warn_never_awaited(self.name())

    def __await__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on. Returns what to wait for, or raises StopIteration with the result."""
        cdef object target
        if value is not None and not self.is_started:
            raise TypeError("can't send non-None value to a just-started coroutine")
        target = self.step(value)
        if target is over:
            raise StopIteration(self.result)
        return target

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where it waits."""
        cdef object error = kind if value is None else value
        cdef object target = self.target
        if isinstance(error, type):
            error = error()
        if traceback is not None:
            error = error.with_traceback(traceback)
        self.is_started = True
        if self.is_delegating and not self.is_over:
            try:
                return target.throw(error)
            except BaseException:
                self.is_over = True
                self.target = None
                raise
        self.is_over = True
        self.target = None
        if target is not None:
            self.forget(target)
        raise error

    def close(self):
        """Give up. Raises nothing, even if the coroutine is over."""
        cdef object target = self.target
        self.is_started = self.is_over = True
        self.target = None
        if target is not None:
            if self.is_delegating:
                target.close()
            else:
                self.forget(target)

    @property
    def __name__(self):
        return self.name()

    @property
    def __qualname__(self):
        return self.name()

    @property
    def cr_await(self):
        return self.target

    @property
    def cr_running(self):
        return False

    @property
    def cr_frame(self):
        return None

    @property
    def cr_code(self):
        return None

    def __repr__(self):
        return f"<coroutine {self.name()} of {self.subject!r}>"

    # ---- its steps -----------------------------------------------------------------------------------------------

    cdef StepOutcome begin(self) except *:
        raise NotImplementedError("a coroutine must begin")

    cdef StepOutcome wake(self, object future) except *:
        raise NotImplementedError("a coroutine that waits must wake")

    cdef int forget(self, object future) except -1:
        return 0

    cdef str name(self):
        return "StepCoroutine"

    cdef object step(self, object value):
        """Run a step. Returns the future to wait for, or `over`."""
        cdef StepOutcome outcome
        cdef object target
        if self.is_over:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if self.is_delegating:
            return self.delegate(value)
        self.is_over = True  # stays so if the step raises: a try block would cost more than the step
        if not self.is_started:
            self.is_started = True
            outcome = self.begin()
        else:
            target = self.target
            self.target = None
            outcome = self.wake(target)
        if outcome == STEP_ENDS:
            return over
        self.is_over = False
        if outcome == STEP_GOES_ON:
            self.is_delegating = True
            return self.delegate(None)
        self.target._asyncio_future_blocking = True  # as a future's own iterator says to the task
        return self.target

    cdef object delegate(self, object value):
        """Run a step of the coroutine that this one goes on with."""
        try:
            return self.target.send(value) if value is not None else next(self.target)
        except BaseException:
            self.is_over = True
            self.target = None
            raise


cdef int warn_never_awaited(str name) except -1:
    warn(f"coroutine '{name}' was never awaited", RuntimeWarning, stacklevel=1)
    return 0


cdef PyObject *next_step(PyObject *self) except? NULL:
    """tp_iternext. At the end the result travels in a StopIteration without a traceback, or with nothing for None."""
    cdef StepCoroutine coroutine = <StepCoroutine>self
    cdef object target = coroutine.step(None)
    cdef object result
    if target is over:
        result = coroutine.result
        coroutine.result = None
        if result is not None:
            set_error(StopIteration, result)
        return NULL
    Py_INCREF(target)
    return <PyObject *>target


cdef int install(object kind) except -1:
    """Fill the slot by hand: Cython gives the StopIteration of a method called __next__ a traceback."""
    (<PyTypeObject *>kind).tp_iternext = <iternextfunc>next_step
    PyType_Modified(<PyTypeObject *>kind)
    return 0


install(StepCoroutine)
