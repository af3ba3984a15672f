"""Compiles the C programs of the benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PROGRAMS = BENCH / "build"
TLS_FILE = PROGRAMS / "tls.pem"  # key and certificate of the TLS servers, made with the programs
BUILD_LIMIT_S = 120.0


class BuildError(Exception):
    """The C programs could not be compiled; the text says why."""


def build_programs() -> None:
    """Bring the load generators and the C servers up to date. BuildError if that fails."""
    make = shutil.which("make")
    if make is None:
        raise BuildError("`make` is needed to compile the load generators, and was not found")
    # Without the flags of a `make` that may have started us.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    command = [make, "--silent", "-C", str(BENCH / "c"), f"BUILD={PROGRAMS}"]
    try:
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_LIMIT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"compiling the load generators failed: {error}") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"compiling the load generators failed:\n{error.stdout}") from None


def program(name: str) -> str:
    """The path of a compiled program."""
    return str(PROGRAMS / name)


def is_built(name: str) -> bool:
    """Whether there is that program: those that speak TLS need OpenSSL's headers."""
    return (PROGRAMS / name).exists()
