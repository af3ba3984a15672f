from hoop.net.datagram cimport DatagramTransport


cdef class UdpSocket:
    cdef readonly DatagramTransport transport
    cdef public object on_message
    cdef public object on_drain
    cdef public object on_error
    cdef public object on_close
    cdef readonly Py_ssize_t bytes_read
    cdef readonly Py_ssize_t bytes_written
    cdef bint is_write_paused
    cdef bint is_drain_due      # send() has returned False
    cdef object __weakref__

    cdef DatagramTransport its_transport(self)
