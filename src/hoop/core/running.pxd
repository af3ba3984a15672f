from hoop.core.reactor cimport Reactor

# RuntimeError unless one runs here; user is the name that needs it, as in "hoop.fs".
cdef Reactor running_reactor(str user)
