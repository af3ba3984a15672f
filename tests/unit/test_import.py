"""What `import hoop` loads, and what it leaves until a program asks for it."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings

import hoop
import pytest
from interpreter import run_script


def printed(program: str) -> str:
    status, output, errors = run_script(program)
    assert status == 0, errors
    return output


def test_importing_loads_no_other_module_of_hoop() -> None:
    program = """
import asyncio, sys
before = set(sys.modules)
import hoop
print(sorted(name for name in set(sys.modules) - before if name.split(".")[0] == "hoop"))
"""
    assert printed(program) == "['hoop']"


EVERYTHING = """
import asyncio, os, socket, ssl, subprocess, sys, tempfile
import hoop

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hoop":
            print("imported after the loop was made:", name)

async def main(folder):
    loop = asyncio.get_running_loop()
    limits = hoop.Limits(idle_timeout=60)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, limits=limits)
    client, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    client.close()
    await hoop.start_server(print, "127.0.0.1", 0)
    await hoop.open_connection(*server.sockets[0].getsockname())
    await loop.create_unix_server(asyncio.Protocol, os.path.join(folder, "socket"))
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    reading, writing = os.pipe()
    await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reading, "rb", 0))
    await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(writing, "wb", 0))
    child, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, sys.executable, "-c", "")
    await child._wait()
    await loop.getaddrinfo("localhost", 80)
    await loop.getnameinfo(("127.0.0.1", 80))
    await loop.run_in_executor(None, int)
    one, two = socket.socketpair()
    two.close()
    tls = {"ssl": ssl.create_default_context(), "server_hostname": "a"}
    try:
        await loop.create_connection(asyncio.Protocol, sock=one, **tls)
    except ConnectionError:
        pass
    loop.listen_tcp(lambda handle: None, "127.0.0.1", 0)
    loop.bind_udp(print, "127.0.0.1", 0)
    loop.connect_tcp(*server.sockets[0].getsockname())
    loop.set_timeout(print, 60)
    loop.metrics(), server.stats(), loop.pool.stats()

with tempfile.TemporaryDirectory() as folder:
    loop = hoop.new_event_loop()
    sys.meta_path.insert(0, Refuse())
    loop.run_until_complete(main(folder))
    loop.close()
"""


@pytest.mark.parametrize("first", ["hoop.new_event_loop().close()", "hoop.Pool", "hoop.StreamReader"])
def test_after_the_first_name_nothing_of_hoop_is_imported(first: str) -> None:
    """An import would fail without a free descriptor and after chroot(2), and hang in another thread's child."""
    program = EVERYTHING.replace("sys.meta_path.insert(0, Refuse())", "", 1)
    make = "loop = hoop.new_event_loop()"
    assert make in program
    assert printed(program.replace(make, f"{first}\n    sys.meta_path.insert(0, Refuse())\n    {make}")) == ""


def test_each_public_name_is_there_after_a_plain_import() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import hoop
for name in hoop.__all__:
    value = getattr(hoop, name)
    exec(f"from hoop import {name} as imported")
    if not value is imported is vars(hoop)[name]:
        print(name)
"""
    assert printed(program) == ""


def test_the_module_of_limits_is_an_attribute_of_the_package() -> None:
    assert printed("import hoop; print(hoop.limits.__name__)") == "hoop.limits"


def test_everything_public_can_be_imported_at_once() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import hoop
public = list(hoop.__all__)
from hoop import *
print([name for name in public if globals()[name] is not getattr(hoop, name)])
"""
    assert printed(program) == "[]"


def test_dir_names_what_is_not_loaded_yet() -> None:
    program = "import hoop; print(sorted(set(hoop.__all__) - set(dir(hoop))), dir(hoop) == sorted(set(dir(hoop))))"
    assert printed(program) == "[] True"


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hoop' has no attribute 'nonsense'"):
        hoop.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        from hoop import nonsense  # noqa: F401


def test_values_that_were_loaded_on_demand_can_be_pickled_and_copied() -> None:
    limits = hoop.Limits(idle_timeout=5)
    assert pickle.loads(pickle.dumps(limits)) == copy.deepcopy(limits) == limits
    assert pickle.loads(pickle.dumps(hoop.StreamReader)) is hoop.StreamReader
    pickled = pickle.dumps(limits)
    assert printed(f"import pickle; print(pickle.loads({pickled!r}))") == repr(limits)


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="Python 3.16 removes event loop policies")
def test_the_policy_is_the_same_each_time() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert hoop.EventLoopPolicy is hoop.EventLoopPolicy
