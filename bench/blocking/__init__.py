"""What detectors of blocking calls find, all on the same program: `python -m bench.blocking`."""
