# ownership.pxd: whose a loop is. Inline, since every call that schedules asks.
from hoop.core.cpython_api cimport PyThread_get_thread_ident
from hoop.core.flag cimport flag
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define HOOP_IS_FREE_THREADED 1
    typedef PyMutex hoop_mutex;
    #define hoop_mutex_lock(mutex) PyMutex_Lock(mutex)
    #define hoop_mutex_unlock(mutex) PyMutex_Unlock(mutex)
    #define hoop_let_borrow(object) PyUnstable_EnableTryIncRef(object)
    #define hoop_try_incref(object) PyUnstable_TryIncRef(object)
    #else
    #define HOOP_IS_FREE_THREADED 0
    typedef char hoop_mutex;
    #define hoop_mutex_lock(mutex) ((void)(mutex))
    #define hoop_mutex_unlock(mutex) ((void)(mutex))
    #define hoop_let_borrow(object) ((void)(object))
    #define hoop_try_incref(object) (Py_INCREF(object), 1)
    #endif
    #define hoop_thread_number() PyThreadState_GetID(PyThreadState_Get())
    #define hoop_load(place) __atomic_load_n(place, __ATOMIC_RELAXED)
    #define hoop_store(place, value) __atomic_store_n(place, value, __ATOMIC_RELAXED)
    #define hoop_load_ordered(place) __atomic_load_n(place, __ATOMIC_SEQ_CST)
    #define hoop_store_ordered(place, value) __atomic_store_n(place, value, __ATOMIC_SEQ_CST)
    #define hoop_add(place, value) __atomic_add_fetch(place, value, __ATOMIC_SEQ_CST)
    #define hoop_exchange_if(place, expected, value) \\
        __atomic_compare_exchange_n(place, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)
    """
    const bint IS_FREE_THREADED "HOOP_IS_FREE_THREADED"  # a constant: what it guards costs other builds nothing
    ctypedef char hoop_mutex    # where the GIL is no lock; nothing where it is one
    void hoop_mutex_lock(hoop_mutex *mutex) noexcept
    void hoop_mutex_unlock(hoop_mutex *mutex) noexcept
    void hoop_let_borrow(void *item) noexcept   # before item is shown to others without a reference to it
    bint hoop_try_incref(void *item) noexcept   # unless another thread just now drops the last reference
    uint64_t hoop_thread_number() noexcept      # of this thread: the interpreter never gives one twice
    unsigned long hoop_load(unsigned long *place) noexcept
    void hoop_store(unsigned long *place, unsigned long value) noexcept
    bint hoop_load_flag "hoop_load" (flag *place) noexcept
    void hoop_store_flag "hoop_store" (flag *place, bint value) noexcept
    bint hoop_look_at "hoop_load" (bint *place) noexcept
    void hoop_set "hoop_store" (bint *place, bint value) noexcept
    bint hoop_load_bint "hoop_load_ordered" (bint *place) noexcept
    void hoop_store_bint "hoop_store_ordered" (bint *place, bint value) noexcept
    uint64_t hoop_load_number "hoop_load" (uint64_t *place) noexcept
    void hoop_store_number "hoop_store" (uint64_t *place, uint64_t value) noexcept
    bint hoop_exchange_number_if "hoop_exchange_if" (uint64_t *place, uint64_t *expected, uint64_t value) noexcept
    bint hoop_exchange_if(unsigned long *place, unsigned long *expected, unsigned long value) noexcept
    int hoop_add(int *place, int value) noexcept


cdef class Owned:
    """What belongs to one thread: the one that has made it, then the one that has run it last."""
    cdef unsigned long thread_id  # the identifier of the thread that runs it, else 0
    cdef uint64_t owner         # the number of the thread that it belongs to; 0: to any
    cdef list waiting           # locks of other threads, each of which waits for the end of a callback; or None

    cdef inline bint is_ours(self) noexcept:
        """Whether this thread is the one that it belongs to."""
        cdef unsigned long runner = hoop_load(&self.thread_id)
        if runner != 0:
            return runner == PyThread_get_thread_ident()
        cdef uint64_t owner = hoop_load_number(&self.owner)
        return owner == hoop_thread_number() or owner == 0

    cdef int own(self) except -1
    cdef int let_threads_go(self) except -1
    cdef int claim(self) except -1
    cdef int claim_abandoned(self, str method) except -1
