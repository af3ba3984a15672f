"""Which engine of TLS a connection gets, and why: each reason to refuse the direct one, brought about.

What is refused once is refused for the whole process, so each of these runs in one of its own; it has a TLS connection,
too, which works whatever was found.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conformance.tls_peers import NAME, anonymous_tls, client_context, server_context

DEADLINE_S = 60

ECHO = """
import asyncio, json, ssl, sys
import hoop
from conformance.tls_peers import anonymous_tls

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

async def main():
    server = await asyncio.get_running_loop().create_server(
        Echo, "127.0.0.1", 0, ssl=anonymous_tls(ssl.PROTOCOL_TLS_SERVER)
    )
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=anonymous_tls(ssl.PROTOCOL_TLS_CLIENT), server_hostname=""
    )
    writer.write(bytes(100_000))
    assert await reader.readexactly(100_000) == bytes(100_000)
    writer.close()
    await writer.wait_closed()
    server.close()

hoop.run(asyncio.wait_for(main(), 30))
print(json.dumps(hoop.tls_engine()))
"""


def engine_after(preparation: str, *, preload: Path | None = None) -> list[str]:
    """Name and reason of the engine in a process that begins with preparation, and has a connection."""
    import json

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("HOOP_TLS_ENGINE", None)
    if preload is not None:
        environment["LD_PRELOAD"] = os.pathsep.join(filter(None, (os.environ.get("LD_PRELOAD"), str(preload))))
    finished = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", preparation + ECHO],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer: list[str] = json.loads(finished.stdout)
    return answer


def library(folder: Path, name: str, code: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = folder / f"{name}.c"
    source.write_text(code)
    made = source.with_suffix(".so")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(made)], check=True, timeout=60)
    return made


def needs_direct_engine() -> None:
    import hoop

    engine = hoop.tls_engine()
    if engine.name != "direct" and "HOOP_TLS_ENGINE" not in engine.reason:
        pytest.skip(engine.reason)


def test_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import hoop

    monkeypatch.delenv("HOOP_TLS_ENGINE", raising=False)
    assert hoop.tls_engine().name in ("direct", "safe")
    assert hoop.tls_engine().reason
    monkeypatch.setenv("HOOP_TLS_ENGINE", "safe")
    assert hoop.tls_engine() == ("safe", "HOOP_TLS_ENGINE asks for it")


def test_here_it_is_direct() -> None:
    import _ssl

    is_known = sys.platform == "linux" and sys.abiflags in ("", "t") and ssl.OPENSSL_VERSION.startswith("OpenSSL ")
    if not is_known or not hasattr(_ssl, "__file__"):
        pytest.skip("another interpreter, or another OpenSSL")
    name, reason = engine_after("")
    assert name == "direct", reason
    assert ssl.OPENSSL_VERSION in reason


def test_an_unknown_name_is_refused_where_tls_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    import hoop

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = listening.sockets[0].getsockname()
        plain, protocol = await loop.create_connection(asyncio.Protocol, *address)
        monkeypatch.setenv("HOOP_TLS_ENGINE", "fast")
        wrong = pytest.raises(ValueError, match="HOOP_TLS_ENGINE must be 'direct' or 'safe', not 'fast'")
        with wrong:
            hoop.tls_engine()
        with wrong:
            await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_context())
        with wrong:
            await loop.create_connection(asyncio.Protocol, *address, ssl=client_context(), server_hostname=NAME)
        with wrong:
            await loop.start_tls(plain, protocol, client_context(), server_hostname=NAME)
        plain.close()
        listening.close()

    hoop.run(asyncio.wait_for(main(), DEADLINE_S))


LAYOUT = "import hoop.tls.ssl_layouts as layouts; import ssl, _ssl, sys, types\n"
REFUSALS = {
    "another interpreter": (
        LAYOUT + "sys.implementation = types.SimpleNamespace(**{**vars(sys.implementation), 'name': 'other'})\n",
        "ssl module of other",
    ),
    "another version": (LAYOUT + "layouts.LAYOUTS.clear()\n", "ssl module of Python"),
    "a debug build": (LAYOUT + "sys.abiflags = 'd'\n", "lays objects out otherwise"),
    "another head": (LAYOUT + "layouts.OBJECT_HEADS[sys.abiflags] = 24\n", "lays objects out otherwise"),
    "LibreSSL": ("import ssl; ssl.OPENSSL_VERSION = 'LibreSSL 3.9.2'\n", "the ssl module uses LibreSSL 3.9.2"),
    "AWS-LC": ("import ssl; ssl.OPENSSL_VERSION = 'AWS-LC 1.40.0'\n", "the ssl module uses AWS-LC"),
    "OpenSSL 1.1.0": ("import ssl; ssl.OPENSSL_VERSION_NUMBER = 0x1010007f\n", "nothing is known of OpenSSL"),
    "OpenSSL 4": ("import ssl; ssl.OPENSSL_VERSION_NUMBER = 0x40000000\n", "nothing is known of OpenSSL"),
    "another OpenSSL at run time": ("import ssl; ssl.OPENSSL_VERSION_NUMBER ^= 0x10\n", "is another one than"),
    "_ssl inside the interpreter": ("import _ssl; del _ssl.__file__\n", "part of the interpreter"),
    "_ssl from elsewhere": ("import _ssl; _ssl.__file__ = '/nowhere/_ssl.so'\n", "part of the interpreter"),
    "smaller objects": (
        LAYOUT + "for key in layouts.LAYOUTS: layouts.LAYOUTS[key] = layouts.SslLayout(1 << 20, 16, 16)\n",
        "other objects",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_process_that_is_refused(case: str) -> None:
    preparation, reason = REFUSALS[case]
    needs_direct_engine()
    name, told = engine_after(preparation)
    assert name == "safe"
    assert reason in told


@pytest.mark.parametrize("offset", [-16, -8, 0, 24, 32], ids=["count", "type", "null", "nowhere", "another object"])
def test_a_pointer_that_is_none_of_a_connection(offset: int) -> None:
    """It is looked at, never followed: at 24 there are small numbers, which taken together point to nowhere."""
    needs_direct_engine()
    moved = f"for key in layouts.LAYOUTS: layouts.LAYOUTS[key] = layouts.USUAL._replace(connection={offset})\n"
    assert engine_after(LAYOUT + moved) == [
        "safe",
        "the objects of the ssl module could not be shown to be the known ones",
    ]


@pytest.mark.parametrize("name", ["context", "bio"])
def test_neighbours_that_are_not_those_of_the_connection(name: str) -> None:
    needs_direct_engine()
    moved = f"for key in layouts.LAYOUTS: layouts.LAYOUTS[key] = layouts.USUAL._replace({name}=8)\n"
    assert engine_after(LAYOUT + moved)[0] == "safe"


FUNCTIONS = """
    OpenSSL_version_num SSL_read_ex SSL_write_ex SSL_want SSL_pending SSL_has_pending SSL_get_ex_data SSL_get_SSL_CTX
    SSL_get_rbio SSL_get_wbio SSL_set_bio BIO_new BIO_free BIO_up_ref BIO_set_data BIO_get_data BIO_set_flags
    BIO_clear_flags BIO_get_new_index BIO_meth_new BIO_meth_set_read BIO_meth_set_write BIO_meth_set_ctrl
""".split()


def loaded_in_place(made: Path) -> str:
    return f"import ctypes, _ssl; kept = ctypes.CDLL({str(made)!r}); _ssl.__file__ = {str(made)!r}\n"


def test_a_module_with_openssl_inside(tmp_path: Path) -> None:
    needs_direct_engine()
    inside = "".join(f"int {name}(void) {{ return 0; }}\n" for name in [*FUNCTIONS, "PyInit__ssl"])
    name, reason = engine_after(loaded_in_place(library(tmp_path, "static_ssl", inside)))
    assert (name, reason) == ("safe", "the ssl module has its OpenSSL inside")


def test_a_module_whose_openssl_is_hidden(tmp_path: Path) -> None:
    needs_direct_engine()
    name, reason = engine_after(
        loaded_in_place(library(tmp_path, "hidden_ssl", "int PyInit__ssl(void) { return 0; }\n"))
    )
    assert name == "safe"
    assert "lacks a function" in reason


def test_a_second_openssl_in_front_of_the_modules_own(tmp_path: Path) -> None:
    needs_direct_engine()
    other = library(tmp_path, "other_openssl", "int SSL_has_pending(void) { return 0; }\n")
    name, reason = engine_after("", preload=other)
    assert (name, reason) == ("safe", "the program has another OpenSSL, which the ssl module may use")


def test_memory_that_may_not_be_looked_at(tmp_path: Path) -> None:
    """As under a seccomp filter."""
    needs_direct_engine()
    code = "#include <errno.h>\nlong process_vm_readv(void) { errno = EPERM; return -1; }\n"
    assert engine_after("", preload=library(tmp_path, "no_readv", code))[0] == "safe"


def engine_of(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a connection that a program makes: what its transport's session has."""
    import hoop

    async def main() -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            asyncio.Protocol,
            "127.0.0.1",
            0,
            ssl=anonymous_tls(ssl.PROTOCOL_TLS_SERVER),  # type: ignore[arg-type]
        )
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname(), ssl=context, server_hostname=""
        )
        name: Any = transport.get_extra_info("tls_engine")
        transport.close()
        server.close()
        return str(name)

    monkeypatch.delenv("HOOP_TLS_ENGINE", raising=False)
    return hoop.run(asyncio.wait_for(main(), DEADLINE_S))


def test_objects_of_a_class_of_the_programs_get_the_safe_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnObject(ssl.SSLObject):
        pass

    needs_direct_engine()
    context = anonymous_tls(ssl.PROTOCOL_TLS_CLIENT)
    assert engine_of(context, monkeypatch) == "direct"
    context.sslobject_class = OwnObject
    assert engine_of(context, monkeypatch) == "safe"
