"""Types of the compiled choice of a TLS engine, for users."""

from hoop.tls.tls_options import TlsEngineInUse

def tls_engine() -> TlsEngineInUse: ...
