# cpython_api.pxd: the parts of CPython's C API that Cython's own declarations lack. No code.
from cpython.object cimport PyObject, PyTypeObject

cdef extern from *:
    """
    /* Python 3.12 and 3.13 count references up with a store of 32 bits, and down with a load of 64. A processor cannot
     * give that load what it has just stored, and waits until that is in the cache: some 15 cycles, each time that
     * Cython counts an object up to return it and down again. So count up with 64 bits: it comes to the same. */
    #if 0x030C0000 <= PY_VERSION_HEX && PY_VERSION_HEX < 0x030E0000 && SIZEOF_VOID_P > 4 \
        && !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG)
    static inline PyObject *hoop_incref(PyObject *item)
    {
        Py_ssize_t count = item->ob_refcnt;
        if ((unsigned)count != UINT_MAX) /* else it is immortal */
            item->ob_refcnt = count + 1;
        return item;
    }
    #undef Py_INCREF
    #define Py_INCREF(item) ((void)hoop_incref((PyObject *)(item)))
    #undef Py_XINCREF
    #define Py_XINCREF(item) ((item) == NULL ? (void)0 : Py_INCREF(item))
    #undef Py_NewRef
    #define Py_NewRef(item) hoop_incref((PyObject *)(item))
    #endif
    """

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
    PyObject *PyType_GenericAlloc(PyTypeObject *kind, Py_ssize_t count) noexcept
    PyObject *PyObject_Init(PyObject *memory, PyTypeObject *kind) noexcept
    void PyObject_GC_Track(PyObject *item) noexcept
    void PyObject_GC_Del(void *memory) noexcept

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
    ctypedef PyObject *(*alloc_fn "allocfunc")(PyTypeObject *kind, Py_ssize_t count) noexcept
    ctypedef void (*free_fn "freefunc")(void *memory) noexcept
    ctypedef struct type_slots "PyTypeObject":
        Py_ssize_t tp_basicsize
        new_fn tp_new
        alloc_fn tp_alloc
        free_fn tp_free
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
