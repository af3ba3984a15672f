from hoop.tls.engine cimport TlsEngine


cdef TlsEngine new_engine(object context, bint is_server, object server_hostname, bint is_safe)
