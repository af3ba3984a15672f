"""A command's way to the cluster or process that it is about: the option --control, and what is said on failure."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Callable
from typing import Any

from hoop.cluster.control import ControlClient, Refused

EXIT_REFUSED = 1
EXIT_NO_CLUSTER = 4
ANSWER_S = 10.0  # a master takes a millisecond


def add_control_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--control",
        metavar="PATH",
        help="its control socket, or the name of one in the runtime directory (default: HOOP_CONTROL, else the only "
        "one there)",
    )


def ask_soon(client: ControlClient, command: str) -> Any:
    """The answer to what only looks. OSError if there is none within ANSWER_S: a process answers by its loop."""
    client.socket.settimeout(ANSWER_S)
    try:
        return client.ask(command)
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, f"no answer within {ANSWER_S:.0f} s: its loop is held") from None
    finally:
        client.socket.settimeout(None)


def status_of(command: str, arguments: argparse.Namespace, act: Callable[[argparse.Namespace], int]) -> int:
    """The exit status of act(arguments), and of what it raises: an error is told on stderr, or as JSON on stdout."""
    try:
        return act(arguments)
    except Refused as refused:
        tell_error(command, arguments, str(refused), refused.detail)
        return EXIT_REFUSED
    except (LookupError, OSError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        tell_error(command, arguments, text, None)
        return EXIT_NO_CLUSTER
    except KeyboardInterrupt:
        return 0


def tell_error(command: str, arguments: argparse.Namespace, text: str, detail: str | None) -> None:
    if arguments.json:
        print(json.dumps({"ok": False, "error": text, "detail": detail}, indent=2))
        return
    print(f"hoop {command}: error: {text}", file=sys.stderr)
    if detail:
        print(detail.rstrip(), file=sys.stderr)
