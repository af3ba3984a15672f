"""Whose a loop is: of the thread that has made it, then of the thread that has run it last (docs/threads.md).

Others may only call what is said to be safe from any thread. A loop changes hands when another thread runs it, or
closes it after its own thread has ended: so the number of a thread must not come again, as its identifier does.
"""
cimport cython
from hoop.core.cpython_api cimport PyThread_get_thread_ident
from libc.stdint cimport uint64_t

import threading

cdef set living = set()         # numbers of threads that have made or run a loop, until they end
cdef object here = threading.local()


class Witness:
    """Lives as long as the thread that it was made in."""

    __slots__ = ("number",)

    def __init__(self, number):
        self.number = number

    def __del__(self):
        living.discard(self.number)


cdef int note_thread() except -1:
    cdef uint64_t number = hoop_thread_number()
    if number not in living:
        here.witness = Witness(number)
        living.add(number)
    return 0


cdef class Owned:
    cdef int own(self) except -1:
        """It belongs to this thread from now on."""
        note_thread()
        hoop_store_number(&self.owner, hoop_thread_number())
        return 0

    cdef int let_threads_go(self) except -1:
        """A callback has ended for which a thread waits. Others may wait for another one: they look again."""
        cdef list waiting
        with cython.critical_section(self):
            waiting = self.waiting
            self.waiting = None
        if waiting is not None:
            for lock in waiting:
                lock.release()
        return 0

    cdef int claim(self) except -1:
        """This thread begins to run it. RuntimeError if one does already."""
        cdef unsigned long nobody = 0
        if not hoop_exchange_if(&self.thread_id, &nobody, PyThread_get_thread_ident()):
            raise RuntimeError("This event loop is already running")
        return self.own()

    cdef int claim_abandoned(self, str method) except -1:
        """It belongs to this thread from now on, if the thread that it belonged to has ended. RuntimeError if not."""
        cdef uint64_t former = hoop_load_number(&self.owner)
        if former == hoop_thread_number() or former == 0:
            return 0
        if former in living or not hoop_exchange_number_if(&self.owner, &former, hoop_thread_number()):
            raise RuntimeError(f"{method}() of an event loop that belongs to another thread: call it there, or when "
                               "that thread has ended")
        return 0
