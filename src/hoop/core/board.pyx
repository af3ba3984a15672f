"""Board: memory that processes share, in which loops write what they do, for a process that watches them (csrc/board).

A process that is to be watched attaches its loop to a place of a board that it has inherited. Then the loop writes as
it goes, and the watcher reads without asking: it sees a loop that is blocked, and the last figures of one that is gone.
"""
cimport cython
from hoop.core.csrc cimport *
from hoop.core.errors cimport check
from hoop.core.reactor cimport Reactor
from libc.errno cimport EINVAL
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from hoop.stats import BoardReading


@cython.final
cdef class Lags:
    """Lags of one loop or, added up, of several; see Metrics.lag. A value."""
    cdef hoop_histogram own

    def __cinit__(self):
        hoop_histogram_init(&self.own)

    @property
    def count(self):
        """How many lags there are."""
        return self.own.count

    @property
    def sum_ns(self):
        return self.own.sum_ns

    @property
    def max_ns(self):
        """The longest; 0 if there is none. Of a difference it is at most 1/32 too high."""
        return self.own.max_ns

    def percentile_ns(self, double percentile):
        """The least lag that percentile per cent (0 to 100) of them do not exceed: at most 1/32 too high."""
        return hoop_histogram_percentile(&self.own, percentile)

    def longer_than(self, double seconds):
        """How many were longer; those of the bucket of `seconds` that are a little shorter are counted, too."""
        return hoop_histogram_count_from(&self.own, <int64_t>(min(max(seconds, 0.0), 9e9) * 1e9))

    def plus(self, Lags other not None):
        """Those of both."""
        cdef Lags sum = Lags.__new__(Lags)
        cdef int bucket
        for bucket in range(HOOP_HISTOGRAM_BUCKETS):
            sum.own.buckets[bucket] = self.own.buckets[bucket] + other.own.buckets[bucket]
        sum.own.count = self.own.count + other.own.count
        sum.own.sum_ns = self.own.sum_ns + other.own.sum_ns
        sum.own.max_ns = max(self.own.max_ns, other.own.max_ns)
        return sum

    def since(self, Lags earlier not None):
        """What has come after an earlier reading of the same place."""
        cdef Lags difference = Lags.__new__(Lags)
        cdef int bucket
        for bucket in range(HOOP_HISTOGRAM_BUCKETS):
            difference.own.buckets[bucket] = self.own.buckets[bucket] - earlier.own.buckets[bucket]
        difference.own.count = self.own.count - earlier.own.count
        difference.own.sum_ns = self.own.sum_ns - earlier.own.sum_ns
        difference.own.max_ns = self.own.max_ns
        difference.own.max_ns = hoop_histogram_percentile(&difference.own, 100)
        return difference

    def __repr__(self):
        return f"<Lags count={self.count} p50={self.percentile_ns(50)} ns max={self.max_ns} ns>"


@cython.final
cdef class Board:
    """places: how many loops it has room for, 1 to 65536; memory is taken when a place is first used.

    fd: the descriptor of a board that another image of this process has made (fileno()), instead. The board owns it
    from then on; ValueError if it is none, or one of another version of hoop.
    """
    cdef hoop_board own

    def __cinit__(self, int places=1024, *, int fd=-1):
        cdef int result
        memset(&self.own, 0, sizeof(self.own))
        self.own.fd = -1
        if fd < 0:
            if not 1 <= places <= HOOP_BOARD_MOST_PLACES:
                raise ValueError(f"a board has 1 to {HOOP_BOARD_MOST_PLACES} places, not {places}")
            check(hoop_board_open(&self.own, places))
            return
        result = hoop_board_adopt(&self.own, fd)
        if result == -EINVAL:
            raise ValueError(f"descriptor {fd} is no board of this version of hoop")
        check(result)

    def __dealloc__(self):
        hoop_board_close(&self.own)

    cdef hoop_board_place *place(self, int number) except NULL:
        if not 0 <= number < self.own.count:
            raise IndexError(f"the board has no place {number}; it has {self.own.count}")
        return &self.own.places[number]

    def __len__(self):
        return self.own.count

    def fileno(self):
        """The descriptor, close-on-exec and the board's; -1 where the system has no memory with a descriptor."""
        return self.own.fd

    def attach(self, loop not None, int place):
        """Have loop, a hoop loop, write there from now on; in its own thread, or while it does not run. A process
        attaches one loop at a time to a place of its own; another loop goes on from the figures of the one before."""
        cdef Reactor reactor = loop
        cdef hoop_board_place *found = self.place(place)
        reactor.check_ours("Board.attach")
        hoop_board_attach(&reactor.board, found, &reactor.meter, hoop_clock_ns())
        reactor.board_memory = self
        hoop_board_tell_run(&reactor.board, &reactor.meter, reactor.thread_id != 0, hoop_clock_ns())

    def count_requests(self, int place, uint64_t count=1):
        """Add to the requests of a place, from any thread."""
        hoop_board_count_requests(self.place(place), count)

    def clear(self, int place):
        """Make the place empty, for the next process; the former one must have ended."""
        hoop_board_clear(self.place(place))

    def read(self, int place):
        """A snapshot, as a hoop.stats.BoardReading."""
        cdef hoop_board_reading reading
        cdef uint64_t *figures = reading.figures
        cdef Lags lag = Lags.__new__(Lags)
        hoop_board_read(self.place(place), &reading)
        lag.own = reading.lag
        return BoardReading(
            pid=reading.pid, is_running=reading.is_running,
            busy_since=None if reading.busy_since_ns == 0 else <double>reading.busy_since_ns / 1e9,
            turns=figures[HOOP_BOARD_TURNS], callbacks=figures[HOOP_BOARD_CALLBACKS],
            events=figures[HOOP_BOARD_EVENTS], polls=figures[HOOP_BOARD_POLLS], sleeps=figures[HOOP_BOARD_SLEEPS],
            busy_ns=figures[HOOP_BOARD_BUSY_NS], idle_ns=figures[HOOP_BOARD_IDLE_NS],
            accepts=figures[HOOP_BOARD_ACCEPTS], connections=figures[HOOP_BOARD_CONNECTIONS],
            requests=reading.requests, jobs=figures[HOOP_BOARD_JOBS], lag=lag, is_torn=reading.is_torn,
        )


def place_of(loop not None):
    """(board, place) where loop, a hoop loop, writes; a board of its own from now on, if it wrote on none: call this in
    the loop's thread, or while it does not run. Any thread may read the board then."""
    cdef Reactor reactor = loop
    cdef Board board
    if reactor.board.place == NULL:
        Board(1).attach(loop, 0)
    board = reactor.board_memory
    return board, reactor.board.place - board.own.places
