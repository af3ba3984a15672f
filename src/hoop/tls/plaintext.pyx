"""The plaintext that a TLS session has accepted and its engine has not encrypted."""
from hoop.net.stream cimport StreamFilter
from hoop.tls.engine cimport TLS_RECORD_SIZE

import collections


cdef class PlaintextQueue(StreamFilter):
    cdef int add_chunk(self, object chunk, Py_ssize_t size) except -1:
        if self.head is None:
            self.head = chunk
        else:
            if self.rest is None:
                self.rest = collections.deque()
            self.rest.append(chunk)
        self.queued += size
        return 0

    cdef object next_piece(self):
        """The plaintext of one record, as far as there is so much."""
        cdef Py_ssize_t size = len(self.head) - self.head_at
        cdef list parts
        if size >= TLS_RECORD_SIZE:
            return memoryview(self.head)[self.head_at:self.head_at + TLS_RECORD_SIZE]
        if self.rest is None:
            return self.head if self.head_at == 0 else memoryview(self.head)[self.head_at:]
        parts = [memoryview(self.head)[self.head_at:]]
        for chunk in self.rest:
            if size + len(chunk) > TLS_RECORD_SIZE:
                parts.append(memoryview(chunk)[:TLS_RECORD_SIZE - size])
                break
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts)

    cdef int take_encrypted(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t size
        self.queued -= count
        while self.head is not None:
            size = len(self.head) - self.head_at
            if count < size:
                self.head_at += count
                return 0
            count -= size
            self.head_at = 0
            self.head = None
            if self.rest is not None:
                self.head = self.rest.popleft()
                if not self.rest:
                    self.rest = None  # an idle connection keeps no storage
        return 0

    cdef int drop_queue(self) except -1:
        self.head = self.rest = None
        self.head_at = self.queued = 0
        return 0
