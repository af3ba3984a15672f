"""getaddrinfo(3) and getnameinfo(3) as jobs of the pool: arguments and answers are those of the socket module.

A question checks its arguments and calls the audit hooks once. name_lookups.py then asks it in the lanes of the pool
that suit its name, one after another; each time that is a job of its own.
"""
cimport cython
from cpython.number cimport PyNumber_Index
from hoop.core.cpython_api cimport PyArg_ParseTuple, PySys_Audit
from hoop.core.csrc cimport AI_NUMERICSERV, HOOP_LANE_ANSWERED_NAMES, HOOP_LANE_DNS, HOOP_LANE_LOCAL_NAMES, \
    HOOP_NAME_NOT_A_PAIR, HOOP_NAME_SEVERAL_ADDRESSES, hoop_getaddrinfo_job, hoop_getaddrinfo_job_free, \
    hoop_getaddrinfo_job_init, hoop_getnameinfo_job, hoop_getnameinfo_job_init, hoop_lane
from hoop.core.reactor cimport Reactor
from hoop.jobs.crew cimport Job
from hoop.jobs.pool cimport Pool
from hoop.names.address_info cimport answer_of, encoded_host, encoded_service, name_error

import locale
import sys

cdef bint IS_DARWIN = sys.platform == "darwin"
cdef long LARGEST_FLOWINFO = 0xfffff  # 20 bits, RFC 8200

# Lanes, and the answer of the lane LOCAL_NAMES to a question that this machine cannot answer by itself.
LOCAL_NAMES = HOOP_LANE_LOCAL_NAMES
ANSWERED_NAMES = HOOP_LANE_ANSWERED_NAMES
OTHER_NAMES = HOOP_LANE_DNS
ELSEWHERE = None


@cython.final
cdef class AddressJob(Job):
    cdef hoop_getaddrinfo_job own
    cdef AddressQuestion question   # `own` points into it

    cdef object result(self):
        return ELSEWHERE if self.own.is_elsewhere else answer_of(&self.own)

    def __dealloc__(self):
        hoop_getaddrinfo_job_free(&self.own)


@cython.final
cdef class NameJob(Job):
    cdef hoop_getnameinfo_job own
    cdef NameQuestion question

    cdef object result(self):
        if self.own.is_elsewhere:
            return ELSEWHERE
        if self.own.status != 0:
            raise name_error(self.own.status, self.own.system_error)
        if self.own.problem == HOOP_NAME_SEVERAL_ADDRESSES:
            raise OSError("sockaddr resolved to multiple addresses")
        if self.own.problem == HOOP_NAME_NOT_A_PAIR:
            raise OSError("IPv4 sockaddr must be 2 tuple")
        return ((<bytes>self.own.host_name).decode(locale.getencoding(), "surrogateescape"),
                self.own.service_name.decode("utf-8"))


cdef int c_int(object number) except? -1:
    """A C int. TypeError for a float, which Cython would cut silently; OverflowError beyond an int."""
    return PyNumber_Index(number)


@cython.final
cdef class AddressQuestion:
    """A question for getaddrinfo. Refuses at once the arguments that socket.getaddrinfo refuses, with its errors.

    key: the arguments on which it depends whether there is an answer, for a resolver to remember.
    """
    cdef bytes host
    cdef bytes service
    cdef int family
    cdef int type
    cdef int proto
    cdef int flags
    cdef readonly tuple key

    def __init__(self, host, port, family, type, proto, flags):
        self.family = c_int(family)
        self.type = c_int(type)
        self.proto = c_int(proto)
        self.flags = c_int(flags)
        self.host = encoded_host(host)
        self.service = encoded_service(port)
        if IS_DARWIN and self.flags & AI_NUMERICSERV and (self.service is None or self.service == b"0"):
            self.service = b"00"  # the socket module's own remedy: libc crashed without
        self.key = (self.host, self.family)
        PySys_Audit("socket.getaddrinfo", "OOiii", <void *>host, <void *>port, self.family, self.type, self.proto)

    def ask(self, Pool pool not None, Reactor loop not None, int lane):
        """A future of socket.getaddrinfo's result; in the lane LOCAL_NAMES perhaps of ELSEWHERE."""
        cdef AddressJob job = AddressJob.__new__(AddressJob)
        cdef const char *name = NULL
        cdef const char *service = NULL
        if self.host is not None:
            name = self.host
        if self.service is not None:
            service = self.service
        job.question = self
        hoop_getaddrinfo_job_init(&job.own, <hoop_lane>lane, name, service, self.family, self.type, self.proto,
                                  self.flags)
        job.job = &job.own.job
        return pool.submit(loop, job)


@cython.final
cdef class NameQuestion:
    """A question for getnameinfo. Refuses at once the arguments that socket.getnameinfo refuses, with its errors."""
    cdef bytes host
    cdef int port
    cdef unsigned int flowinfo
    cdef unsigned int scope_id
    cdef bint is_pair
    cdef int flags
    cdef readonly tuple key

    def __init__(self, sockaddr, flags):
        cdef const char *host
        self.flags = c_int(flags)
        if not isinstance(sockaddr, tuple):
            raise TypeError(f"getnameinfo() argument 1 must be a tuple, not {sockaddr!r}")
        PyArg_ParseTuple(sockaddr, "si|II;getnameinfo(): illegal sockaddr argument", &host, &self.port, &self.flowinfo,
                         &self.scope_id)
        if self.flowinfo > LARGEST_FLOWINFO:
            raise OverflowError(f"getnameinfo(): flowinfo must be 0-{LARGEST_FLOWINFO}.")  # the words of CPython's
        self.host = host
        self.is_pair = len(<tuple>sockaddr) == 2
        self.key = (self.host, "reverse")
        PySys_Audit("socket.getnameinfo", "(O)", <void *>sockaddr)

    def ask(self, Pool pool not None, Reactor loop not None, int lane):
        """A future of socket.getnameinfo's result; in the lane LOCAL_NAMES perhaps of ELSEWHERE."""
        cdef NameJob job = NameJob.__new__(NameJob)
        job.question = self
        hoop_getnameinfo_job_init(&job.own, <hoop_lane>lane, self.host, self.port, self.flowinfo, self.scope_id,
                                  self.is_pair, self.flags)
        job.job = &job.own.job
        return pool.submit(loop, job)
