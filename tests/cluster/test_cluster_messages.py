"""Messages between master and workers: bounded both ways, and none is lost in silence."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import hoop
import pytest
from clusters import LINES_APP, ask, started, workers_of
from hoop.cluster.channel import HEAD, LARGEST, Channel, ChannelFull

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

MASTER = """
def on_message(worker, message):
    say("master got", worker.slot, message)
    if isinstance(message, dict) and "all" in message:
        cluster.broadcast(message["all"])
    elif message != "quiet":
        worker.send(["back", message])

def on_exit(worker, how):
    say("master saw", worker.slot, how, [one.slot for one in cluster.workers])

cluster = hoop.cluster.Cluster(main, workers=2, bind="127.0.0.1:0", control=False,
                               on_message=on_message, on_exit=on_exit)
sys.exit(cluster.run_logged())
"""
HEARING = LINES_APP.replace(
    "    worker.ready()",
    "    worker.on_message = lambda text: say('worker', worker.id, 'got', text)\n    worker.ready()",
)


def test_messages_go_both_ways(tmp_path: Path) -> None:
    with started(HEARING + MASTER, tmp_path) as running:
        address = running.serving()
        slot = ask(address, "run answer = worker.id; worker.send({'n': [1, None, 'ü']})")
        running.expect(rf"master got {slot} {{'n': \[1, None, 'ü'\]}}")
        running.expect(rf"worker {slot} got \['back', {{'n': \[1, None, 'ü'\]}}\]")
        ask(address, "run worker.send({'all': 'hello'})")
        running.expect("worker . got hello")
        running.expect("worker . got hello")
        assert running.stop() == 0


def test_messages_wait_for_a_worker_that_does_not_listen_yet(tmp_path: Path) -> None:
    with started(LINES_APP + MASTER.replace("workers=2", "workers=1"), tmp_path) as running:
        address = running.serving()
        ask(address, "run worker.send(1)")
        ask(address, "run worker.send(2)")
        running.expect("master got 0 2")
        ask(address, "run worker.on_message = lambda message: say('worker got', message)")
        running.expect(r"worker got \['back', 1\]")
        running.expect(r"worker got \['back', 2\]")
        assert running.stop() == 0


def test_trap_c04_messages_just_before_the_exit_arrive(tmp_path: Path) -> None:
    with started(HEARING + MASTER, tmp_path) as running:
        address = running.serving()
        slot = ask(address, "run answer = worker.id; [worker.send('quiet') for _ in range(2000)]; worker.send('last');"
                   " is_over.set()")  # fmt: skip
        running.expect(f"master got {slot} last")
        running.expect(f"master saw {slot} exited with status 0")
        assert "\n".join(running.lines).count("quiet") == 2000
        assert running.stop() == 0


def test_trap_c02_the_master_outlives_workers_that_die_while_it_writes(tmp_path: Path) -> None:
    flood = MASTER.replace('worker.send(["back", message])', "flood(worker)") + ""
    flood = f"""
def flood(worker):
    os.kill(worker.pid, signal.SIGKILL)
    for _ in range(8):
        try:
            worker.send("x" * 900_000)
        except (hoop.cluster.ChannelFull, ConnectionError) as error:
            say("refused:", type(error).__name__)
{flood}"""
    with started(LINES_APP + flood, tmp_path) as running:
        address = running.serving()
        before = workers_of(address, 2)
        slot = int(ask(address, "run answer = worker.id; asyncio.get_running_loop().call_soon(worker.send, 'go')"))
        running.expect("refused: (ChannelFull|ConnectionError)")
        running.expect(rf"worker {slot}: \d+ messages to it are lost")
        running.expect(f"worker {slot}: ready")
        assert workers_of(address, 2)[1 - slot] == before[1 - slot]
        assert running.stop() == 0


def test_trap_c03_a_side_that_does_not_read_is_told_to_the_other(tmp_path: Path) -> None:
    """The worker sleeps; the master's send() says so, and the master goes on. Then all that was taken arrives."""
    program = (
        HEARING.replace("say('worker', worker.id, 'got', text", "say('got', len(text)")
        + """
def on_message(worker, message):
    taken = 0
    try:
        while True:
            worker.send("x" * 500_000)
            taken += 1
    except hoop.cluster.ChannelFull as error:
        say("taken", taken, error)
    open("on", "w").close()

sys.exit(hoop.cluster.Cluster(main, workers=1, bind="127.0.0.1:0", control=False, on_message=on_message).run_logged())
"""
    )
    with started(program, tmp_path) as running:
        address = running.serving()
        ask(address, "run worker.send('go'); [time.sleep(0.01) for _ in iter(lambda: os.path.exists('on'), True)]")
        taken = int(running.expect(r"taken (\d+) the other side of the channel does not read")[1])
        assert 4 < taken < 40
        for _ in range(taken):
            running.expect("got 500000")
        assert running.stop() == 0


# ---- the channel by itself -------------------------------------------------------------------------------------------


class Pair:
    """Two ends of a channel on one loop, and what each has heard."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sockets = socket.socketpair()
        self.heard: list[tuple[dict[str, Any], bytes]] = []
        self.ends = 0
        self.is_over = loop.create_future()
        self.here = Channel(loop, self.sockets[0], lambda *heard: None, lambda: None)
        self.there = Channel(loop, self.sockets[1], lambda *heard: self.heard.append(heard), self.on_end)

    def on_end(self) -> None:
        self.ends += 1
        self.is_over.set_result(None)


def test_messages_carry_bytes_and_arrive_in_order() -> None:
    async def main() -> None:
        pair = Pair()
        sent = [({"n": number, "t": "é" * number}, bytes(number * 50)) for number in range(300)]
        for message, data in sent:
            pair.here.send(message, data)
        while pair.here.unsent:
            await asyncio.sleep(0)
        pair.here.close()
        await pair.is_over
        assert pair.heard == sent and pair.ends == 1
        assert not pair.here.is_open and not pair.there.is_open
        with pytest.raises(ConnectionError):
            pair.there.send({})

    hoop.run(main())


def test_what_is_no_message_is_refused() -> None:
    async def main() -> None:
        pair = Pair()
        with pytest.raises(ValueError, match="larger than"):
            pair.here.send({}, bytes(LARGEST))
        with pytest.raises(TypeError):
            pair.here.send({"set": {1}})
        pair.here.close()

    hoop.run(main())


def test_trap_c03_what_is_unsent_is_bounded() -> None:
    async def main() -> None:
        pair = Pair()
        asyncio.get_running_loop().remove_reader(pair.sockets[1])
        count = 0
        with pytest.raises(ChannelFull):
            while True:
                pair.here.send({}, bytes(LARGEST - 10))
                count += 1
        assert count < 8
        assert pair.here.flush(0.01) == pair.here.unsent > 0
        pair.here.close()

    hoop.run(main())


@pytest.mark.parametrize("garbage", [HEAD.pack(LARGEST, 1), HEAD.pack(3, 0) + b"{x}", b"\xff" * 100])
def test_garbage_ends_a_channel(garbage: bytes) -> None:
    async def main() -> None:
        pair = Pair()
        pair.sockets[0].send(garbage)
        await pair.is_over
        assert pair.heard == [] and not pair.there.is_open
        pair.here.close()

    hoop.run(main())


def test_a_handler_that_fails_costs_no_later_message() -> None:
    async def main() -> None:
        pair = Pair()
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        hear = pair.there._on_message

        def fail(message: dict[str, Any], data: bytes) -> None:
            hear(message, data)
            raise ValueError(message)

        pair.there._on_message = fail
        for number in range(3):
            pair.here.send({"n": number})
        pair.here.close()
        await pair.is_over
        assert [message["n"] for message, _ in pair.heard] == [0, 1, 2] and len(failures) == 3

    hoop.run(main())
