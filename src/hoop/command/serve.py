"""hoop serve: the options of a cluster, read from the command line."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import hoop
from hoop.cluster.roles import Role
from hoop.command.parser import assignment, seconds, seconds_or_none, size, worker_count

DESCRIPTION = """\
Serve an application with worker processes on one address, and keep them running.

TARGET is MODULE:ATTRIBUTE: `app:app` is the object `app` of the file app.py in the current directory. It may be an ASGI
application (FastAPI, Starlette, Django, ...), an aiohttp.web.Application, an asyncio.Protocol class, or an async
function that serves by itself.

SIGTERM and Ctrl-C answer what is under way and end; a second one ends at once. SIGHUP loads new code into new workers
and lets the old ones go when those serve. `hoop ctl` does the same from another terminal.
"""
EPILOG = """\
examples:
  hoop serve app:app                                     a worker for each CPU on http://127.0.0.1:8000
  hoop serve app:app --threads 4                         loops in one process, which share memory (no GIL)
  hoop serve app:app --workers 2 --reload-on-change      while you write it
  hoop serve app:create_app --factory --bind 0.0.0.0:80 --access-log
  hoop serve app:app --bind 'unix:/run/app.sock?mode=0660' --bind 127.0.0.1:8000
  hoop serve app:app --ssl-certfile cert.pem --ssl-keyfile key.pem --bind 0.0.0.0:443
  hoop serve app:app --drain-delay 10 --health-bind 0.0.0.0:8001     under Kubernetes
  hoop serve app:app --proxy-protocol 10.0.0.0/8         behind HAProxy's send-proxy
  hoop serve app:Echo --server protocol                  an asyncio.Protocol, no HTTP

exit status: 0 ended in order, 1 could not start or failed, 2 wrong options, 3 something was cut off when the drain's
time was over, 128 and the number of the signal if a second one ended it at once.
"""


def add_to(commands: Any) -> None:
    """The subcommand's parser."""
    parser = commands.add_parser(
        "serve",
        usage="hoop serve TARGET [options]",
        help="serve an application",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # what is not given is for Options to say
    )
    parser.set_defaults(run=run, parser=parser)
    add_application(parser)
    add_workers(parser)
    add_addresses(parser)
    add_end(parser)
    add_care(parser)
    add_limits(parser)
    add_log(parser)


def add_application(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="what to serve, MODULE:ATTRIBUTE")
    group = parser.add_argument_group("application")
    group.add_argument("--factory", action="store_true", help="TARGET is a function that returns the application")
    group.add_argument(
        "--server",
        choices=("auto", "uvicorn", "hypercorn", "aiohttp", "protocol", "main"),
        help="who serves it (default: auto, by the kind of the application; ASGI by uvicorn)",
    )
    group.add_argument("--app-dir", metavar="DIR", help="where modules are looked for first (default: here)")
    group.add_argument("--env", metavar="NAME=VALUE", type=assignment, action="append", help="for the workers")


def add_workers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    add = group.add_argument
    add("-w", "--workers", metavar="N", type=worker_count, help="how many (default: auto, the container's CPUs)")
    add(
        "--threads",
        metavar="N",
        type=worker_count,
        help="so many loops in threads of one process instead, for a Python without a GIL (see docs/threads.md)",
    )
    add("--preload", action="store_true", help="import once for all workers of a generation, who share the memory")
    add(
        "--reload-on-change",
        action="store_true",
        help="reload when a file changes that a worker has imported (for development)",
    )
    add("--parallel", metavar="N", type=int, help="how many may be replaced at a time (default: 1)")
    add(
        "--role",
        dest="roles",
        metavar="NAME=TARGET",
        type=assignment,
        action="append",
        help="run this async function in a process of its own, once: a scheduler, say; may be repeated",
    )
    add("--max-requests", metavar="N", type=int, help="replace a worker after so many requests")
    add("--max-accepts", metavar="N", type=int, help="... so many connections")
    add("--max-rss", metavar="SIZE", type=size, help="... at that much memory, such as 512M")
    add("--max-lifetime", metavar="TIME", type=seconds, help="... after that time, such as 12h")
    add("--jitter", metavar="SHARE", type=float, help="by how much these limits differ among workers (default: 0.1)")


def add_addresses(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("addresses")
    add = group.add_argument
    add(
        "-b",
        "--bind",
        metavar="ADDRESS",
        action="append",
        help="HOST:PORT, unix:PATH?mode=0660&owner=USER&group=GROUP, unix:@NAME or fd://N; may be repeated "
        "(default: the service manager's sockets, else 127.0.0.1:8000)",
    )
    add("--backlog", metavar="N", type=int, help="connections that may wait (default: 2048)")
    add(
        "--balance",
        choices=("shared", "reuseport", "port_per_worker"),
        help="one socket for all, one each on the same port, or port + slot (default: shared)",
    )
    add(
        "--proxy-protocol",
        metavar="NETWORKS",
        help="expect PROXY headers (v1, v2) of balancers in these networks, separated by commas",
    )
    add("--ssl-certfile", dest="certfile", metavar="FILE", help="TLS: the certificate, with its chain")
    add("--ssl-keyfile", dest="keyfile", metavar="FILE", help="its key, if it is in a file of its own")
    add("--ssl-keyfile-password", dest="keyfile_password", metavar="TEXT", help="of the key")


def add_end(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the end of a worker")
    add = group.add_argument
    add("--drain-delay", metavar="TIME", type=seconds, help="serve on while balancers notice (default: 0)")
    add("--drain-idle-grace", metavar="TIME", type=seconds, help="silence that ends a connection (default: 1)")
    add(
        "--drain-timeout",
        metavar="TIME",
        type=seconds_or_none,
        help="cut what is not finished by then; none: never (default: 30)",
    )
    add("--shutdown-timeout", metavar="TIME", type=seconds, help="for what the application does then (default: 5)")


def add_care(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("care")
    add = group.add_argument
    add("--start-timeout", metavar="TIME", type=seconds, help="until a new worker must serve (default: 60)")
    add(
        "--blocked-timeout",
        metavar="TIME",
        type=seconds_or_none,
        help="replace a worker whose loop stands still for that long; none: never (default: 30)",
    )
    add("--health-bind", metavar="ADDRESS", help="where the master answers /livez and /readyz")
    add("--min-ready", metavar="N", type=int, help="workers that must serve for /readyz (default: 1)")
    add("--metrics-bind", metavar="ADDRESS", help="where the master answers /metrics (Prometheus); may be the same one")
    add("--control", metavar="PATH", help="the control socket; none: no such thing (default: in the runtime directory)")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Each field of hoop.Limits."""
    group = parser.add_argument_group("limits of the clients (see hoop.Limits)")
    for field in limit_fields():
        option = f"--limit-{field.name.replace('_', '-')}"
        if field.name == "when_full":
            group.add_argument(option, dest=f"limit_{field.name}", choices=("refuse", "wait"))
        elif "float" in str(field.type):
            group.add_argument(option, dest=f"limit_{field.name}", metavar="TIME", type=seconds)
        else:
            kind = size if field.name == "max_write_buffer" else int
            group.add_argument(option, dest=f"limit_{field.name}", metavar="N", type=kind)


def add_log(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("log, on standard error")
    group.add_argument("--log-format", choices=("auto", "text", "json"), help="lines of text or JSON (default: text)")
    group.add_argument("--access-log", action="store_true", help="a line for each request")


def limit_fields() -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(hoop.Limits)


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """For Options. ValueError, TypeError for what makes no sense."""
    given = {name: value for name, value in vars(arguments).items() if name not in ("run", "parser")}
    drain = {name: given.pop(f"drain_{name}") for name in DRAIN if f"drain_{name}" in given}
    if drain:
        given["drain"] = hoop.Drain(**drain)
    names = [field.name for field in limit_fields()]
    limits = {name: given.pop(f"limit_{name}") for name in names if f"limit_{name}" in given}
    if limits:
        given["limits"] = hoop.Limits(**limits)
    if "proxy_protocol" in given:
        networks = [one.strip() for one in given["proxy_protocol"].split(",") if one.strip()]
        given["proxy_protocol"] = hoop.ProxyProtocol(trusted=networks)
    if "threads" in given:
        if "workers" in given:
            raise ValueError("--threads and --workers cannot both be given")
        given.update(kind="threads", workers=given.pop("threads"))
    if "env" in given:
        given["env"] = dict(given["env"])
    if "roles" in given:
        given["roles"] = {name: Role(target) for name, target in given["roles"]}
    if given.get("control") == "none":
        given["control"] = False
    return given


DRAIN = ("delay", "idle_grace", "timeout")


def run(arguments: argparse.Namespace) -> int:
    """Serve until the end; the exit status."""
    from hoop.cluster.cluster import Cluster
    from hoop.cluster.threads import check_build

    try:
        if "threads" in arguments:
            check_build("--threads")
        settings = settings_of(arguments)
        cluster = Cluster(settings.pop("target"), **settings)
    except (ValueError, TypeError, RuntimeError) as error:
        arguments.parser.error(str(error))
    return cluster.run_logged()
