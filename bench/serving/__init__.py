"""The same deploys and accidents on hoop's cluster and on the servers that Python has: `python -m bench.serving`."""
