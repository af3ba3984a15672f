"""getaddrinfo(3) and getnameinfo(3) as jobs of the pool: arguments and answers are those of the socket module."""
cimport cython
from cpython.number cimport PyNumber_Index
from hoop.address_info cimport answer_of, encoded_host, encoded_service, name_error
from hoop.cpython_api cimport PyArg_ParseTuple, PySys_Audit
from hoop.csrc cimport AI_NUMERICSERV, HOOP_NAME_NOT_A_PAIR, HOOP_NAME_SEVERAL_ADDRESSES, hoop_getaddrinfo_job, \
    hoop_getaddrinfo_job_free, hoop_getaddrinfo_job_init, hoop_getnameinfo_job, hoop_getnameinfo_job_init
from hoop.pool cimport Job, Pool
from hoop.reactor cimport Reactor

import locale
import sys

cdef bint IS_DARWIN = sys.platform == "darwin"
cdef long LARGEST_FLOWINFO = 0xfffff  # 20 bits, RFC 8200


@cython.final
cdef class AddressJob(Job):
    cdef hoop_getaddrinfo_job own
    cdef bytes host             # what `own` points to
    cdef bytes service

    cdef object result(self):
        return answer_of(&self.own)

    def __dealloc__(self):
        hoop_getaddrinfo_job_free(&self.own)


@cython.final
cdef class NameJob(Job):
    cdef hoop_getnameinfo_job own
    cdef bytes host

    cdef object result(self):
        if self.own.status != 0:
            raise name_error(self.own.status, self.own.system_error)
        if self.own.problem == HOOP_NAME_SEVERAL_ADDRESSES:
            raise OSError("sockaddr resolved to multiple addresses")
        if self.own.problem == HOOP_NAME_NOT_A_PAIR:
            raise OSError("IPv4 sockaddr must be 2 tuple")
        return ((<bytes>self.own.host_name).decode(locale.getencoding(), "surrogateescape"),
                self.own.service_name.decode("utf-8"))


cdef int c_int(object number) except? -1:
    """TypeError for a float, which a C int would take silently; OverflowError beyond an int."""
    return PyNumber_Index(number)


def getaddrinfo(Pool pool not None, Reactor loop not None, host, port, family, type, proto, flags):
    """The future of what socket.getaddrinfo returns. Arguments that it refuses are refused at once, with its errors."""
    cdef int family_number = c_int(family)
    cdef int type_number = c_int(type)
    cdef int proto_number = c_int(proto)
    cdef int flag_bits = c_int(flags)
    cdef AddressJob job = AddressJob.__new__(AddressJob)
    cdef const char *service = NULL
    cdef const char *name = NULL
    job.host = encoded_host(host)
    job.service = encoded_service(port)
    if IS_DARWIN and flag_bits & AI_NUMERICSERV and (job.service is None or job.service == b"0"):
        job.service = b"00"  # the socket module's own remedy: libc crashed without
    if job.host is not None:
        name = job.host
    if job.service is not None:
        service = job.service
    PySys_Audit("socket.getaddrinfo", "OOiii", <void *>host, <void *>port, family_number, type_number,
                proto_number)
    hoop_getaddrinfo_job_init(&job.own, name, service, family_number, type_number, proto_number, flag_bits)
    job.job = &job.own.job
    return pool.submit(loop, job)


def getnameinfo(Pool pool not None, Reactor loop not None, sockaddr, flags):
    """Likewise for socket.getnameinfo."""
    cdef NameJob job = NameJob.__new__(NameJob)
    cdef int flag_bits = c_int(flags)
    cdef const char *host
    cdef int port
    cdef unsigned int flowinfo = 0
    cdef unsigned int scope_id = 0
    if not isinstance(sockaddr, tuple):
        raise TypeError(f"getnameinfo() argument 1 must be a tuple, not {sockaddr!r}")
    PyArg_ParseTuple(sockaddr, "si|II;getnameinfo(): illegal sockaddr argument", &host, &port, &flowinfo, &scope_id)
    if flowinfo > LARGEST_FLOWINFO:
        raise OverflowError(f"getnameinfo(): flowinfo must be 0-{LARGEST_FLOWINFO}, not {sockaddr[2]!r}")
    job.host = host
    PySys_Audit("socket.getnameinfo", "(O)", <void *>sockaddr)
    hoop_getnameinfo_job_init(&job.own, job.host, port, flowinfo, scope_id, len(<tuple>sockaddr) == 2, flag_bits)
    job.job = &job.own.job
    return pool.submit(loop, job)
