"""hoop.Pool, the pool of a loop, and the sizes that the environment may set.

A Pool is its owner's hold on a Crew, which has the queue and the threads (hoop.jobs.crew): a Pool that is dropped
without close() stops its crew, whose threads hold the crew, never the Pool.
"""
cimport cython
from hoop.core.csrc cimport *
from hoop.core.reactor cimport Reactor
from hoop.core.running cimport running_reactor
from hoop.jobs.crew cimport Crew, Job, PythonJob
from libc.stdint cimport int64_t

import os

from hoop.core.processors import usable_processors
from hoop.jobs.crew import PoolFull  # no-cython-lint: hoop.PoolFull is looked up here
from hoop.stats import Durations, PoolStats

cdef enum:
    DEFAULT_SIZE = 4
    DEFAULT_SPIN_US = 30
    MOST_SPIN_US = 1000


# ---- pools --------------------------------------------------------------------------------------------------------

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
        if self.crew is not None:
            self.crew.detach(loop)

    def cancel_queued(self):
        """Cancel every job that does not run yet, each on its loop's thread."""
        if not self.its_crew().forked:
            self.crew.give_back(False)

    def stop(self):
        """Take no more jobs. The threads end when they have run what is queued; stop() does not wait for that."""
        self.its_crew().stop()

    def join(self):
        """After stop(): wait for the threads to end. RuntimeError before it: they would never end."""
        cdef Crew crew = self.its_crew()
        if not crew.stopped and not crew.forked:
            raise RuntimeError("join() comes after stop(): the threads of an open pool do not end")
        crew.join()

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
        crew.disown(loop)


def python_pool(int size, str name):
    """A pool for Python calls only, which may wait for one another; size is their number, not that of the cores."""
    cdef Pool pool = Pool.__new__(Pool)
    pool.crew = Crew(size, 0, spin_ns_of(None), name, True)
    return pool


# ---- settings and figures -----------------------------------------------------------------------------------------

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
    # On one processor a thread that looks keeps off the one that works.
    return spin_us * 1000 if usable_processors() > 1 else 0


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
