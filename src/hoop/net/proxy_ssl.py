"""What a PROXY header says of the TLS that the balancer took off the connection."""

from __future__ import annotations

from typing import NamedTuple


class ProxySsl(NamedTuple):
    """The TLS between client and balancer (PP2_TYPE_SSL). None: the balancer does not say."""

    is_tls: bool
    """The client came over TLS."""
    has_certificate: bool
    """The client showed a certificate on this connection."""
    is_resumed_with_certificate: bool
    """The client showed one at least once in the session that this connection belongs to."""
    is_verified: bool
    """The client showed a certificate, and the balancer verified it."""
    version: str | None
    """Of TLS: "TLSv1.3"."""
    common_name: str | None
    """Of the client's certificate."""
    cipher: str | None
    """Such as "ECDHE-RSA-AES128-GCM-SHA256"."""
    signature_algorithm: str | None
    """Of the balancer's certificate: "RSA-SHA256"."""
    key_algorithm: str | None
    """Of the balancer's certificate: "RSA2048"."""
    tlvs: tuple[tuple[int, bytes], ...]
    """Everything of it that is in TLVs."""
