"""The thread pool's Python side: jobs, the threads that run them, and the futures of their results.

csrc/pool.h has the queue and says how a job travels: submitted by the loop's thread, run by a worker, back through the
loop's inbox by the node of its Handle. Here a Job is a Handle whose callback gives the job's result to its future.

Ownership. While in flight, a job's one reference moves: queue, worker, inbox, ready queue. The job keeps its loop
alive, as the thread that runs it would; the collector sees the job again as soon as it is in the inbox. Threads hold
their Crew, never a Pool: a Pool that is dropped without close() stops its crew.

A native job runs without the GIL. A PythonJob takes it; the threads of a crew that runs nothing else keep it from job
to job, and look for the next job only once they have it, so that a burst of short calls costs one change of threads.
"""
cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.cpython_api cimport PyContext_New, PyErr_CheckSignals
from hoop.core.csrc cimport *
from hoop.core.errors cimport check, os_error
from hoop.core.handle cimport Handle, handle_of_node
from hoop.core.reactor cimport Reactor, flush_if_deferred
from hoop.core.running cimport running_reactor
from libc.errno cimport ENOBUFS, ESHUTDOWN

import asyncio
import concurrent.futures
import os
import threading
import weakref

from hoop.stats import Durations, PoolStats

cdef enum:
    DEFAULT_SIZE = 4
    DEFAULT_SPIN_US = 30
    MOST_SPIN_US = 1000
    MOST_MS_WITHOUT_SIGNALS = 50
    JOBS_PER_GIL_RELEASE = 16  # a C function never looks whether another thread wants the GIL


# For the hooks at the end of this file. No attribute of the module: they may run after the interpreter has emptied it.
cdef object crews = weakref.WeakSet()

cdef str NO_THREADS = "can't start new thread"  # as Python says it


# ---- jobs ---------------------------------------------------------------------------------------------------------

cdef class Job(Handle):
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
    """func(*args), on a thread of the pool."""
    cdef hoop_job own
    cdef object func
    cdef tuple args
    cdef object value
    cdef object error

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
        if self.stopped:
            raise RuntimeError("the pool is closed")
        return 0

    cdef object submit(self, Reactor reactor, Job job):
        reactor.check_open()
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
        reactor.spin.limit_ns = self.spin_ns
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
            thread = threading.Thread(target=self.serve, args=(place,), name=f"{self.name}_{self.hired}")
            self.hired += 1
            with self.hiring:
                # Before start(), which an interrupt may end when the thread already runs. Weakly, so that a thread that
                # dies lets go of its place.
                self.threads.append(weakref.ref(thread))
                thread.start()
        except BaseException as error:
            if place is not None:
                if place.is_taken:
                    raise
                place.is_taken = True
            self.forget_thread(thread)
            if hoop_pool_worker_failed(self.core) == 0 or not isinstance(error, RuntimeError):
                raise
            # else the system gives no more threads, and those that run will do
        return 0

    cdef int forget_thread(self, object thread) except -1:
        """It has not started; nor are those worth a place that have gone. In place, which takes no memory."""
        cdef Py_ssize_t i = 0
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
        if place.is_taken:
            return  # hire() was interrupted, and does not expect this thread any more
        place.is_taken = True
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

    cdef list empty_queue(self, Reactor reactor):
        """Take back and return the jobs that are queued for reactor."""
        return taken_jobs(hoop_pool_cancel_all(self.core, &reactor.inbox))

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
        if not self.stopped and not self.forked:
            self.stopped = True
            hoop_pool_stop(self.core)
        return 0

    cdef bint is_over(self) except -1:
        """Whether it is stopped and the last thread has left."""
        cdef hoop_pool_stats stats
        if self.forked:
            return True
        hoop_pool_get_stats(self.core, &stats)
        return self.stopped and stats.threads == 0

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
    cdef bint is_taken          # by the thread, or back by hire()

    def __del__(self):
        if not self.is_taken and self.crew is not None and not self.crew.forked:
            self.is_taken = True
            hoop_pool_worker_failed(self.crew.core)
            self.crew.give_back(True)


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


# ---- pools --------------------------------------------------------------------------------------------------------

class PoolFull(RuntimeError):
    """The queue of a pool is at its limit: wait for some of the submitted jobs before submitting more."""


@cython.auto_pickle(False)
@cython.no_gc_clear  # the crew must still be there when the pool goes
cdef class Pool:
    """Threads for what would block a loop: files, name lookups, hashes, compression.

    size: the most threads, 1 to 1024 (default: HOOP_THREADPOOL_SIZE, else 4); they are started when they are needed.
    Name lookups may use half of them, at least one, and two more for names that do not wait for a name server.
    queue_limit: the most jobs that may wait for a thread; one more raises PoolFull. None is no limit.
    spin_us: how many microseconds a thread looks for the next job, and the loop for a result, before they sleep; 0 to
    1000 (default: HOOP_POOL_SPIN_US, else 30, or 0 where the process has one CPU). See docs/pool.md.
    ValueError or TypeError for other values.

    A loop makes a pool of its own at first use (Loop.pool) and closes it. A pool that the user makes can be handed to
    several loops, in the same or in different threads, as Loop(pool=...); the user closes it, or uses it in a `with`.
    """

    def __init__(self, size=None, *, queue_limit=None, spin_us=None):
        if self.crew is not None:
            raise RuntimeError("a pool is initialised once")
        self.crew = Crew(size_of_pool(size), limit_of_queue(queue_limit), spin_ns_of(spin_us), "hoop-pool", False)

    def __dealloc__(self):
        if self.crew is not None:
            self.crew.stop()

    cdef Crew its_crew(self):
        if self.crew is None:  # a subclass that forgot super().__init__()
            raise RuntimeError("Pool.__init__() was not called")
        return self.crew

    cdef object submit(self, Reactor reactor, Job job):
        return self.its_crew().submit(reactor, job)

    @property
    def size(self):
        """The most threads, but for two that names may have besides."""
        return self.its_crew().size

    @property
    def spin_us(self):
        """How many microseconds to look for jobs and results before sleeping."""
        return self.its_crew().spin_ns // 1000

    @property
    def closed(self):
        """Whether close() was called."""
        return self.its_crew().stopped

    def run(self, func, *args):
        """Call func(*args) on a thread of the pool; an asyncio future of its result, on the running loop.

        For calls that end by themselves and soon, and let go of the GIL (hashlib, zlib): as many as there are threads
        run at a time, and one that waits for another may wait for ever. loop.run_in_executor has no such bound.
        Cancelling the future takes the call back while it is queued; once it runs, it runs to its end and the result is
        dropped.
        RuntimeError without a running hoop loop, or if the pool is closed; PoolFull; TypeError if func is not callable.
        """
        return self.run_for(running_reactor("hoop.Pool"), func, args)

    def run_for(self, Reactor loop not None, func, tuple args):
        """As run, for a loop that need not be running."""
        if not callable(func):
            raise TypeError(f"a callable was expected, got {func!r}")
        cdef PythonJob job = PythonJob.__new__(PythonJob)
        job.func = func
        job.args = args
        return self.its_crew().submit(loop, job)

    def run_without_loop(self, future, func, tuple args):
        """Call func(*args), which must not raise. future: a concurrent.futures.Future, cancelled if the call never
        happens."""
        cdef PythonJob job = PythonJob.__new__(PythonJob)
        job.func = func
        job.args = args
        job.future = future
        self.its_crew().start(job)

    def stats(self):
        """What the pool does and has done: a PoolStats."""
        cdef hoop_pool_stats stats
        if self.its_crew().forked:
            raise RuntimeError("this pool belongs to the parent process; make a new one after fork()")
        hoop_pool_get_stats(self.crew.core, &stats)
        return PoolStats(
            size=stats.size, threads=stats.threads, idle=stats.idle, queued=stats.queued, running=stats.running,
            dns_queued=stats.dns_queued, dns_running=stats.dns_running, done=stats.done, cancelled=stats.cancelled,
            refused=stats.refused, wake_ups=stats.wake_ups, wait=durations(&stats.wait), run=durations(&stats.run),
        )

    def detach(self, Reactor loop not None):
        """For a loop that closes: cancel its queued jobs, wait for its running ones.

        RuntimeError when one of these calls it; KeyboardInterrupt, say, may end the waiting.
        """
        cdef Job job
        cdef bint is_quiet = False
        if self.crew is None or self.crew.forked:
            return
        if hoop_pool_is_inside(self.crew.core, &loop.inbox):
            raise RuntimeError("a job of the pool cannot close the loop that waits for it")
        for job in self.crew.empty_queue(loop):
            cancel_now(job)
        while not is_quiet:
            with nogil:
                is_quiet = hoop_pool_wait_quiet(self.crew.core, &loop.inbox, MOST_MS_WITHOUT_SIGNALS)
            PyErr_CheckSignals()

    def cancel_queued(self):
        """Cancel every job that does not run yet, each on its loop's thread."""
        if not self.its_crew().forked:
            self.crew.give_back(False)

    def stop(self):
        """Take no more jobs. The threads end when they have run what is queued; stop() does not wait for that."""
        self.its_crew().stop()

    def join(self):
        """After stop(): wait for the threads to end."""
        self.its_crew().join()

    def close(self):
        """Take no more jobs, cancel the queued ones, and wait for the running ones and the threads. Idempotent."""
        self.its_crew().stop()
        self.cancel_queued()
        self.crew.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        return f"<hoop.Pool size={self.size}{' closed' if self.closed else ''}>"


# ---- the pool of a loop -------------------------------------------------------------------------------------------

def keep_pool(Reactor loop not None, Pool pool, size):
    """For a loop that is made: it uses pool, which stays its maker's, or if that is None makes one of its own at need.

    size: of the latter, as Pool has it. TypeError or ValueError.
    """
    loop.jobs_pool_size = size_of_pool(size)
    loop.jobs_pool = pool
    loop.owns_jobs_pool = pool is None


cdef Pool pool_of(Reactor reactor):
    if reactor.jobs_pool is None:
        reactor.check_open()
        reactor.jobs_pool = Pool(reactor.jobs_pool_size)
    return reactor.jobs_pool


def loop_pool(Reactor loop not None):
    """The pool of loop, made at first use. RuntimeError once loop is closed and has none."""
    return pool_of(loop)


def loop_pool_if_made(Reactor loop not None):
    """The pool of loop, or None."""
    return loop.jobs_pool


def leave_pool(Reactor loop not None, bint may_wait):
    """For a loop that closes: cancel its queued jobs, wait for its running ones, and close a pool that is its own.

    may_wait: False when a finalizer calls: then only tell the threads of such a pool to end. As Pool.detach().
    """
    cdef Pool pool = loop.jobs_pool
    if pool is None:
        return
    pool.detach(loop)
    if loop.owns_jobs_pool and may_wait:
        pool.close()
    elif loop.owns_jobs_pool:
        pool.stop()


def disown_jobs(Reactor loop not None):
    """For a loop that closes: let its jobs, queued or running, go on without it, in whatever pool they are."""
    cdef Crew crew
    crews_of_loop, loop.crews = loop.crews, None
    for crew in crews_of_loop or ():
        if not crew.forked:
            with nogil:
                hoop_pool_disown(crew.core, &loop.inbox)


def python_pool(int size, str name):
    """A pool for Python calls only, which may wait for one another; size is their number, not that of the cores."""
    cdef Pool pool = Pool.__new__(Pool)
    pool.crew = Crew(size, 0, spin_ns_of(None), name, True)
    return pool


cdef int cancel_now(Job job) except -1:
    """Cancel a job that is no longer queued, on its loop's thread."""
    (<Reactor>job.loop).jobs_in_flight -= 1
    future = job.future
    end_flight(job)
    future.cancel()
    return 0


cdef object durations(const hoop_histogram *histogram):
    return Durations(
        count=histogram.count,
        mean_ns=hoop_histogram_mean_ns(histogram),
        p50_ns=hoop_histogram_percentile(histogram, 50),
        p99_ns=hoop_histogram_percentile(histogram, 99),
        max_ns=histogram.max_ns,
    )


def size_of_pool(size):
    """size, else HOOP_THREADPOOL_SIZE, else the default: 1 to 1024. ValueError or TypeError names the value."""
    if size is None:
        return number_in_environment("HOOP_THREADPOOL_SIZE", DEFAULT_SIZE, 1, HOOP_POOL_MAX_SIZE)
    return checked_number("the size of a pool", size, 1, HOOP_POOL_MAX_SIZE)


cdef size_t limit_of_queue(object limit) except? 0:
    return 0 if limit is None else checked_number("queue_limit", limit, 1, 2**31)


cdef int64_t spin_ns_of(object spin_us) except? -1:
    if spin_us is None:
        spin_us = number_in_environment("HOOP_POOL_SPIN_US", DEFAULT_SPIN_US, 0, MOST_SPIN_US)
    else:
        checked_number("spin_us", spin_us, 0, MOST_SPIN_US)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return spin_us * 1000 if cpus > 1 else 0  # on one CPU, a thread that looks keeps off the one that works


cdef object number_in_environment(str name, int default, int least, int most):
    text = os.environ.get(name)
    if text is None or text == "":
        return default
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{name} must be a number from {least} to {most}, not {text!r}") from None
    return checked_number(name, number, least, most)


cdef object checked_number(str name, object number, least, most):
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{name} must be an int, not {number!r}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {number!r}")
    return number


# ---- the process --------------------------------------------------------------------------------------------------

def mark_crews_forked():
    """In the child: the threads are gone, and the locks may be held by one of them."""
    cdef Crew crew
    for crew in list(crews):
        crew.forked = True


def stop_crews():
    """At the end of the interpreter, before it waits for the threads of pools that were not closed."""
    cdef Crew crew
    for crew in list(crews):
        crew.stop()


os.register_at_fork(after_in_child=mark_crews_forked)
threading._register_atexit(stop_crews)
