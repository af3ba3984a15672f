"""The core: descriptors, timers, queues and the turn that runs them; it knows no transport."""
