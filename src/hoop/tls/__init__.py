"""TLS over any transport: engine, session, and the transport that an application sees."""
