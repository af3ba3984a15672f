"""hoop's benchmark: load generators in C, one server program for each mode, one runner. `python -m bench --help`."""
