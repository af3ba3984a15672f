"""`python -m bench --targets`: what hoop must reach beside the real peers, measured in one interleaved run.

`figures.py` is what a part of the benchmark hands over, `rows.py` how a figure is judged, `table.py` the table of what
is required, `parts.py` the list of the parts, and `run.py` the command line.
"""
