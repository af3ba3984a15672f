"""Which engine a connection gets: the direct one where it can be had and nobody wants the safe one."""
from hoop.tls.direct_engine cimport new_direct_engine
from hoop.tls.engine cimport TlsEngine
from hoop.tls.memory_engine cimport new_memory_engine

import ssl

from hoop.tls.direct_engine import refusal_of_process
from hoop.tls.tls_options import TlsEngineInUse, wants_safe_engine


cdef TlsEngine new_engine(object context, bint is_server, object server_hostname, bint is_safe):
    """An engine for one connection. ValueError and TypeError for names that no certificate can have."""
    cdef TlsEngine engine = None
    if not is_server and not server_hostname and getattr(context, "check_hostname", False):
        raise ValueError("check_hostname requires server_hostname")  # cpython#156793: else no name is checked at all
    incoming = ssl.MemoryBIO()
    outgoing = ssl.MemoryBIO()
    ssl_object = context.wrap_bio(incoming, outgoing, server_side=is_server, server_hostname=server_hostname)
    if not is_safe:
        engine = new_direct_engine(ssl_object, incoming, outgoing)
    if engine is None:
        engine = new_memory_engine(ssl_object, incoming, outgoing)
    return engine


def tls_engine():
    """Which engine new TLS connections of this process get, and why. ValueError if HOOP_TLS_ENGINE names none."""
    if wants_safe_engine():
        return TlsEngineInUse("safe", "HOOP_TLS_ENGINE asks for it")
    refusal = refusal_of_process()
    if refusal is not None:
        return TlsEngineInUse("safe", refusal)
    if new_engine(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), True, None, False).name != "direct":
        return TlsEngineInUse("safe", "the objects of the ssl module could not be shown to be the known ones")
    return TlsEngineInUse("direct", f"the ssl module has loaded {ssl.OPENSSL_VERSION}, and its objects are known")
