"""What lives during one round of the call fuzzer: loops, sockets, pipes, protocols, and what calls returned."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import random
import signal
import socket
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

import hoop
from fuzz.materials import LOCALHOST, SIGNALS, Materials

MOST_THINGS = 300
MODULES = (hoop.fs, hoop.dns, hoop.crypto, hoop.compress)
KINDS = [
    hoop.Limits, hoop.Loop, hoop.Pool, hoop.Server, hoop.Socket, hoop.SocketServer, hoop.StreamReader,
    hoop.StreamReaderProtocol, hoop.StreamWriter, hoop.Timer, hoop.Immediate, hoop.UdpSocket, hoop.dns.Resolver,
    hoop.monitor.Monitor,
]  # fmt: skip
# asyncio.Task and Future come from CPython, and so does what they do; the rest are values.
UNINTERESTING = (type, types.ModuleType, str, bytes, int, float, bool, tuple, type(None), asyncio.Future)
MAKERS = (
    "open_connection", "start_server", "open_unix_connection", "start_unix_server", "new_event_loop", "run",
)  # fmt: skip
# Calls that a program makes once, of what belongs to all loops.
NEVER = {"install", "EventLoopPolicy", "mro"}


def is_of_hoop(thing: Any) -> bool:
    return type(thing).__module__.partition(".")[0] == "hoop"


class Protocols:
    """Protocols of every kind, whose callbacks make calls themselves, fail, or answer nonsense."""

    def __init__(self, world: World) -> None:
        self.world = world

    def make(self) -> Any:
        return self.world.random.choice([self.stream, self.buffered, self.datagram, self.native, self.nonsense])()

    def reacting(self, base: type, names: tuple[str, ...]) -> Any:
        react = self.world.react
        kind = type("Reacting", (base,), {name: (lambda _, *a, name=name: react(name, *a)) for name in names})
        return kind()

    def stream(self) -> Any:
        names = (
            "connection_made",
            "data_received",
            "eof_received",
            "pause_writing",
            "resume_writing",
            "connection_lost",
        )
        return self.reacting(asyncio.Protocol, names)

    def buffered(self) -> Any:
        protocol = self.reacting(asyncio.BufferedProtocol, ("connection_made", "buffer_updated", "connection_lost"))
        random_ = self.world.random
        type(protocol).get_buffer = lambda _, hint: random_.choice([bytearray(100), bytearray(0), b"read-only", None])
        return protocol

    def datagram(self) -> Any:
        names = ("connection_made", "datagram_received", "error_received", "connection_lost")
        return self.reacting(asyncio.DatagramProtocol, names)

    def native(self) -> Any:
        """hoop's own protocols where they do not belong, also such as were never initialised."""
        kind = self.world.random.choice([hoop.Socket, hoop.UdpSocket, hoop.StreamReaderProtocol])
        return kind.__new__(kind)

    def nonsense(self) -> Any:
        return self.world.materials.odd()


class World:
    """One round: everything that it made, and how to be rid of it."""

    def __init__(self, seed: str, say: Callable[[str], None]) -> None:
        self.random = random.Random(seed)
        self.say = say
        self.depth = 0
        self.things: list[Any] = []
        self.loops: list[hoop.Loop] = []
        self.sockets: list[socket.socket] = []
        self.files: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.context = contextvars.copy_context()
        self.materials = Materials(self.random, self)
        self.protocols = Protocols(self)
        self.closed = socket.socket()
        self.closed.close()
        self.new_loop()

    def new_loop(self) -> hoop.Loop:
        chance = self.random.random
        loop = hoop.Loop(poller=self.random.choice([None, "poll"]), poll_every_turn=chance() < 0.3)
        loop.set_debug(chance() < 0.2)
        loop.set_exception_handler(lambda _, context: self.react("exception handler", context))
        self.loops.append(loop)
        self.keep(loop)
        return loop

    def keep(self, thing: Any) -> None:
        """A result, to be called and passed from now on."""
        if isinstance(thing, tuple | list) and not hasattr(thing, "_fields"):
            for part in thing[:4]:
                self.keep(part)
        elif not isinstance(thing, UNINTERESTING) and (is_of_hoop(thing) or inspect.isawaitable(thing)):
            if isinstance(thing, hoop.Loop) and thing not in self.loops:
                self.loops.append(thing)
            self.things.append(thing)
            if len(self.things) > MOST_THINGS:
                del self.things[self.random.randrange(MOST_THINGS // 2)]

    # ---- what Materials asks for

    def numbers(self) -> list[int]:
        """Descriptors that are the round's own, to be watched."""
        return [sock.fileno() for sock in self.sockets[-6:] if sock.fileno() >= 0]

    def ports(self) -> list[int]:
        found = []
        for thing in self.things:
            if isinstance(thing, hoop.Server) and not isinstance(thing, hoop.SocketServer):
                with contextlib.suppress(Exception):
                    found += [sock.getsockname()[1] for sock in thing.sockets if sock.family == socket.AF_INET]
            elif isinstance(thing, hoop.SocketServer | hoop.UdpSocket):
                with contextlib.suppress(Exception):
                    found.append((thing.address if isinstance(thing, hoop.SocketServer) else thing.local_address)[1])
        return [port for port in found if isinstance(port, int)]

    def socket(self) -> socket.socket:
        """A socket that does not block, of some kind, seldom one that is in use already."""
        if self.sockets and self.random.random() < 0.2:
            return self.random.choice(self.sockets)
        shape = self.random.randrange(5)
        if shape < 2:
            made = list(socket.socketpair())
        else:
            made = [socket.socket(type=socket.SOCK_STREAM if shape < 4 else socket.SOCK_DGRAM)]
            made[0].bind((LOCALHOST, 0))
            if shape == 3:
                made[0].listen()
        for sock in made:
            sock.setblocking(False)
        self.sockets += made
        return made[0]

    def pipe_end(self) -> Any:
        reading, writing = os.pipe()
        ends = [open(reading, "rb", 0), open(writing, "wb", 0)]
        self.files += ends
        return self.random.choice(ends)

    def file_object(self) -> Any:
        try:
            file = open(self.random.choice(["a", "b"]), "a+b")
        except OSError:
            return None
        file.write(b"some bytes\n")
        self.files.append(file)
        return file

    def protocol(self) -> Any:
        return self.protocols.make()

    def protocol_factory(self) -> Any:
        return self.protocols.make if self.random.random() < 0.9 else self.materials.odd()

    def thing(self, name: str) -> Any:
        """Something whose class is called so, or whatever there is."""
        fitting = [thing for thing in self.things if name in type(thing).__name__]
        return self.random.choice(fitting or self.things)

    def callback(self) -> Callable[..., Any]:
        return functools.partial(self.react, "callback")

    def awaitable(self) -> Any:
        async def coroutine() -> Any:
            await asyncio.sleep(self.random.choice([0, 0.001]))
            return self.react("coroutine")

        waiting = [thing for thing in self.things if inspect.isawaitable(thing)]
        return self.random.choice(waiting) if waiting and self.random.random() < 0.3 else coroutine()

    # ---- calls

    def react(self, where: str, *arguments: Any) -> Any:
        """The body of every callback: keep what came, make a few calls, answer or fail."""
        for argument in arguments:
            self.keep(argument)
        if self.depth < 3:
            self.depth += 1
            try:
                for _ in range(self.random.choice([0, 0, 1, 2])):
                    self.step(f"in {where}: ")
            finally:
                self.depth -= 1
        chance = self.random.random()
        if chance < 0.05:
            raise ValueError(f"failing on purpose in {where}")
        return True if chance < 0.2 else self.materials.odd() if chance < 0.25 else None

    def step(self, prefix: str = "") -> None:
        """One action. Only what no program should meet comes out of it."""
        action = self.random.choices([self.call, self.look, self.make, self.settle], [12, 2, 2, 3])[0]
        try:
            action(prefix)
        except SystemError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            self.say(f"{prefix}  -> {type(error).__name__}")

    def targets(self) -> Any:
        chance = self.random.random()
        if chance < 0.3:
            return self.random.choice(self.loops)
        return self.random.choice(MODULES) if chance < 0.5 else self.random.choice(self.things)

    def call(self, prefix: str) -> None:
        target = self.targets()
        names = [name for name in dir(target) if not name.startswith("_") and name not in NEVER]
        if isinstance(target, types.ModuleType):
            names = [name for name in target.__all__ if not inspect.isclass(getattr(target, name))]
        name = self.random.choice([*names, "__init__"] if is_of_hoop(target) and self.random.random() < 0.05 else names)
        self.say(f"{prefix}{type(target).__name__}.{name}")
        function = getattr(target, name)
        if callable(function):
            self.keep(self.called(function, prefix))

    def called(self, function: Any, prefix: str) -> Any:
        positional, named = self.arguments(function)
        self.say(
            f"{prefix}  ({', '.join([*map(kind_of, positional), *(f'{n}={kind_of(v)}' for n, v in named.items())])})"
        )
        return function(*positional, **named)

    def arguments(self, function: Any) -> tuple[list[Any], dict[str, Any]]:
        """Mostly as many as there should be."""
        positional: list[Any] = []
        named: dict[str, Any] = {}
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += [self.materials.odd() for _ in range(self.random.choice([0, 0, 1, 2]))]
            elif parameter.kind is parameter.VAR_KEYWORD:
                continue
            elif parameter.kind is parameter.KEYWORD_ONLY:
                if self.random.random() < 0.3:
                    named[parameter.name] = self.materials.for_parameter(parameter.name)
            elif parameter.default is parameter.empty or self.random.random() < 0.5:
                positional.append(self.materials.for_parameter(parameter.name))
            else:
                break
        if self.random.random() < 0.03 and positional:
            positional.pop()
        return positional, named

    def look(self, prefix: str) -> None:
        """What may be done to any object: read, compared, shown, set."""
        thing = self.random.choice(self.things)
        self.say(f"{prefix}looking at a {type(thing).__name__}")
        choice = self.random.randrange(6)
        if choice == 0:
            repr(thing)
        elif choice == 1:
            for name in dir(thing):
                if not name.startswith("__"):
                    getattr(thing, name, None)
        elif choice == 2:
            _ = thing == self.materials.odd(), hash(thing), bool(thing)
        elif choice == 3:
            handlers = [name for name in dir(thing) if name.startswith("on_")]
            if handlers:
                setattr(thing, self.random.choice(handlers), self.random.choice([None, self.callback()]))
        elif choice == 4:
            thing.__enter__()
        else:
            self.things.remove(thing)

    def make(self, prefix: str) -> None:
        """An object by its class: as it should be, without __init__, or a subclass that forgets it."""
        kind = self.random.choice(KINDS)
        self.say(f"{prefix}making a {kind.__name__}")
        choice = self.random.randrange(4)
        if choice == 0:
            self.keep(kind.__new__(kind))
        elif choice == 1:
            self.keep(type("Forgetful", (kind,), {"__init__": lambda self, *_: None})())
        elif choice == 2:
            thing = self.random.choice(self.things)
            self.keep(type(thing).__new__(type(thing)))
        else:
            maker = kind if self.random.random() < 0.6 else self.maker(self.random.choice(MAKERS))
            self.keep(self.called(maker, prefix))

    def maker(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(hoop, name)
        if name != "run":
            return function

        @functools.wraps(function)
        def run(main: Any, **named: Any) -> Any:
            return function(self.noting_its_loop(main) if inspect.isawaitable(main) else main, **named)

        return run

    async def noting_its_loop(self, main: Any) -> Any:
        """What waits for ever is stopped, also in a loop that the call itself makes."""
        self.loops.append(cast("hoop.Loop", asyncio.get_running_loop()))
        return await main

    def settle(self, prefix: str) -> None:
        """Something is done with a coroutine that a call returned."""
        waiting = [thing for thing in self.things if inspect.isawaitable(thing)]
        if not waiting:
            return
        thing = self.random.choice(waiting)
        self.things.remove(thing)
        choice = self.random.randrange(6)
        self.say(f"{prefix}coroutine of {getattr(thing, '__name__', '?')}, way {choice}")
        if choice < 3:
            task = self.random.choice(self.loops).create_task(thing)
            task.add_done_callback(lambda task: task.cancelled() or task.exception() or self.keep(task.result()))
            if self.random.random() < 0.2:
                task.cancel()
        elif choice == 3:
            thing.close()
        elif choice == 4:
            thing.throw(ValueError("thrown in"))
        else:
            thing.send(None)

    # ---- the end

    def stop_all(self) -> None:
        """From any thread: every loop that runs comes to an end of its run."""
        for loop in list(self.loops):
            with contextlib.suppress(Exception):
                hoop.Loop.call_soon_threadsafe(loop, functools.partial(hoop.Loop.stop, loop))

    def shut_down(self) -> None:
        for loop in self.loops:
            with contextlib.suppress(Exception):
                self.finish(loop)
            with contextlib.suppress(Exception):
                loop.close()
        for thing in self.things:
            if isinstance(thing, hoop.Pool | hoop.monitor.Monitor):
                with contextlib.suppress(Exception):
                    thing.close() if isinstance(thing, hoop.Pool) else thing.stop()
        for number in SIGNALS:  # the handler of a loop that another thread has closed keeps the pipe
            signal.signal(number, signal.SIG_DFL)
        for holder in (*self.sockets, *self.files):
            with contextlib.suppress(OSError, ValueError):
                holder.close()

    def finish(self, loop: hoop.Loop) -> None:
        """As asyncio.Runner does at its end, with tasks that may refuse to be cancelled."""
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.set_exception_handler(lambda _, context: None)
        for _ in range(3):
            loop.call_later(0.001, loop.stop)
            loop.run_forever()


def kind_of(value: Any) -> str:
    """A word for the log, without asking the value anything."""
    return repr(value)[:40] if type(value) in (int, float, str, bytes, bool, type(None)) else type(value).__name__


def opened() -> Iterator[str]:
    """The descriptors of this process, with what each is."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield f"{number} {os.readlink(f'/proc/self/fd/{number}')}"
