"""A certificate authority of the test run's own, and what servers and clients need of it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Certificates:
    """One certificate, for localhost and 127.0.0.1, in files, and SSL contexts that serve it or trust it."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        self.authority_file = directory / "authority.pem"
        self.certificate_file = directory / "certificate.pem"
        self.key_file = directory / "key.pem"
        self.authority.cert_pem.write_to_path(self.authority_file)
        self.certificate_file.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.key_file)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority_file)
