"""What src/hoop/tls/engine.pxd promises, of each engine: a session relies on nothing else.

The interface is compiled, so a driver of Cython, built here, stands between.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.tls_peers import NAME, client_context, server_context

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORD = 16384
MOST = 7 * 16384  # TLS_ENCRYPT_SIZE
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
source, folder, csrc, package = sys.argv[1:5]
module = Extension("engine_driver", [source], include_dirs=[csrc])
made = cythonize([module], build_dir=folder, include_path=[package], language_level=3, quiet=True)
setup(ext_modules=made, script_args=["--quiet", "build_ext", "--build-lib", folder, "--build-temp", folder])
"""


@pytest.fixture(scope="module")
def driver_class(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("driver")
    arguments = [HERE / "engine_driver.pyx", folder, ROOT / "csrc", ROOT / "src"]
    built = subprocess.run(
        [sys.executable, "-c", BUILD, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert built.returncode == 0, built.stderr
    (library,) = folder.glob("engine_driver*.so")
    spec = importlib.util.spec_from_file_location("engine_driver", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Driver


@pytest.fixture(params=["direct", "safe"])
def engine_name(request: pytest.FixtureRequest) -> str:
    import hoop

    if request.param == "direct" and hoop.tls_engine().name != "direct":
        pytest.skip(hoop.tls_engine().reason)
    return request.param


class Pair:
    """A server's engine and a client of the ssl module."""

    def __init__(self, driver_class: Any, engine_name: str, version: ssl.TLSVersion, context: Any = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context(version=version)
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        self.engine = driver_class(context or server_context(), True, None, engine_name == "safe")
        assert self.engine.name == engine_name

    def shake_hands(self, *, at_a_time: int = 1 << 20, behind: bytes = b"") -> bytes:
        """Both are done; what is left of the ciphertext, behind which the client has written. The engine is last."""
        rest = b""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
                self.client.write(behind)
            sent = self.outgoing.read()
            for at in range(0, len(sent), at_a_time):
                is_done, rest = self.engine.handshake(sent[at : at + at_a_time])
                self.incoming.write(self.engine.take_output() or b"")
                if is_done:
                    return rest + sent[at + at_a_time :]
                assert rest == b""

    def finish_client(self) -> None:
        """In TLS 1.2 the server's end of the handshake comes last."""
        self.client.do_handshake()

    def sent_by_client(self, data: bytes) -> bytes:
        self.client.write(data)
        return self.outgoing.read()


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return request.param


@pytest.fixture
def pair(driver_class: Any, engine_name: str, version: ssl.TLSVersion) -> Pair:
    pair = Pair(driver_class, engine_name, version)
    assert pair.shake_hands() == b""
    pair.finish_client()
    return pair


def decrypted(engine: Any, data: bytes, size: int) -> bytes:
    """All that it makes of data, with room for size bytes at a time."""
    whole = b""
    while data or engine.has_record():
        part, data = engine.decrypt(data, size)
        if part is None:
            assert data == b""
        else:
            assert 0 < len(part) <= size
            whole += part
    return whole


def pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


def test_the_handshake_takes_what_it_is_given(driver_class: Any, engine_name: str, version: ssl.TLSVersion) -> None:
    pair = Pair(driver_class, engine_name, version)
    assert pair.shake_hands(at_a_time=1) == b""
    pair.finish_client()
    assert pair.engine.ssl_object.version() == pair.client.version()
    assert pair.engine.pending() == 0


def test_what_comes_behind_the_handshake_is_left_or_held(driver_class: Any, engine_name: str) -> None:
    pair = Pair(driver_class, engine_name, ssl.TLSVersion.TLSv1_3)
    rest = pair.shake_hands(behind=b"early bird")
    assert len(rest) + pair.engine.pending() > 0
    assert decrypted(pair.engine, rest, 100) == b"early bird"


@pytest.mark.parametrize("room", [1, 1000, RECORD, 100_000])
@pytest.mark.parametrize("at_a_time", [1, 7000, 1 << 20])
def test_decrypting(pair: Pair, at_a_time: int, room: int) -> None:
    data = pattern(40_000)[: 300 if 1 in (room, at_a_time) else 40_000]
    sent = pair.sent_by_client(data)
    whole = b"".join(decrypted(pair.engine, sent[at : at + at_a_time], room) for at in range(0, len(sent), at_a_time))
    assert whole == data
    assert pair.engine.pending() == 0
    assert not pair.engine.has_record()


def test_what_is_held(pair: Pair) -> None:
    engine = pair.engine
    sent = pair.sent_by_client(b"x" * 1000)
    assert engine.decrypt(sent[:600], 2000) == (None, b"")
    assert engine.pending() == 600
    assert not engine.has_record()
    assert engine.decrypt(b"", 2000) == (None, b"")
    part, rest = engine.decrypt(sent[600:], 400)
    assert (part, rest) == (b"x" * 400, b"")
    assert engine.has_record()
    assert engine.pending() == 600
    assert engine.decrypt(b"", 2000) == (b"x" * 600, b"")
    assert engine.pending() == 0


@pytest.mark.parametrize("size", [1, 1000, RECORD, RECORD + 1, MOST])
def test_encrypting(pair: Pair, size: int) -> None:
    data = pattern(size)[:size]
    at = 0
    assert pair.engine.take_output() is None
    while at < size:
        count = pair.engine.encrypt(data[at:])
        assert count >= min(RECORD, size - at)
        at += count
        output = pair.engine.take_output()
        assert isinstance(output, bytes)
        assert len(output) > count
        pair.incoming.write(output)
    assert pair.engine.take_output() is None
    received = b""
    while len(received) < size:
        received += pair.client.read(size)
    assert received == data


def test_output_that_is_not_taken_stays_in_order(pair: Pair) -> None:
    """More than the room that was made for the first, and what the application writes beside."""
    for data in (b"1" * 10, b"2" * 5000, b"3" * RECORD):
        assert pair.engine.encrypt(data) == len(data)
    pair.engine.ssl_object.write(b"4")
    pair.incoming.write(pair.engine.take_output())
    received = b"".join(pair.client.read(RECORD) for _ in range(4))
    assert received == b"1" * 10 + b"2" * 5000 + b"3" * RECORD + b"4"
    assert pair.engine.take_output() is None


def test_the_end(pair: Pair) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    sent = pair.outgoing.read()
    assert pair.engine.decrypt(sent, 100)[0] == b""
    pair.engine.end()
    pair.incoming.write(pair.engine.take_output())
    pair.client.unwrap()


def test_the_end_behind_data(pair: Pair) -> None:
    sent = pair.sent_by_client(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    part, rest = pair.engine.decrypt(sent + pair.outgoing.read(), 10)
    assert part == b"last words"
    assert pair.engine.decrypt(rest, 10)[0] == b""


def test_ending_first(pair: Pair) -> None:
    pair.engine.end()
    pair.incoming.write(pair.engine.take_output())
    assert pair.client.read(100) == b""


def raised_by(call: Any, *arguments: Any) -> ssl.SSLError:
    with pytest.raises(ssl.SSLError) as raised:
        call(*arguments)
    return raised.value


def words_of(error: ssl.SSLError) -> tuple[Any, ...]:
    """All of it but for the line of _ssl.c that raised it."""
    return type(error), error.args[0], str(error).partition(" (_ssl.c:")[0], error.library, error.reason


def raised_by_ssl(version: ssl.TLSVersion, damage: Callable[[bytes], bytes]) -> ssl.SSLError:
    """What an SSLObject raises by itself for a record that was damaged."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context().wrap_bio(to_server, to_client, server_side=True)
    client = client_context(version=version).wrap_bio(to_client, to_server, server_hostname=NAME)
    for _ in range(3):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    client.write(b"damaged")
    to_server.write(damage(to_server.read()))
    return raised_by(server.read, 100)


def with_another_end(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


def no_tls(record: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n\r\n" * 1000


def test_a_damaged_record(pair: Pair, version: ssl.TLSVersion) -> None:
    first = pair.sent_by_client(b"whole")
    damaged = with_another_end(pair.sent_by_client(b"damaged"))
    part, rest = pair.engine.decrypt(first + damaged, 100)
    assert part == b"whole"
    error = raised_by(pair.engine.decrypt, rest, 100)
    assert words_of(error) == words_of(raised_by_ssl(version, with_another_end))
    assert pair.engine.has_record()
    raised_by(pair.engine.decrypt, b"", 100)
    pair.incoming.write(pair.engine.take_output())  # the alert
    assert "BAD_RECORD_MAC" in raised_by(pair.client.read, 100).reason


def test_what_is_no_tls(pair: Pair, version: ssl.TLSVersion) -> None:
    error = raised_by(pair.engine.decrypt, no_tls(b""), 100)
    assert words_of(error) == words_of(raised_by_ssl(version, no_tls))


def test_an_alert_from_the_peer(pair: Pair) -> None:
    pair.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    raised_by(pair.client.read, 100)
    error = raised_by(pair.engine.decrypt, pair.outgoing.read(), 100)
    assert error.library == "SSL"
    assert "ALERT" in error.reason


def test_a_failed_handshake(driver_class: Any, engine_name: str, version: ssl.TLSVersion) -> None:
    context = server_context(asks_client=True)
    context.minimum_version = context.maximum_version = version
    pair = Pair(driver_class, engine_name, version, context)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        pair.shake_hands()
    assert pair.engine.take_output()


@pytest.mark.parametrize("when", ["read", "write"])
def test_a_callback_that_raises(driver_class: Any, engine_name: str, version: ssl.TLSVersion, when: str) -> None:
    fails = False

    def on_message(_: Any, direction: str, *others: Any) -> None:
        if fails and direction == when:
            raise LookupError(direction)

    context = server_context()
    context._msg_callback = on_message  # type: ignore[attr-defined]
    pair = Pair(driver_class, engine_name, version, context)
    pair.shake_hands()
    pair.finish_client()
    fails = True
    with pytest.raises(LookupError, match=when):
        if when == "read":
            pair.engine.decrypt(pair.sent_by_client(b"x"), 100)
        else:
            pair.engine.encrypt(b"x")


def test_the_object_outlives_its_engine(pair: Pair) -> None:
    ssl_object = pair.engine.ssl_object
    pair.engine.encrypt(b"never sent")
    del pair.engine
    gc.collect()
    with pytest.raises(ssl.SSLWantReadError):
        ssl_object.read(10)
    assert ssl_object.write(b"nowhere") == 7
    assert ssl_object.cipher()


def test_tickets_are_no_data(driver_class: Any, engine_name: str) -> None:
    """A client's engine: what a server sends by itself after the handshake of TLS 1.3."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context().wrap_bio(incoming, outgoing, server_side=True)
    engine = driver_class(client_context(), False, NAME, engine_name == "safe")
    is_done, rest = engine.handshake(b"")
    while not is_done:
        incoming.write(engine.take_output() or b"")
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
        is_done, rest = engine.handshake(outgoing.read())
    incoming.write(engine.take_output())
    server.do_handshake()
    rest += outgoing.read()
    assert len(rest) > 0
    assert engine.decrypt(rest, 1000) == (None, b"")
    assert engine.pending() == 0
    assert not engine.has_record()
