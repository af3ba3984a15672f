"""The loop itself as a subject of the matrix: its methods, by what fits their parameters."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import socket
from typing import Any

from conformance.differences.calls import ODD, coroutine_function, nothing
from conformance.differences.subjects import Fits, Subject, a, here, the
from conformance.differences.surroundings import Surroundings
from conformance.peers import LOCALHOST
from conformance.tls_peers import client_context, server_context


def sock(name: str = "sock") -> Any:
    return a(name)


def peer_of_pair() -> Any:
    ours, _ = here.around.silent_pair()
    return ours


def executor() -> Any:
    made = concurrent.futures.ThreadPoolExecutor(1)
    here.around._stack.callback(made.shutdown)
    return made


def transport() -> Any:
    return here.around.transport


def coroutine() -> Any:
    return coroutine_function()


FITTING: dict[str, Fits] = {
    "call_soon": {"callback": the(nothing)},
    "call_soon_threadsafe": {"callback": the(nothing)},
    "call_later": {"delay": the(0), "callback": the(nothing)},
    "call_at": {"when": the(0), "callback": the(nothing)},
    "create_task": {"coro": coroutine},
    "run_until_complete": {"future": coroutine},
    "run_in_executor": {"executor": the(None), "func": the(nothing)},
    "set_default_executor": {"executor": executor},
    "set_debug": {"enabled": the(False)},
    "set_task_factory": {"factory": the(None)},
    "set_exception_handler": {"handler": the(None)},
    "default_exception_handler": {"context": the({"message": "of the test"})},
    "call_exception_handler": {"context": the({"message": "of the test"})},
    "getaddrinfo": {"host": the(LOCALHOST), "port": the(80)},
    "getnameinfo": {"sockaddr": the((LOCALHOST, 80)), "flags": the(socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)},
    "add_reader": {"fd": a("sock"), "callback": the(nothing)},
    "add_writer": {"fd": a("sock"), "callback": the(nothing)},
    "remove_reader": {"fd": a("sock")},
    "remove_writer": {"fd": a("sock")},
    "add_signal_handler": {"sig": the(signal.SIGUSR1), "callback": the(nothing)},
    "remove_signal_handler": {"sig": the(signal.SIGUSR1)},
    "sock_recv": {"sock": a("sock"), "n": the(10)},
    "sock_recv_into": {"sock": a("sock"), "buf": lambda: bytearray(10)},
    "sock_recvfrom": {"sock": a("udp"), "bufsize": the(10)},
    "sock_recvfrom_into": {"sock": a("udp"), "buf": lambda: bytearray(10)},
    "sock_sendall": {"sock": a("sock"), "data": the(b"data")},
    "sock_sendto": {"sock": a("udp"), "data": the(b"data"), "address": the((LOCALHOST, 9))},
    "sock_connect": {"sock": a("fresh_sock"), "address": a("address")},
    "sock_accept": {"sock": lambda: here.around.listener(is_called=True)},
    "sock_sendfile": {"sock": a("sock"), "file": a("file")},
    "sendfile": {"transport": transport, "file": a("file")},
    "start_tls": {"transport": transport, "protocol": a("protocol"), "sslcontext": the(None)},
    "create_connection": {"protocol_factory": lambda: here.around.protocol, "host": the(LOCALHOST), "port": a("port")},
    "create_server": {"protocol_factory": lambda: here.around.protocol, "host": the(LOCALHOST), "port": the(0)},
    "create_unix_connection": {"protocol_factory": lambda: here.around.protocol, "path": a("unix_listener_path")},
    "create_unix_server": {"protocol_factory": lambda: here.around.protocol, "path": a("path")},
    "create_datagram_endpoint": {
        "protocol_factory": lambda: here.around.datagram_protocol,
        "local_addr": the((LOCALHOST, 0)),
    },
    "connect_accepted_socket": {"protocol_factory": lambda: here.around.protocol, "sock": peer_of_pair},
    "connect_read_pipe": {"protocol_factory": lambda: here.around.protocol, "pipe": lambda: here.around.pipe()[0]},
    "connect_write_pipe": {"protocol_factory": lambda: here.around.protocol, "pipe": lambda: here.around.pipe()[1]},
    "subprocess_exec": {"protocol_factory": lambda: here.around.process_protocol, "program": the("true")},
    "subprocess_shell": {"protocol_factory": lambda: here.around.process_protocol, "cmd": the("true")},
}


def connecting(label: str, **keywords: Any) -> tuple[str, str, list[Any], dict[str, Any]]:
    return ("create_connection", label, [FITTING["create_connection"]["protocol_factory"]], keywords)


def serving(label: str, **keywords: Any) -> tuple[str, str, list[Any], dict[str, Any]]:
    return ("create_server", label, [FITTING["create_server"]["protocol_factory"]], keywords)


def datagrams(label: str, **keywords: Any) -> tuple[str, str, list[Any], dict[str, Any]]:
    return ("create_datagram_endpoint", label, [FITTING["create_datagram_endpoint"]["protocol_factory"]], keywords)


def unix(method: str, label: str, **keywords: Any) -> tuple[str, str, list[Any], dict[str, Any]]:
    return (method, label, [FITTING[method]["protocol_factory"]], keywords)


def child(label: str, **keywords: Any) -> tuple[str, str, list[Any], dict[str, Any]]:
    return ("subprocess_exec", label, list(FITTING["subprocess_exec"].values()), keywords)


def shell(label: str, **keywords: Any) -> tuple[str, str, list[Any], dict[str, Any]]:
    return ("subprocess_shell", label, list(FITTING["subprocess_shell"].values()), keywords)


def returns_nothing() -> Any:
    return lambda: None


def refuses() -> Any:
    def refuse() -> Any:
        raise ValueError("of the factory")

    return refuse


TO_LISTENER: dict[str, Any] = {"host": the(LOCALHOST), "port": a("port")}
REFUSED = {"host": the(LOCALHOST), "port": the(1)}
POPEN = {
    "text": True, "universal_newlines": True, "encoding": "utf-8", "errors": "strict", "bufsize": 1,
    "bufsize_none": None, "cwd": "/nowhere", "env": {}, "stdin": -9, "stdout": 1.5, "stderr": "text", "pass_fds": None,
    "colour": "red", "executable": "/nowhere", "preexec_fn": 1, "process_group": -5, "user": -1, "umask": "text",
}  # fmt: skip
MORE = [
    connecting("nothing"),
    connecting("sock", sock=peer_of_pair),
    connecting("sock and host", sock=peer_of_pair, **TO_LISTENER),
    connecting("sock of datagrams", sock=a("udp")),
    connecting("sock not connected", sock=a("fresh_sock")),
    connecting("sock closed", sock=a("closed_sock")),
    connecting("nobody listens", **REFUSED),
    connecting("nobody listens, all_errors", **REFUSED, all_errors=the(True)),
    connecting("nobody listens, staggered", **REFUSED, happy_eyeballs_delay=the(0.1)),
    connecting("port 70000", host=the(LOCALHOST), port=the(70000)),
    connecting("NUL in the host", host=the("a\0b"), port=the(80)),
    connecting("local_addr", **TO_LISTENER, local_addr=the((LOCALHOST, 0))),
    connecting("local_addr of IPv6", **TO_LISTENER, local_addr=the(("::1", 0))),
    connecting("local_addr=three parts", **TO_LISTENER, local_addr=the((LOCALHOST, 0, 0))),
    connecting("ssl without a host", sock=peer_of_pair, ssl=client_context),
    connecting("server_hostname without ssl", **TO_LISTENER, server_hostname=the("name")),
    connecting("handshake timeout without ssl", **TO_LISTENER, ssl_handshake_timeout=the(1)),
    connecting("shutdown timeout without ssl", **TO_LISTENER, ssl_shutdown_timeout=the(1)),
    connecting("handshake timeout 0", **TO_LISTENER, ssl=client_context, ssl_handshake_timeout=the(0)),
    connecting("handshake timeout as text", **TO_LISTENER, ssl=client_context, ssl_handshake_timeout=the("1")),
    connecting("shutdown timeout -1", **TO_LISTENER, ssl=client_context, ssl_shutdown_timeout=the(-1)),
    connecting("family that does not fit", **TO_LISTENER, family=the(socket.AF_INET6)),
    ("create_connection", "factory returns None", [returns_nothing, TO_LISTENER["host"], TO_LISTENER["port"]], {}),
    ("create_connection", "factory raises", [refuses, TO_LISTENER["host"], TO_LISTENER["port"]], {}),
    serving("nothing"),
    serving("sock", sock=a("listener")),
    serving("sock and host", sock=a("listener"), host=the(LOCALHOST), port=the(0)),
    serving("sock of datagrams", sock=a("udp")),
    serving("sock closed", sock=a("closed_sock")),
    serving("port in use", host=the(LOCALHOST), port=a("port"), reuse_address=the(False)),
    serving("port 70000", host=the(LOCALHOST), port=the(70000)),
    serving("two hosts", host=the([LOCALHOST, "localhost"]), port=the(0)),
    serving("no hosts", host=the([]), port=the(0)),
    serving("host that is not ours", host=the("192.0.2.1"), port=the(0)),
    serving("ssl", host=the(LOCALHOST), port=the(0), ssl=server_context),
    serving("handshake timeout without ssl", host=the(LOCALHOST), port=the(0), ssl_handshake_timeout=the(1)),
    serving("shutdown timeout without ssl", host=the(LOCALHOST), port=the(0), ssl_shutdown_timeout=the(1)),
    datagrams("nothing"),
    datagrams("sock", sock=a("udp")),
    datagrams("sock and address", sock=a("udp"), local_addr=the((LOCALHOST, 0))),
    datagrams("sock of a stream", sock=a("fresh_sock")),
    datagrams("sock closed", sock=a("closed_sock")),
    datagrams("remote_addr", remote_addr=the((LOCALHOST, 9))),
    datagrams("two families", local_addr=the((LOCALHOST, 0)), remote_addr=the(("::1", 9))),
    datagrams("address in use", local_addr=lambda: here.around.udp().getsockname()),
    datagrams("family alone", family=the(socket.AF_INET)),
    datagrams("family of UNIX, address a tuple", family=the(socket.AF_UNIX), local_addr=the((LOCALHOST, 0))),
    unix("create_unix_connection", "nothing"),
    unix("create_unix_connection", "sock of TCP", sock=peer_of_pair),
    unix("create_unix_connection", "path and sock", path=a("path"), sock=peer_of_pair),
    unix("create_unix_connection", "nobody listens", path=a("path")),
    unix("create_unix_connection", "path too long", path=the("x" * 200)),
    unix("create_unix_connection", "NUL in the path", path=the("a\0b")),
    unix("create_unix_connection", "server_hostname without ssl", path=a("path"), server_hostname=the("name")),
    unix("create_unix_connection", "ssl without server_hostname", path=a("path"), ssl=client_context),
    unix("create_unix_server", "nothing"),
    unix("create_unix_server", "sock of TCP", sock=a("listener")),
    unix("create_unix_server", "path and sock", path=a("path"), sock=a("listener")),
    unix("create_unix_server", "path too long", path=the("x" * 200)),
    unix("create_unix_server", "folder that is not there", path=the("/nowhere/socket")),
    unix("create_unix_server", "path of a file", path=lambda: here.around.file().name),
    ("connect_accepted_socket", "sock of datagrams", [FITTING["create_server"]["protocol_factory"], a("udp")], {}),
    ("connect_accepted_socket", "sock closed", [FITTING["create_server"]["protocol_factory"], a("closed_sock")], {}),
    *(
        (
            "connect_accepted_socket",
            f"{name} without ssl",
            list(FITTING["connect_accepted_socket"].values()),
            {name: the(1)},
        )
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout")
    ),
    *(
        (method, "a file", [FITTING[method]["protocol_factory"], a("file")], {})
        for method in ("connect_read_pipe", "connect_write_pipe")
    ),
    *(child(f"{name}={value!r}", **{name.removesuffix("_none"): the(value)}) for name, value in POPEN.items()),
    *(shell(f"{name}={value!r}", **{name.removesuffix("_none"): the(value)}) for name, value in POPEN.items()),
    child("shell=True", shell=the(True)),
    shell("shell=False", shell=the(False)),
    (
        "subprocess_exec",
        "program that is not there",
        [FITTING["subprocess_exec"]["protocol_factory"], the("/nowhere")],
        {},
    ),
    ("subprocess_exec", "NUL in an argument", [*FITTING["subprocess_exec"].values(), the("a\0b")], {}),
    ("subprocess_exec", "argument a number", [*FITTING["subprocess_exec"].values(), the(1)], {}),
    ("subprocess_exec", "argument None", [*FITTING["subprocess_exec"].values(), the(None)], {}),
    ("run_in_executor", "func raises", [the(None), the(int), the("text")], {}),
    ("run_in_executor", "one argument", [the(None), the(len), the("text")], {}),
    ("create_task", "name", [coroutine], {"name": the("name")}),
    ("create_task", "name=1", [coroutine], {"name": the(1)}),
    ("run_until_complete", "a future", [lambda: here.around.loop.create_future()], {}),
    ("add_reader", "a closed socket", [a("closed_sock"), the(nothing)], {}),
    ("add_reader", "a file", [a("file"), the(nothing)], {}),
    ("add_reader", "a number that is not open", [the(9999), the(nothing)], {}),
    ("add_reader", "of a transport", [lambda: transport().get_extra_info("socket").fileno(), the(nothing)], {}),
    ("remove_reader", "a closed socket", [a("closed_sock")], {}),
    ("remove_reader", "a number that is not open", [the(9999)], {}),
    ("remove_reader", "of a transport", [lambda: transport().get_extra_info("socket").fileno()], {}),
    ("add_signal_handler", "SIGKILL", [the(signal.SIGKILL), the(nothing)], {}),
    ("add_signal_handler", "999", [the(999), the(nothing)], {}),
    ("remove_signal_handler", "999", [the(999)], {}),
    ("sock_recv", "n=0", [a("sock"), the(0)], {}),
    *(
        (method, "a closed socket", [a("closed_sock"), *list(FITTING[method].values())[1:]], {})
        for method in FITTING
        if method.startswith("sock_")
    ),
    ("sock_accept", "not listening", [a("fresh_sock")], {}),
    ("sock_connect", "nobody listens", [a("fresh_sock"), the((LOCALHOST, 1))], {}),
    ("sock_connect", "port 70000", [a("fresh_sock"), the((LOCALHOST, 70000))], {}),
    ("sock_connect", "already connected", [a("sock"), a("address")], {}),
    ("sock_recvfrom_into", "nbytes=2", [a("udp"), lambda: bytearray(10), the(2)], {}),
    ("sock_recvfrom_into", "nbytes too many", [a("udp"), lambda: bytearray(10), the(20)], {}),
    ("sock_recv_into", "bytes that cannot be written", [a("sock"), the(b"12345")], {}),
    ("sock_sendto", "no address", [a("udp"), the(b"data"), the(None)], {}),
    ("sock_sendfile", "offset=2, count=3", [a("sock"), a("file"), the(2), the(3)], {}),
    ("sendfile", "offset=2, count=3", [transport, a("file"), the(2), the(3)], {}),
    ("sendfile", "fallback=False", [transport, a("file")], {"fallback": the(False)}),
    ("getaddrinfo", "port as text", [the(LOCALHOST), the("80")], {}),
    ("getaddrinfo", "host=None, port=None", [the(None), the(None)], {}),
    ("getaddrinfo", "host as bytes", [the(LOCALHOST.encode()), the(80)], {}),
    ("getaddrinfo", "family that does not fit", [the(LOCALHOST), the(80)], {"family": the(socket.AF_INET6)}),
    ("getaddrinfo", "NUL in the host", [the("a\0b"), the(80)], {}),
    ("getaddrinfo", "port 70000", [the(LOCALHOST), the(70000)], {}),
    ("getnameinfo", "three parts", [the((LOCALHOST, 80, 0))], {"flags": the(2)}),
    ("getnameinfo", "port as text", [the((LOCALHOST, "80"))], {"flags": the(2)}),
    ("default_exception_handler", "an exception", [lambda: {"exception": ValueError("of the test")}], {}),
    ("call_exception_handler", "an exception", [lambda: {"exception": ValueError("of the test")}], {}),
]

# For these a name server would be asked, or the process's own standard streams and signals be touched, or it would
# wait.
UNFIT: dict[str, set[str]] = {
    "host": {"a text", "bytes", "a bytearray", "an empty text"},
    "fd": {"0", "True"},
    "sig": {"True"},
    "path": {"a text", "bytes"},
    "local_addr": {"a text", "bytes", "a bytearray"},
    "remote_addr": {"a text", "bytes", "a bytearray"},
    "ssl": {"True"},
    "create_task.context": set(ODD) - {"None"},  # asyncio's task waits for ever
    "subprocess_exec.protocol_factory": {"a callable", "a coroutine function", "a class"},  # so does the caller
    "subprocess_shell.protocol_factory": {"a callable", "a coroutine function", "a class"},
}


async def with_transport(around: Surroundings) -> None:
    """A transport of the loop, for the methods that take one."""
    ours, _ = around.silent_pair()
    around.transport, _ = await around.loop.create_connection(around.protocol, sock=ours)


async def loop_running(around: Surroundings) -> Any:
    await with_transport(around)
    return around.loop


LOOP = Subject(
    "loop",
    asyncio.SelectorEventLoop,
    {"running": loop_running},
    FITTING,
    MORE,
    UNFIT,
    odd_in=("running",),
)
