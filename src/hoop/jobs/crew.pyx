"""Jobs, and the threads that run them: the Python side of csrc/pool.h.

csrc/pool.h has the queue and says how a job travels: submitted by the loop's thread, run by a worker, back through the
loop's inbox by the node of its Handle. Here a Job is a Handle whose callback gives the job's result to its future.

Ownership. While in flight, a job's one reference moves: queue, worker, inbox, ready queue. The job keeps its loop
alive, as the thread that runs it would; the collector sees the job again as soon as it is in the inbox. Threads hold
their Crew, never a Pool.

A native job runs without the GIL. A PythonJob takes it; the threads of a crew that runs nothing else keep it from job
to job, and look for the next job only once they have it, so that a burst of short calls costs one change of threads.
"""
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.cpython_api cimport PyContext_New, PyErr_CheckSignals
from hoop.core.csrc cimport *
from hoop.core.errors cimport check, os_error
from hoop.core.handle cimport PostedHandle, handle_of_node
from hoop.core.ownership cimport IS_FREE_THREADED, hoop_exchange_if, hoop_load, hoop_look_at, hoop_set
from hoop.core.reactor cimport Reactor, flush_if_deferred
from libc.errno cimport ENOBUFS, ESHUTDOWN

import asyncio
import concurrent.futures
import contextvars
import os
import sys
import threading
import weakref

cdef enum:
    MOST_MS_WITHOUT_SIGNALS = 50
    JOBS_PER_GIL_RELEASE = 16  # a C function never looks whether another thread wants the GIL


# For the hooks at the end of this file. No attribute of the module: they may run after the interpreter has emptied it.
cdef object crews = weakref.WeakSet()

cdef extern from "sched.h":
    int sched_yield() nogil

cdef str NO_THREADS = "can't start new thread"  # as Python says it


# ---- jobs ---------------------------------------------------------------------------------------------------------

cdef class Job(PostedHandle):
    cdef object result(self):
        raise NotImplementedError("a job must have a result")

    cdef int deliver_to(self, object future) except -1:
        try:
            value = self.result()
        except BaseException as error:
            future.set_exception(presentable(error))
        else:
            future.set_result(value)
        return 0

    def __call__(self, future):
        """What the job's asyncio future calls when it is done before the job is back: its caller has cancelled it."""
        if self.crew is not None:
            self.crew.take_back(self)

    def __repr__(self):
        return f"<{type(self).__name__} {'ended' if self.future is None else self.future!r}>"


cdef class PythonJob(Job):
    def __cinit__(self):
        hoop_job_init(&self.own, run_python_job, HOOP_LANE_FILES)
        self.job = &self.own

    cdef int call(self) noexcept:
        """On the worker, which also lets go of what it has called."""
        try:
            self.value = self.func(*self.args)
        except BaseException as error:
            self.error = error
        self.func = None
        self.args = None
        return 0

    cdef int deliver_to(self, object future) except -1:
        error, self.error = self.error, None
        if error is None:
            future.set_result(self.value)
        else:
            future.set_exception(presentable(error))
        return 0


cdef void run_python_job(hoop_job *job) noexcept with gil:
    cdef PythonJob self = <PythonJob>handle_of_node(job.node)
    self.call()


cdef void abandon_job(hoop_job *job) noexcept with gil:
    """The job has run, but its loop is closed. The reference that travelled with the job ends here."""
    cdef Job self = <Job>handle_of_node(job.node)
    Py_DECREF(self)
    end_flight(self)


cdef int end_flight(Job job) except -1:
    job.future = None
    job.crew = None
    job.first = None  # the job itself
    return 0


def come_back(Job job not None):
    """The callback of a job's handle, on the loop's thread: the job has run, or will not."""
    cdef object future = job.future
    if future is None:
        raise RuntimeError(f"{job!r} is not in flight")
    (<Reactor>job.loop).jobs_in_flight -= 1
    end_flight(job)
    if future.done():
        return  # cancelled meanwhile: the result goes with the job
    try:
        future.remove_done_callback(job)
    except MemoryError:
        pass  # the future will call it, and it finds nothing to do
    if job.job.state == HOOP_JOB_DONE:
        job.deliver_to(future)
    elif job.job.state == HOOP_JOB_STRANDED:
        future.set_exception(RuntimeError(NO_THREADS))
    else:
        future.cancel()


cdef int cancel_now(Job job) except -1:
    """Cancel a job that is no longer queued, on its loop's thread."""
    (<Reactor>job.loop).jobs_in_flight -= 1
    future = job.future
    end_flight(job)
    future.cancel()
    return 0


cdef object presentable(object error):
    """The exception as a future may hold it; conversions as asyncio.wrap_future makes them."""
    if isinstance(error, StopIteration):
        allowed = RuntimeError("StopIteration interacts badly with generators and cannot be raised into a Future")
        allowed.__cause__ = allowed.__context__ = error
        return allowed
    if type(error) is concurrent.futures.CancelledError:
        return asyncio.CancelledError(*error.args).with_traceback(error.__traceback__)
    if type(error) is concurrent.futures.InvalidStateError:
        return asyncio.InvalidStateError(*error.args).with_traceback(error.__traceback__)
    return error


# ---- threads ------------------------------------------------------------------------------------------------------

class PoolFull(RuntimeError):
    """The queue of a pool is at its limit: wait for some of the submitted jobs before submitting more."""
    __module__ = "hoop.jobs.pool"  # where users have always found it


cdef class Crew:
    def __cinit__(self, int size, size_t queue_limit, int64_t spin_ns, str name, bint holds_gil):
        check(hoop_pool_open(&self.core, size, queue_limit, abandon_job))
        self.spin_ns = spin_ns
        if not holds_gil:  # spinning gains nothing for a thread that must wait for the GIL anyway
            hoop_pool_set_spin(self.core, spin_ns)
        self.size = size
        self.queue_limit = queue_limit
        self.name = name
        self.holds_gil = holds_gil
        self.threads = []
        self.hiring = threading.RLock()  # reentrant: a finalizer may use a pool at any moment, in this thread, too
        crews.add(self)

    def __dealloc__(self):
        if self.forked:
            hoop_pool_free_forked(self.core)
        else:
            hoop_pool_free(self.core)

    cdef int check_usable(self) except -1:
        if self.forked:
            raise RuntimeError("this pool belongs to the parent process; make a new one after fork()")
        if hoop_look_at(&self.stopped):
            raise RuntimeError("the pool is closed")
        return 0

    cdef object submit(self, Reactor reactor, Job job):
        reactor.check_ours("Pool.run_for")
        if reactor.forked:
            raise RuntimeError("this event loop belongs to the parent process; make a new one after fork()")
        if job.job == NULL or job.job.state != HOOP_JOB_IDLE or job.future is not None:
            raise RuntimeError(f"{job!r} cannot be submitted: it has no work, or was submitted before")
        flush_if_deferred(reactor)  # the job may tell a peer to look for what was written
        if reactor.crews is None or self not in reactor.crews:
            note_crew(reactor, self)
        future = reactor.new_future()
        job.loop = reactor
        job.context = PyContext_New()
        job.callback = come_back
        job.first = job  # the argument of come_back(); a bound method would cost 2 % of the instructions of a job
        job.argument_count = 1
        job.future = future
        job.job.inbox = &reactor.inbox
        job.job.waker = &reactor.waker
        future.add_done_callback(job)  # for the same reason it is the job that takes itself back: Job.__call__()
        reactor.jobs_in_flight += 1
        reactor.job_spin.limit_ns = self.spin_ns
        try:
            self.start(job)
        except BaseException:
            if job.future is None:  # else the job is on its way all the same, and is counted when it is back
                reactor.jobs_in_flight -= 1
            raise
        return future

    cdef int start(self, Job job) except -1:
        """Queue job, and start a thread if the queue wants one more. If start() raises, job.future tells whether the
        job was taken back (None) or a thread has it already."""
        cdef int result
        job.crew = self
        Py_INCREF(job)  # this one travels
        try:
            self.check_usable()
            result = hoop_pool_submit(self.core, job.job, job.job.inbox, job.job.waker, &job.node)
            if result < 0:
                raise self.refusal(result)
        except BaseException:
            Py_DECREF(job)
            end_flight(job)
            raise
        if result > 0:
            try:
                self.hire()
            except BaseException:
                if hoop_pool_cancel(self.core, job.job):
                    Py_DECREF(job)
                    end_flight(job)
                self.give_back(True)  # what callers have queued meanwhile, counting on this thread
                raise
        return 0

    def refusal(self, int result):
        if result == -ENOBUFS:
            return PoolFull(f"the queue of the pool is full: its limit is {self.queue_limit} jobs")
        if result == -ESHUTDOWN:
            return RuntimeError("cannot use the pool: it is closed, or the interpreter is shutting down")
        return os_error(result)

    cdef int hire(self) except -1:
        """Start the thread that submitting has asked for. If that raises, the crew no longer expects it, unless it
        runs."""
        cdef Place place = None
        thread = None
        try:
            place = Place.__new__(Place)
            place.crew = self
            with self.hiring:
                thread = threading.Thread(target=self.serve, args=(place,), name=f"{self.name}_{self.hired}",
                                          **without_context())
                self.hired += 1
                # Before start(), which an interrupt may end when the thread already runs. Weakly, so that a thread that
                # dies lets go of its place.
                self.threads.append(weakref.ref(thread))
                thread.start()
            if IS_FREE_THREADED:
                await_taken(place, thread)
        except BaseException as error:
            if place is not None and not place.take():
                raise
            self.forget_thread(thread)
            if hoop_pool_worker_failed(self.core) == 0 or not isinstance(error, RuntimeError):
                raise
            # else the system gives no more threads, and those that run will do
        return 0

    cdef int forget_thread(self, object thread) except -1:
        """It has not started; nor are those worth a place that have gone. In place, which takes no memory."""
        cdef Py_ssize_t i = 0
        with self.hiring:
            while i < len(self.threads):
                former = self.threads[i]()
                if former is None or former is thread:
                    del self.threads[i]
                else:
                    i += 1
        return 0

    def serve(self, Place place):
        """What a thread does until the crew is stopped."""
        cdef int result
        if not place.take():
            return  # hire() was interrupted, and does not expect this thread any more
        if self.holds_gil:
            result = self.serve_python()
        else:
            with nogil:
                result = hoop_pool_work(self.core)
        if result < 0:  # the thread has been counted out
            self.give_back(True)
            check(result)

    cdef int serve_python(self) except? -1:
        cdef hoop_worker worker
        cdef hoop_job *job
        cdef bint goes_on = True
        cdef int count = 0
        cdef int result = hoop_pool_enter(self.core, &worker)
        if result < 0:
            return result
        while goes_on:
            job = hoop_pool_next(self.core, &worker)
            if job != NULL:
                run_held(job)
                count += 1
                if count % JOBS_PER_GIL_RELEASE == 0:
                    with nogil:
                        pass
            else:
                with nogil:
                    goes_on = hoop_pool_wait(self.core, &worker)
        hoop_pool_leave(self.core, &worker)
        return 0

    cdef int take_back(self, Job job) except -1:
        """Take job out of the queue, if it is still there."""
        if not self.forked and hoop_pool_cancel(self.core, job.job):
            Py_DECREF(job)
            (<Reactor>job.loop).jobs_in_flight -= 1
            end_flight(job)
        return 0

    cdef int detach(self, Reactor reactor) except -1:
        """For a loop that closes: cancel its queued jobs, wait for its running ones."""
        cdef Job job
        cdef bint is_quiet = False
        if self.forked:
            return 0
        if hoop_pool_is_inside(self.core, &reactor.inbox):
            raise RuntimeError("a job of the pool cannot close the loop that waits for it")
        for job in taken_jobs(hoop_pool_cancel_all(self.core, &reactor.inbox)):
            cancel_now(job)
        while not is_quiet:
            with nogil:
                is_quiet = hoop_pool_wait_quiet(self.core, &reactor.inbox, MOST_MS_WITHOUT_SIGNALS)
            PyErr_CheckSignals()
        return 0

    cdef int disown(self, Reactor reactor) except -1:
        """For a loop that closes: let its jobs, queued or running, go on without it."""
        if not self.forked:
            with nogil:
                hoop_pool_disown(self.core, &reactor.inbox)
        return 0

    cdef int give_back(self, bint if_stranded) except -1:
        """From any thread: let the loops of all queued jobs cancel them. if_stranded: only if no thread runs or is on
        its way, and then tell the loops so."""
        cdef Job job
        cdef hoop_job *without_inbox
        if if_stranded:
            without_inbox = hoop_pool_give_back_stranded(self.core)
        else:
            without_inbox = hoop_pool_give_back(self.core)
        for job in taken_jobs(without_inbox):  # of a loop that is closed, or of none
            if job.loop is None:
                job.future.cancel()
            end_flight(job)
        return 0

    cdef int stop(self) except -1:
        """Have the threads end once they have run what is queued."""
        if not hoop_look_at(&self.stopped) and not self.forked:
            hoop_set(&self.stopped, True)
            hoop_pool_stop(self.core)
        return 0

    cdef bint is_over(self) except -1:
        """Whether it is stopped and the last thread has left."""
        cdef hoop_pool_stats stats
        if self.forked:
            return True
        hoop_pool_get_stats(self.core, &stats)
        return hoop_look_at(&self.stopped) and stats.threads == 0

    cdef int join(self) except -1:
        if self.forked:
            return 0
        with self.hiring:  # a thread that another one starts just now cannot be joined before it has started
            former_threads = list(self.threads)
        for former in former_threads:
            thread = former()
            if thread is not None and thread.ident is not None and thread is not threading.current_thread():
                thread.join()
        return 0


cdef class Place:
    """Stands for a thread that the crew expects. The thread takes its place as the first thing it does. If it ends, or
    cannot begin, before that (Python code of its start has found no memory), the crew must not wait for it."""
    cdef Crew crew
    cdef unsigned long is_taken     # by the thread, or back by hire()

    cdef bint take(self) noexcept:
        """Whether it was still free."""
        cdef unsigned long expected = 0
        return hoop_exchange_if(&self.is_taken, &expected, 1)

    def __del__(self):
        if self.crew is not None and not self.crew.forked and self.take():
            hoop_pool_worker_failed(self.crew.core)
            self.crew.give_back(True)


cdef int await_taken(Place place, object thread) except -1:
    """RuntimeError if the thread dies before it has taken its place. Without a GIL, that a place is let go of is not
    always heard of: what another thread lets go of last is freed by the thread that made it, when that next runs Python
    code, and it may be a loop that sleeps until this job is done. threading starts a thread before it returns, so that
    this is a matter of microseconds."""
    while not hoop_load(&place.is_taken) and thread.is_alive():
        with nogil:
            sched_yield()
    if not hoop_load(&place.is_taken):
        raise RuntimeError(NO_THREADS)
    return 0


cdef dict without_context():
    """Arguments of a thread that begins in a context of its own. Since Python 3.14 it may begin in a copy of that of
    who starts it (without a GIL it does): of one of many callers, and it would keep that for all that it runs."""
    return {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}


cdef int note_crew(Reactor reactor, Crew crew) except -1:
    """Note that crew has jobs of this loop from now on. Forget crews whose last thread has left: they have none
    left."""
    cdef Crew former
    reactor.crews = {former for former in reactor.crews or () if not former.is_over()}
    reactor.crews.add(crew)
    return 0


cdef list taken_jobs(hoop_job *job):
    """The jobs of a C list, which are no longer queued. Their references travel no more."""
    cdef hoop_job *next
    cdef list jobs = []
    while job != NULL:
        next = job.newer
        jobs.append(<object>handle_of_node(job.node))
        Py_DECREF(<object>handle_of_node(job.node))
        job = next
    return jobs


cdef int run_held(hoop_job *job) except -1:
    cdef PythonJob held = <PythonJob>handle_of_node(job.node)
    held.call()
    return 0


# ---- the process --------------------------------------------------------------------------------------------------

def mark_crews_forked():
    """In the child: the threads are gone, and the locks may be held by one of them."""
    cdef Crew crew
    for crew in list(crews):
        crew.forked = True


def stop_crews():
    """At the end of the interpreter, before it waits for the threads of pools that were not closed."""
    cdef Crew crew
    for crew in members(crews):
        crew.stop()


cdef list members(object living):
    """The members of a WeakSet, to which another thread may be adding."""
    while True:
        try:
            return list(living)
        except RuntimeError:  # it has changed meanwhile
            pass


os.register_at_fork(after_in_child=mark_crews_forked)
threading._register_atexit(stop_crews)
