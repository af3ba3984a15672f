"""Transports: bytes and datagrams between a descriptor and a protocol; listeners; sock_* and add_reader."""
