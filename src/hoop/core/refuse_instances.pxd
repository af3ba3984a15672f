# refuse_instances.pxd: classes whose objects only hoop makes. Inline.
from cpython.object cimport PyObject, PyTypeObject
from hoop.core.cpython_api cimport type_slots


cdef inline PyObject *refuse(PyTypeObject *kind, PyObject *arguments, PyObject *keywords) except NULL:
    raise TypeError(f"{(<object>kind).__name__} objects are made by an event loop only")


cdef inline int refuse_instances(object kind) except -1:
    """From now on kind(), kind.__new__(kind) and classes derived from it raise TypeError, so that no object is without
    what its methods rely on. For a class that is made in its own module, by `kind.__new__(kind)`: Cython does not use
    the slot there.
    """
    (<type_slots *><PyObject *>kind).tp_new = refuse
    (<type_slots *><PyObject *>kind).tp_vectorcall = NULL  # a call of the class would not pass by tp_new
    return 0
