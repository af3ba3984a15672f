"""What is behind getaddrinfo and hoop.dns: names as jobs of the pool, numeric hosts without one."""
