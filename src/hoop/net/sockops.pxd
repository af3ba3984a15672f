from hoop.core.reactor cimport Reactor

cdef object receive(Reactor reactor, object sock, Py_ssize_t size)
cdef object send_all(Reactor reactor, object sock, object data)
