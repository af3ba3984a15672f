"""Work for threads: the pool, its jobs, and how they come back to a loop."""
