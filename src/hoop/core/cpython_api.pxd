# cpython_api.pxd: the parts of CPython's C API that Cython's own declarations lack. No code.
from cpython.object cimport PyObject, PyTypeObject

cdef extern from "Python.h":
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyObject_Vectorcall(object callable, PyObject **arguments, size_t count_and_flag, PyObject *keyword_names)
    object PyObject_Call(object callable, tuple arguments, dict keywords)
    PyObject **tuple_items "&PyTuple_GET_ITEM" (tuple items, Py_ssize_t index)

    # As the C API has them: borrowed pointers, and failure as NULL or -1 with the exception set. For the few places
    # that run for each callback, where counting references and saving the exception state around a call would show.
    PyObject *raw_vectorcall "PyObject_Vectorcall" (PyObject *callable, PyObject **arguments, size_t count_and_flag,
                                                    PyObject *keyword_names) noexcept
    PyObject *raw_vectorcall_method "PyObject_VectorcallMethod" (PyObject *name, PyObject **arguments,
                                                                 size_t count_and_flag,
                                                                 PyObject *keyword_names) noexcept
    PyObject **raw_tuple_items "&PyTuple_GET_ITEM" (PyObject *items, Py_ssize_t index) noexcept
    Py_ssize_t raw_tuple_size "PyTuple_GET_SIZE" (PyObject *items) noexcept
    int raw_compare "PyUnicode_Compare" (PyObject *text, PyObject *other) noexcept
    int raw_context_enter "PyContext_Enter" (PyObject *context) noexcept
    int raw_context_exit "PyContext_Exit" (PyObject *context) noexcept
    void raw_incref "Py_INCREF" (PyObject *item) noexcept
    void raw_decref "Py_DECREF" (PyObject *item) noexcept

    ctypedef PyObject *(*PyCFunction)(PyObject *self, PyObject *arguments)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    enum:
        METH_FASTCALL
        METH_KEYWORDS
    ctypedef struct method_descriptor "PyMethodDescrObject":
        PyMethodDef *d_method
    int PyObject_GenericSetAttr(object thing, object name, PyObject *value) except -1
    bint PyCFunction_Check(object thing)
    PyCFunction PyCFunction_GetFunction(object function) except NULL
    object PyDescr_NewMethod(PyTypeObject *owner, PyMethodDef *method)
    void PyType_Modified(PyTypeObject *type)

    object PyContext_New()
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    bint PyContext_CheckExact(object candidate)

    unsigned long PyThread_get_thread_ident()
    int PyErr_CheckSignals() except -1
    int PyArg_ParseTuple(object arguments, const char *format, ...) except 0
    int PySys_Audit(const char *event, const char *format, ...) except -1

    # the garbage collector's slots, with pointers instead of objects: nothing may be counted while it walks
    ctypedef int (*gc_visit_fn "visitproc")(PyObject *entry, void *arg) noexcept
    ctypedef int (*gc_traverse_fn "traverseproc")(PyObject *self, gc_visit_fn visit, void *arg) noexcept
    ctypedef int (*gc_clear_fn "inquiry")(PyObject *self) noexcept
    ctypedef PyObject *(*new_fn "newfunc")(PyTypeObject *kind, PyObject *arguments, PyObject *keywords) except NULL
    ctypedef struct type_slots "PyTypeObject":
        new_fn tp_new
        void *tp_call
        void *tp_vectorcall
        void *tp_getattro
        void *tp_setattro
        unsigned tp_version_tag  # changes with each change of the type or of its bases; 0: it has none just now
        gc_traverse_fn tp_traverse
        gc_clear_fn tp_clear
        PyObject *tp_dict

    # Where an object keeps its __dict__; for a cdef class that has one never NULL itself.
    PyObject **instance_dict "_PyObject_GetDictPtr" (object)
