"""Scripts in an interpreter of their own: for what only shows at its end, or in a forked child."""

from __future__ import annotations

import os
import subprocess
import sys

# For the beginning of a script: the exit status of body(), called in a child.
IN_CHILD = """
import os

def in_child(body):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = body() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run_script(script: str, *options: str) -> tuple[int, str, str]:
    """Run script, with the modules that are found here; its exit status and what it wrote to stdout and stderr."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, *options, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip(), done.stderr
