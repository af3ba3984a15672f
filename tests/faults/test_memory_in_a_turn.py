"""An allocation fails while the loop handles the event of one descriptor: that connection or that listener gets the
error, hoop reports it, and the turn goes on with the next.

In the callbacks of a turn the k-th allocation from then on is made to fail (`_testcapi.set_nomemory`), for every k up
to one that nothing of the turn reaches. The I/O of the turn comes after its callbacks.
"""

from __future__ import annotations

import pytest
from interpreter import run_script

pytest.importorskip("_testcapi")

PRELUDE = """
import asyncio, gc, socket, sys
import _testcapi
import hoop

MOST = 400
told = []
gc.disable()


class Echo(asyncio.Protocol):
    made = None

    def __init__(self):
        self.lost = loop.create_future()
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport
        Echo.made = self

    def data_received(self, data):
        self.data += data

    def connection_lost(self, error):
        self.lost.set_result(error)


def turn(k):
    '''One turn in which the k-th allocation fails. What no callback may keep would leave run_forever().'''
    begin = lambda: _testcapi.set_nomemory(k, k + 1)
    loop.call_soon(begin)
    loop.call_soon(loop.stop)
    loop.set_immediate(_testcapi.remove_mem_hooks)  # behind the I/O; what ends the run is not the turn's
    try:
        loop.run_forever()
    finally:
        _testcapi.remove_mem_hooks()


loop = hoop.Loop(poll_every_turn=True)
loop.set_exception_handler(lambda loop, context: told.append(type(context.get("exception"))))
server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
address = server.sockets[0].getsockname()


def settle():
    for _ in range(4):
        loop.call_soon(loop.stop)
        loop.run_forever()
"""

RECEIVE = """
failures = 0
with socket.create_connection(address) as client:
    settle()
    protocol = Echo.made
    for k in range(MOST):
        client.send(b"x" * 10)
        turn(k)
        settle()
        if told or protocol.lost.done():
            failures += 1
            assert all(kind is MemoryError for kind in told), (k, told)
            told.clear()
            if protocol.lost.done():
                assert isinstance(protocol.lost.result(), MemoryError), (k, protocol.lost.result())
                client.close()
                client = socket.create_connection(address)
                settle()
                protocol = Echo.made
    assert failures > 0
    client.close()
print("done")
"""

ACCEPT = """
failures = 0
for k in range(MOST):
    Echo.made = None
    with socket.create_connection(address) as client:
        turn(k)
        settle()
        if told:
            failures += 1
            told.clear()
        protocol = Echo.made
        if protocol is None or protocol.lost.done():
            client.settimeout(20)
            try:
                assert client.recv(1) == b""
            except ConnectionError:
                pass
        else:
            client.send(b"x")
            settle()
            assert protocol.data == b"x"
            protocol.transport.abort()
            settle()
assert failures > 0
assert server.is_serving() and server.stats().active == 0, server.stats()
with socket.create_connection(address) as client:
    settle()
    client.send(b"x")
    settle()
    assert Echo.made.data == b"x"
print("done")
"""

ABORT = """
import tempfile

failures = 0
for k in range(40):
    for is_cancelled in (False, True):
        with socket.create_connection(address) as client, tempfile.TemporaryFile() as file:
            settle()
            protocol = Echo.made
            file.truncate(1 << 26)
            sending = loop.create_task(loop.sendfile(protocol.transport, file))
            for _ in range(10):
                settle()

            def abort():
                global failures
                _testcapi.set_nomemory(k, k + 1)
                try:
                    protocol.transport.abort()
                except MemoryError:
                    failures += 1
                finally:
                    _testcapi.remove_mem_hooks()

            loop.call_soon(abort)
            if is_cancelled:
                sending.cancel()
            settle()
            protocol.transport.abort()
            loop.run_until_complete(asyncio.wait_for(protocol.lost, 20))
            waiter = sending._fut_waiter  # asyncio's own future may have had no memory to call its task
            if waiter is None or not waiter.done():
                loop.run_until_complete(asyncio.wait([sending], timeout=20))
                assert sending.done() and (sending.cancelled() or sending.exception()), (k, is_cancelled, sending)
assert failures > 0
print("done")
"""


@pytest.mark.parametrize("body", [RECEIVE, ACCEPT, ABORT], ids=["receive", "accept", "abort"])
def test_an_allocation_that_fails_is_about_one_connection(body: str) -> None:
    status, output, errors = run_script(PRELUDE + body)
    assert (status, output) == (0, "done"), errors
