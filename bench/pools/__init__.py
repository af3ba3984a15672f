"""What hoop.Agent and hoop.WorkerPool cost, beside their peers: `python -m bench.pools`."""
