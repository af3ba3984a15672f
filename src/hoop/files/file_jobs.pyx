"""The jobs of hoop.fs: one job of the pool for each operation, and its result as Python has it.

Each function starts one operation on the running loop's pool and returns its asyncio future. Cancelling that takes a
queued job back; a running one goes on to its end, and its result is dropped. A job owns what it points into (encoded
paths, bytes to write, room to read into), so no caller can change or free it meanwhile. csrc/jobs_fs.h says what the
jobs do.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from hoop.core.csrc cimport *
from hoop.core.errors cimport file_error
from hoop.core.reactor cimport Reactor
from hoop.core.running cimport running_reactor
from hoop.jobs.crew cimport Job
from hoop.jobs.pool cimport pool_of
from libc.errno cimport EBADF
from libc.stdint cimport int64_t
from posix.stat cimport S_ISREG, fstat, struct_stat

import os

from hoop.stats import CachedReadStats

cdef extern from "Python.h":
    int PyUnicode_FSConverter(object path, PyObject **encoded) except 0
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)
    object PyOS_FSPath(object path)
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *content, Py_ssize_t size) except NULL
    char *bytes_room "PyBytes_AS_STRING" (PyObject *content)
    int _PyBytes_Resize(PyObject **content, Py_ssize_t size) except -1
    int PySys_Audit(const char *event, const char *format, ...) except -1

# CPython calls its audit hooks (sys.addaudithook) before each of these operations; so do the functions below, with the
# same names and arguments. Without hooks that is one comparison.
cdef int NO_FOLDER = -1         # dir_fd: the path is relative to the working directory
cdef int WRITING = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

cdef enum:
    # A job reads a file up to this size into its own memory, and the loop's thread copies it. A larger one is read
    # straight into its `bytes`, which only the loop's thread can make: a second hop is cheaper than such a copy.
    MOST_COPIED = 262144
    NS_PER_SECOND = 1000000000

cdef bint HAS_FLAGS = hasattr(os.stat_result, "st_flags")  # macOS and the BSDs
cdef bint HAS_GENERATION = hasattr(os.stat_result, "st_gen")
cdef bint HAS_BIRTH_TIME = hasattr(os.stat_result, "st_birthtime")
cdef tuple MISSES = ("off", "turn", "lookup", "type", "unknown_device", "foreign_device", "large", "open", "contents")


# ---- reading without the pool -------------------------------------------------------------------------------------

@cython.final
cdef class CachedFiles:
    """Reads of small files that the page cache holds, for one loop, on its own thread (csrc/fs_cached.h)."""
    cdef hoop_fs_cached own

    def __cinit__(self, bint enabled):
        hoop_fs_cached_init(&self.own, not enabled)

    def __dealloc__(self):
        hoop_fs_cached_close(&self.own)

    cdef object read(self, Reactor reactor, bytes path):
        """The contents; None if the pool must read them."""
        cdef hoop_fs_cached_file file
        cdef int64_t size = hoop_fs_cached_open(&self.own, PyBytes_AS_STRING(path), reactor.meter.turns, &file)
        if size < 0:
            return None
        try:
            data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        except MemoryError:
            hoop_fs_cached_take(&self.own, &file, NULL)
            raise
        if hoop_fs_cached_take(&self.own, &file, PyBytes_AS_STRING(data)) < 0:
            return None
        return data


cdef CachedFiles cached_files_of(Reactor reactor):
    """Those of a loop, which has them until it closes."""
    if reactor.cached_files is None:
        reactor.check_open()
        reactor.cached_files = CachedFiles(reactor.reads_cached_files)
    return reactor.cached_files


# ---- jobs ---------------------------------------------------------------------------------------------------------

cdef class FsJob(Job):
    """One operation without a result. The subclasses have results."""
    cdef hoop_fs_job own
    cdef object name            # the paths as errors show them: os.fspath() of the arguments
    cdef object other_name
    cdef object kept            # `own` points into these two
    cdef object other_kept
    cdef PyObject *room         # the bytes that the job fills; NULL or owned

    def __dealloc__(self):
        hoop_fs_job_free(&self.own)
        Py_XDECREF(self.room)

    cdef object result(self):
        if self.own.result < 0:
            raise self.failure()
        return self.answer()

    cdef object failure(self):
        name = self.name if self.own.blamed & HOOP_FS_FIRST else None
        other_name = self.other_name if self.own.blamed & HOOP_FS_SECOND else None
        if name is None:
            name, other_name = other_name, None
        return file_error(self.own.result, name, other_name)

    cdef object answer(self):
        return None

    cdef object begin(self, hoop_fs_kind kind):
        hoop_fs_job_init(&self.own, kind)
        self.job = &self.own.job
        return self

    cdef object point_at(self, path, bint may_be_fd):
        """Set the file: a path, or the number of a descriptor."""
        if may_be_fd and isinstance(path, int):
            if path < 0:
                raise file_error(-EBADF, path, None)
            self.own.fd = path
            self.name = path
            return self
        self.name = PyOS_FSPath(path)
        self.kept = encoded(self.name)
        self.own.path = PyBytes_AS_STRING(self.kept)
        return self

    cdef object point_at_other(self, path):
        self.other_name = PyOS_FSPath(path)
        self.other_kept = encoded(self.other_name)
        self.own.other_path = PyBytes_AS_STRING(self.other_kept)
        return self

    cdef object take_data(self, data):
        """Set the bytes to write: keep an immutable object, copy another."""
        self.other_kept = data if PyBytes_CheckExact(data) else memoryview(data).tobytes()
        self.own.data = PyBytes_AS_STRING(self.other_kept)
        self.own.size = len(self.other_kept)
        return self

    cdef object make_room(self, Py_ssize_t size):
        self.room = new_bytes(NULL, size)
        self.own.buffer = bytes_room(self.room)
        self.own.size = <size_t>size
        return self

    cdef object filled_room(self):
        """The bytes read, as many as the result says."""
        if self.own.result < <int64_t>self.own.size:
            _PyBytes_Resize(&self.room, <Py_ssize_t>self.own.result)
        return <object>self.room

    cdef object start(self):
        cdef Reactor reactor = running_reactor("hoop.fs")
        return pool_of(reactor).submit(reactor, self)


@cython.final
cdef class ReadFileJob(FsJob):
    """The result is the bytes, or for a large file the job itself, for read_opened()."""
    cdef CachedFiles cached
    cdef uint64_t mount_changes  # when it was submitted

    cdef object result(self):
        if self.own.status.mode & S_IFMT == S_IFREG:
            hoop_fs_cached_learn(&self.cached.own, self.own.status.device, self.own.is_local, self.mount_changes)
        return FsJob.result(self)

    cdef object answer(self):
        if self.own.result == 1:
            return self
        return PyBytes_FromStringAndSize(self.own.contents.bytes, <Py_ssize_t>self.own.contents.length)


@cython.final
cdef class ReadOpenedJob(FsJob):
    cdef object answer(self):
        data = self.filled_room()
        if self.own.contents.length > 0:  # the file has grown since
            data += PyBytes_FromStringAndSize(self.own.contents.bytes, <Py_ssize_t>self.own.contents.length)
        return data


@cython.final
cdef class PreadJob(FsJob):
    cdef object answer(self):
        return self.filled_room()


@cython.final
cdef class CountJob(FsJob):
    cdef object answer(self):
        return self.own.result


@cython.final
cdef class AccessJob(FsJob):
    cdef object answer(self):
        return self.own.result != 0


@cython.final
cdef class StatJob(FsJob):
    cdef object answer(self):
        return stat_result(&self.own.status)


@cython.final
cdef class MakedirsJob(FsJob):
    cdef object failure(self):
        return file_error(self.own.result, text_as(self.name, self.own.path, self.own.length), None)


@cython.final
cdef class ReadlinkJob(FsJob):
    cdef object answer(self):
        return text_as(self.name, self.own.contents.bytes, self.own.contents.length)


@cython.final
cdef class ListJob(FsJob):
    cdef object answer(self):
        cdef size_t position = 0
        cdef hoop_entry entry
        cdef list names = []
        while hoop_listing_next(&self.own.listing, &position, &entry):
            names.append(text_as(self.name, entry.name, entry.length))
        return names


@cython.final
cdef class ScanJob(FsJob):
    cdef object answer(self):
        cdef size_t position = 0
        cdef hoop_entry entry
        cdef list entries = []
        cdef DirEntry found
        before = os.path.join(self.name, self.name[:0])  # with a slash at the end
        while hoop_listing_next(&self.own.listing, &position, &entry):
            found = DirEntry.__new__(DirEntry)
            found.name = text_as(self.name, entry.name, entry.length)
            found.path = before + found.name
            found.inode_number = entry.inode
            found.type = entry.type
            found.target_type = entry.target_type
            entries.append(found)
        return entries


@cython.final
cdef class DirEntry:
    """An entry of a directory, as os.DirEntry. The listing looked its type up: is_dir() and its kin never block."""
    cdef readonly object name
    cdef readonly object path
    cdef uint64_t inode_number
    cdef uint32_t type
    cdef uint32_t target_type

    def inode(self):
        """The inode number."""
        return self.inode_number

    def is_dir(self, *, bint follow_symlinks=True):
        """Whether it is a directory, or leads to one; False if it was removed before the listing looked at it."""
        return (self.target_type if follow_symlinks else self.type) == S_IFDIR

    def is_file(self, *, bint follow_symlinks=True):
        """Whether it is a regular file, or leads to one; False if it was removed before the listing looked at it."""
        return (self.target_type if follow_symlinks else self.type) == S_IFREG

    def is_symlink(self):
        """Whether it is a symbolic link."""
        return self.type == S_IFLNK

    def stat(self, *, bint follow_symlinks=True):
        """An awaitable of its os.stat_result, as of now. OSError, FileNotFoundError if it was removed."""
        return stat(self.path, follow_symlinks)

    def __fspath__(self):
        return self.path

    def __repr__(self):
        return f"<DirEntry {self.name!r}>"


# ---- between Python and C -----------------------------------------------------------------------------------------

cdef bytes encoded(object path):
    """A path encoded for the kernel. ValueError for an embedded NUL, TypeError for an object that is no path."""
    cdef PyObject *found = NULL
    PyUnicode_FSConverter(path, &found)
    result = <bytes>found
    Py_XDECREF(found)
    return result


cdef object text_as(object name, const char *text, size_t length):
    """A name from the kernel, as bytes if the path `name` that the caller gave is bytes, else as str."""
    if isinstance(name, bytes):
        return PyBytes_FromStringAndSize(text, <Py_ssize_t>length)
    return PyUnicode_DecodeFSDefaultAndSize(text, <Py_ssize_t>length)


cdef object nanoseconds(int64_t seconds, int64_t ns):
    return <object>seconds * NS_PER_SECOND + ns


cdef double as_seconds(int64_t seconds, int64_t ns) noexcept:
    return <double>seconds + 1e-9 * <double>ns


cdef object stat_result(const hoop_fs_status *status):
    cdef dict extras = {
        "st_atime": as_seconds(status.accessed_s, status.accessed_ns),
        "st_mtime": as_seconds(status.modified_s, status.modified_ns),
        "st_ctime": as_seconds(status.changed_s, status.changed_ns),
        "st_atime_ns": nanoseconds(status.accessed_s, status.accessed_ns),
        "st_mtime_ns": nanoseconds(status.modified_s, status.modified_ns),
        "st_ctime_ns": nanoseconds(status.changed_s, status.changed_ns),
        "st_rdev": status.special_device,
        "st_blksize": status.block_size,
        "st_blocks": status.blocks,
    }
    if HAS_FLAGS:
        extras["st_flags"] = status.flags
    if HAS_GENERATION:
        extras["st_gen"] = status.generation
    if HAS_BIRTH_TIME:
        extras["st_birthtime"] = as_seconds(status.born_s, status.born_ns)
    return os.stat_result((status.mode, status.inode, status.device, status.links, status.user, status.group,
                           status.size, status.accessed_s, status.modified_s, status.changed_s), extras)


cdef FsJob new_job(hoop_fs_kind kind, path, bint may_be_fd):
    """A job without a result."""
    cdef FsJob job = FsJob.__new__(FsJob)
    job.begin(kind)
    return job.point_at(path, may_be_fd)


# ---- the operations -----------------------------------------------------------------------------------------------

def read_file(path):
    """The bytes, if the page cache has them; else a future of them or, for a large file, of a job for read_opened()."""
    cdef Reactor reactor = running_reactor("hoop.fs")
    cdef CachedFiles cached = cached_files_of(reactor)
    cdef ReadFileJob job
    name = PyOS_FSPath(path)
    cdef bytes kept = encoded(name)
    tell_of_reading(name)
    data = cached.read(reactor, kept)
    if data is not None:
        return data
    job = ReadFileJob.__new__(ReadFileJob)
    job.begin(HOOP_FS_READ_FILE)
    job.cached = cached
    job.mount_changes = cached.own.mount_changes
    job.name = name
    job.kept = kept
    job.own.path = PyBytes_AS_STRING(kept)
    job.own.size = MOST_COPIED
    return job.start()


cdef int tell_of_reading(object path) except -1:
    """Call the audit hooks as the built-in open() does."""
    return PySys_Audit("open", "OsI", <PyObject *>path, <const char *>"r", <unsigned>(os.O_RDONLY | os.O_CLOEXEC))


cdef int tell_of_writing(object path, bint append, bint exclusive) except -1:
    if append:
        return PySys_Audit("open", "OsI", <PyObject *>path, <const char *>"a", <unsigned>(WRITING | os.O_APPEND))
    if exclusive:
        return PySys_Audit("open", "OsI", <PyObject *>path, <const char *>"x", <unsigned>(WRITING | os.O_EXCL))
    return PySys_Audit("open", "OsI", <PyObject *>path, <const char *>"w", <unsigned>(WRITING | os.O_TRUNC))


def read_opened(ReadFileJob opened not None):
    """Read the file that read_file() has opened. The new job owns the descriptor."""
    cdef ReadOpenedJob job = ReadOpenedJob.__new__(ReadOpenedJob)
    job.begin(HOOP_FS_READ_OPENED)
    job.name = opened.name
    job.make_room(<Py_ssize_t>opened.own.status.size)
    job.own.fd = opened.own.fd
    opened.own.fd = -1
    return job.start()


def write_file(path, data, unsigned mode, bint append, bint exclusive, bint atomic, bint fsync):
    cdef CountJob job = CountJob.__new__(CountJob)
    job.begin(HOOP_FS_WRITE_FILE)
    job.point_at(path, False)
    job.take_data(data)
    job.own.mode = mode
    job.own.options = ((HOOP_FS_APPEND if append else 0) | (HOOP_FS_EXCLUSIVE if exclusive else 0)
                       | (HOOP_FS_ATOMIC if atomic else 0) | (HOOP_FS_SYNC if fsync else 0))
    tell_of_writing(path, append, exclusive)
    return job.start()


def pread(int fd, Py_ssize_t size, int64_t offset):
    cdef PreadJob job = PreadJob.__new__(PreadJob)
    check_range(size, offset)
    job.begin(HOOP_FS_PREAD)
    job.make_room(size)
    job.own.fd = fd
    job.own.offset = offset
    return job.start()


def pwrite(int fd, data, int64_t offset):
    cdef CountJob job = CountJob.__new__(CountJob)
    check_range(0, offset)
    job.begin(HOOP_FS_PWRITE)
    job.take_data(data)
    job.own.fd = fd
    job.own.offset = offset
    return job.start()


cdef int check_range(Py_ssize_t size, int64_t offset) except -1:
    if size < 0:
        raise ValueError(f"the number of bytes must not be negative: {size}")
    if offset < 0:
        raise ValueError(f"the offset must not be negative: {offset}")
    return 0


def stat(path, bint follow_symlinks):
    cdef StatJob job = StatJob.__new__(StatJob)
    job.begin(HOOP_FS_STAT)
    job.point_at(path, True)
    job.own.no_follow = not follow_symlinks
    return job.start()


def access(path, unsigned mode, bint effective_ids, bint follow_symlinks):
    cdef AccessJob job = AccessJob.__new__(AccessJob)
    job.begin(HOOP_FS_ACCESS)
    job.point_at(path, False)
    job.own.mode = mode
    job.own.options = (AT_EACCESS if effective_ids else 0) | (0 if follow_symlinks else AT_SYMLINK_NOFOLLOW)
    return job.start()


def listdir(path):
    cdef ListJob job = ListJob.__new__(ListJob)
    job.begin(HOOP_FS_LIST)
    job.point_at(path, False)
    PySys_Audit("os.listdir", "O", <PyObject *>path)
    return job.start()


def scandir(path):
    cdef ScanJob job = ScanJob.__new__(ScanJob)
    job.begin(HOOP_FS_LIST)
    job.point_at(path, False)
    job.own.options = 1
    PySys_Audit("os.scandir", "O", <PyObject *>path)
    return job.start()


def mkdir(path, unsigned mode):
    cdef FsJob job = new_job(HOOP_FS_MKDIR, path, False)
    job.own.mode = mode
    PySys_Audit("os.mkdir", "OIi", <PyObject *>path, mode, NO_FOLDER)
    return job.start()


def makedirs(path, unsigned mode, bint exist_ok):
    cdef MakedirsJob job = MakedirsJob.__new__(MakedirsJob)
    job.begin(HOOP_FS_MAKEDIRS)
    job.point_at(path, False)
    job.own.mode = mode
    job.own.options = exist_ok
    PySys_Audit("os.mkdir", "OIi", <PyObject *>path, mode, NO_FOLDER)
    return job.start()


def remove(path):
    cdef FsJob job = new_job(HOOP_FS_UNLINK, path, False)
    PySys_Audit("os.remove", "Oi", <PyObject *>path, NO_FOLDER)
    return job.start()


def rmdir(path):
    cdef FsJob job = new_job(HOOP_FS_RMDIR, path, False)
    PySys_Audit("os.rmdir", "Oi", <PyObject *>path, NO_FOLDER)
    return job.start()


def rename(src, dst):
    cdef FsJob job = new_job(HOOP_FS_RENAME, src, False)
    job.point_at_other(dst)
    PySys_Audit("os.rename", "OOii", <PyObject *>src, <PyObject *>dst, NO_FOLDER, NO_FOLDER)
    return job.start()


def link(src, dst):
    cdef FsJob job = new_job(HOOP_FS_LINK, src, False)
    job.point_at_other(dst)
    PySys_Audit("os.link", "OOii", <PyObject *>src, <PyObject *>dst, NO_FOLDER, NO_FOLDER)
    return job.start()


def symlink(src, dst):
    cdef FsJob job = new_job(HOOP_FS_SYMLINK, src, False)
    job.point_at_other(dst)
    PySys_Audit("os.symlink", "OOi", <PyObject *>src, <PyObject *>dst, NO_FOLDER)
    return job.start()


def readlink(path):
    cdef ReadlinkJob job = ReadlinkJob.__new__(ReadlinkJob)
    job.begin(HOOP_FS_READLINK)
    job.point_at(path, False)
    return job.start()


def chmod(path, unsigned mode):
    cdef FsJob job = new_job(HOOP_FS_CHMOD, path, True)
    job.own.mode = mode
    PySys_Audit("os.chmod", "OIi", <PyObject *>path, mode, NO_FOLDER)
    return job.start()


def chown(path, uid, gid, bint follow_symlinks):
    cdef FsJob job = new_job(HOOP_FS_CHOWN, path, True)
    if uid != -1:
        job.own.user = uid
    if gid != -1:
        job.own.group = gid
    job.own.no_follow = not follow_symlinks
    PySys_Audit("os.chown", "OIIi", <PyObject *>path, <unsigned>job.own.user, <unsigned>job.own.group, NO_FOLDER)
    return job.start()


def utime(path, accessed_ns, modified_ns, bint follow_symlinks):
    """Set the times, in nanoseconds since the epoch; None is now."""
    cdef FsJob job = new_job(HOOP_FS_UTIME, path, True)
    set_time(&job.own.times[0], accessed_ns)
    set_time(&job.own.times[1], modified_ns)
    job.own.no_follow = not follow_symlinks
    times = None if accessed_ns is None else (accessed_ns, modified_ns)
    PySys_Audit("os.utime", "OOOi", <PyObject *>path, <PyObject *>None, <PyObject *>times, NO_FOLDER)
    return job.start()


cdef int set_time(timespec *time, object ns) except -1:
    if ns is None:
        time.tv_sec = 0
        time.tv_nsec = UTIME_NOW
    else:
        time.tv_sec, time.tv_nsec = divmod(ns, NS_PER_SECOND)
    return 0


def truncate(path, int64_t length):
    cdef FsJob job = new_job(HOOP_FS_TRUNCATE, path, True)
    job.own.offset = length
    PySys_Audit("os.truncate", "OL", <PyObject *>path, <long long>length)
    return job.start()


def fsync(int fd):
    cdef FsJob job = FsJob.__new__(FsJob)
    job.begin(HOOP_FS_SYNC_FILE)
    job.own.fd = fd
    return job.start()


def copy_file(src, dst, bint exclusive):
    cdef CountJob job = CountJob.__new__(CountJob)
    job.begin(HOOP_FS_COPY_FILE)
    job.point_at(src, False)
    job.point_at_other(dst)
    job.own.options = HOOP_FS_EXCLUSIVE if exclusive else 0
    tell_of_reading(src)
    tell_of_writing(dst, False, exclusive)
    return job.start()


def open_cached(path):
    """A descriptor for reading a small local file whose name is in the kernel's cache; -1: a thread must open it."""
    cdef Reactor reactor = running_reactor("hoop.fs")
    cdef CachedFiles cached = cached_files_of(reactor)
    cdef hoop_fs_cached_file file
    cdef bytes kept = encoded(path)
    if hoop_fs_cached_open(&cached.own, PyBytes_AS_STRING(kept), reactor.meter.turns, &file) < 0:
        return -1
    return max(hoop_fs_cached_keep(&cached.own, &file), -1)


def read_cached(int fd):
    """All of a file that open_cached() has opened, whatever its position; None if a thread must read it."""
    cdef Reactor reactor = running_reactor("hoop.fs")
    cdef CachedFiles cached = cached_files_of(reactor)
    cdef struct_stat status
    cdef hoop_fs_cached_file file
    if fstat(fd, &status) < 0 or not 0 <= status.st_size <= HOOP_FS_CACHED_MOST_BYTES:
        return None
    file.fd = fd
    file.device = status.st_dev
    file.size = status.st_size
    data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>status.st_size)
    if hoop_fs_cached_read(&cached.own, &file, reactor.meter.turns, PyBytes_AS_STRING(data)) < 0:
        return None
    return data


def device_of(int fd):
    """(The device of a regular file, whether its data is on this machine); None for another file. May block."""
    cdef struct_stat status
    cdef bint is_regular
    cdef bint is_local
    with nogil:
        is_regular = fstat(fd, &status) == 0 and S_ISREG(status.st_mode)
        is_local = is_regular and hoop_fs_is_local(fd) == 1
    return (status.st_dev, is_local) if is_regular else None


def mount_changes():
    """The number of changes of the mounted file systems noticed so far; for learn()."""
    cdef Reactor reactor = running_reactor("hoop.fs")
    cdef CachedFiles cached = cached_files_of(reactor)
    return cached.own.mount_changes


def learn(device, bint is_local, uint64_t mount_changes):
    """Note the result of device_of(), and of mount_changes() before the thread began."""
    cdef Reactor reactor = running_reactor("hoop.fs")
    cdef CachedFiles cached = cached_files_of(reactor)
    hoop_fs_cached_learn(&cached.own, device, is_local, mount_changes)


def cached_read_stats():
    cdef int i
    cdef Reactor reactor = running_reactor("hoop.fs")
    cdef CachedFiles cached = cached_files_of(reactor)
    refusal = None
    if cached.own.refused_call != NULL:
        refusal = f"{cached.own.refused_call.decode()}: {os.strerror(cached.own.refusal)}"
    return CachedReadStats(
        enabled=not cached.own.is_off, refusal=refusal, hits=cached.own.hits,
        misses={MISSES[i]: cached.own.misses[i] for i in range(HOOP_FS_MISS_KINDS)},
    )
