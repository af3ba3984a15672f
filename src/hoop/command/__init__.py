"""The command line: `python -m hoop`, or `hoop`."""
