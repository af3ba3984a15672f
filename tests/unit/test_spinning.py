"""How long a loop looks for events before it sleeps: Loop(spin_us=...) and HOOP_SPIN_US."""

from __future__ import annotations

import asyncio
import socket
import threading

import hoop
import pytest


@pytest.mark.parametrize("number", [-1, 1001])
def test_number_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="spin_us must be a number from 0 to 1000"):
        hoop.Loop(spin_us=number)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError):
        hoop.Loop(spin_us="20")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["-1", "soon", "1001", "0.5"])
def test_environment_variable_out_of_range_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOP_SPIN_US", text)
    with pytest.raises(ValueError, match="HOOP_SPIN_US must be a number from 0 to 1000"):
        hoop.Loop()


@pytest.mark.parametrize("text", ["", "0", "1000"])
def test_environment_variable_in_range_is_taken(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOP_SPIN_US", text)
    hoop.Loop().close()


@pytest.mark.parametrize("spin_us", [0, 20, 1000])
def test_loop_answers_peers_of_every_pace(spin_us: int) -> None:
    """Some answers come while it looks, some while it sleeps, and some were there before."""

    async def main(ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in range(200):
            await loop.sock_sendall(ours, b"%03d" % number)
            assert await loop.sock_recv(ours, 3) == b"%03d" % number
            if number % 10 == 0:
                await asyncio.sleep(0.001)  # what is looked for in vain meanwhile

    def echo(peer: socket.socket) -> None:
        while data := peer.recv(3):
            peer.sendall(data)

    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        thread = threading.Thread(target=echo, args=(peer,))
        thread.start()
        with asyncio.Runner(loop_factory=lambda: hoop.Loop(spin_us=spin_us)) as runner:
            runner.run(main(ours))
        ours.close()
        thread.join()


def test_loop_that_waits_for_rare_events_sleeps() -> None:
    """Looks in vain become rare: nearly every wait for a timer ends in a sleep."""

    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        before = loop.metrics()  # type: ignore[attr-defined]
        for _ in range(100):
            await asyncio.sleep(0.0005)
        after = loop.metrics()  # type: ignore[attr-defined]
        return after.sleeps - before.sleeps, after.timer_lateness.count - before.timer_lateness.count

    with asyncio.Runner(loop_factory=lambda: hoop.Loop(spin_us=20)) as runner:
        sleeps, waits = runner.run(main())
    assert waits >= 100
    assert 2 * sleeps >= waits  # a timer is due at once for a process that has lost the processor meanwhile
