"""Loops in threads of one process, for a Python without a GIL: memory, how they scale, and what more cores would do."""
