# flag.pxd: a bint of one byte, for the fields of objects of which a program has thousands. No code.

cdef extern from "<stdbool.h>":
    ctypedef bint flag "bool"
