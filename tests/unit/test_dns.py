"""hoop.dns: typed answers, questions under way that are shared, and the cache."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any

import hoop
import pytest
from hoop import dns

NOT_THERE = socket.gaierror(socket.EAI_NONAME, "no such name")
STREAM = socket.SOCK_STREAM


class Servers:
    """Stands in the place of loop.getaddrinfo: each question waits until it is answered here."""

    def __init__(self) -> None:
        self.questions: list[tuple[Any, ...]] = []
        self.answers: list[asyncio.Future[Any]] = []

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.questions.append((host, port, options))
        self.answers.append(answer)
        return await answer

    def answer(self, number: int, last_byte: int = 1) -> None:
        self.answers[number].set_result([(socket.AF_INET, STREAM, 6, "", (f"192.0.2.{last_byte}", 80))])


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


def run_with(main: Callable[[Any, Servers], Any], clock: Clock | None = None) -> Any:
    """main(loop, servers) on a loop of its own."""
    with asyncio.Runner(loop_factory=lambda: hoop.Loop(clock=clock)) as runner:
        loop: Any = runner.get_loop()
        servers = Servers()
        loop.getaddrinfo = servers.getaddrinfo
        return runner.run(main(loop, servers))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Answers.


def test_answers_are_typed_and_equal_those_of_the_socket_module() -> None:
    found = hoop.run(dns.lookup("127.0.0.1", 80, type=STREAM))
    assert found == socket.getaddrinfo("127.0.0.1", 80, type=STREAM)
    (address,) = found
    assert type(address) is dns.Address
    assert (address.host, address.port) == ("127.0.0.1", 80)
    assert address.family is socket.AF_INET
    assert address.type is STREAM
    assert hoop.run(dns.lookup("localhost", "http")) == socket.getaddrinfo("localhost", "http")


def test_reverse() -> None:
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    name = hoop.run(dns.reverse(("::1", 80, 0, 0), numeric))
    assert name == dns.Name("::1", "80")
    assert (name.host, name.service) == ("::1", "80")


@pytest.mark.parametrize(
    ("host", "port", "error"),
    [([], 80, TypeError), ("127.0.0.1", [], OSError), (1.5, 80, TypeError), ("a..b", 80, UnicodeError)],
    ids=repr,
)
def test_wrong_arguments_are_refused_as_by_the_socket_module(host: Any, port: Any, error: type[Exception]) -> None:
    for resolver in (dns.Resolver(), dns.Resolver(ttl=10, negative_ttl=10)):
        with pytest.raises(error):
            hoop.run(resolver.lookup(host, port))
        assert resolver.stats().size == 0


def test_another_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"hoop\.dns needs a running hoop loop"):
        asyncio.run(dns.lookup("127.0.0.1"))


@pytest.mark.parametrize("options", [{"ttl": -1}, {"negative_ttl": -0.5}, {"ttl": float("nan")}, {"size": 0}], ids=repr)
def test_wrong_settings_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        dns.Resolver(**options)


# Sharing.


def test_identical_questions_under_way_are_one() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        tasks = [asyncio.create_task(dns.lookup("a.example", 80)) for _ in range(10)]
        others = [
            asyncio.create_task(dns.lookup("a.example", 81)),
            asyncio.create_task(dns.lookup("a.example", 80, type=STREAM)),
            asyncio.create_task(dns.lookup("a.example", "80")),
            asyncio.create_task(dns.lookup(b"a.example", 80)),
        ]
        await turns()
        assert len(servers.questions) == 1 + len(others)
        for number in range(len(servers.questions)):
            servers.answer(number, number)
        answers = await asyncio.gather(*tasks)
        assert all(answer == answers[0] for answer in answers)
        assert len({id(answer) for answer in answers}) == 10  # each may change its list
        assert [found[0].host for found in await asyncio.gather(*others)] == [f"192.0.2.{n}" for n in range(1, 5)]
        again = asyncio.create_task(dns.lookup("a.example", 80))
        await turns()
        assert len(servers.questions) == 6  # nothing is kept
        servers.answer(5)
        await again

    run_with(main)


def test_a_port_of_true_is_not_a_port_of_one() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        tasks = [asyncio.create_task(dns.lookup("a.example", port)) for port in (1, True)]
        await turns()
        assert len(servers.questions) == 2
        for task in tasks:
            task.cancel()

    run_with(main)


def test_whoever_stops_waiting_takes_nothing_from_the_others() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        tasks = [asyncio.create_task(dns.lookup("a.example", 80)) for _ in range(3)]
        await turns()
        tasks[0].cancel()
        tasks[2].cancel()
        await turns()
        assert [task.done() for task in tasks] == [True, False, True]
        assert not servers.answers[0].done()
        servers.answer(0)
        assert (await tasks[1])[0].host == "192.0.2.1"
        assert tasks[0].cancelled() and tasks[2].cancelled()

    run_with(main)


def test_when_nobody_waits_any_more_the_question_is_cancelled_and_asked_anew() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        tasks = [asyncio.create_task(dns.lookup("a.example", 80)) for _ in range(2)]
        await turns()
        for task in tasks:
            task.cancel()
        late = asyncio.create_task(dns.lookup("a.example", 80))
        await turns()
        assert servers.answers[0].cancelled()
        assert len(servers.questions) == 2
        servers.answer(1, 9)
        assert (await late)[0].host == "192.0.2.9"

    run_with(main)


def test_each_waiter_gets_an_exception_of_its_own() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        tasks = [asyncio.create_task(dns.lookup("a.example", 80)) for _ in range(3)]
        await turns()
        servers.answers[0].set_exception(NOT_THERE)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(error), error.args) for error in errors] == [(socket.gaierror, NOT_THERE.args)] * 3
        assert len({id(error) for error in errors}) == 3

    run_with(main)


def test_a_loop_that_ends_with_a_question_under_way_leaves_nothing_to_the_next() -> None:
    resolver = dns.Resolver()

    async def abandon(loop: Any, servers: Servers) -> asyncio.Task[Any]:
        task = asyncio.create_task(resolver.lookup("a.example", 80))
        await turns()
        return task

    async def ask(loop: Any, servers: Servers) -> Any:
        task = asyncio.create_task(resolver.lookup("a.example", 80))
        await turns()
        servers.answer(0)
        return await task

    assert run_with(abandon).cancelled()
    assert run_with(ask)[0].host == "192.0.2.1"


# The cache.


def test_whoever_waits_is_collected_after_its_loop_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to cancel, and nobody is told of a problem."""
    problems: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", problems.append)
    loop = hoop.Loop()
    loop.set_exception_handler(lambda loop, context: None)  # that a pending task was destroyed is known
    loop.getaddrinfo = Servers().getaddrinfo  # type: ignore[method-assign]

    async def main() -> None:
        asyncio.ensure_future(dns.lookup("somewhere.invalid"))  # noqa: RUF006  (what becomes of it is the question)
        await turns()

    loop.run_until_complete(main())
    loop.close()
    del loop
    gc.collect()
    assert problems == []


def test_nothing_is_kept_unless_asked_for() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        resolver = dns.Resolver()
        for number in range(2):
            task = asyncio.create_task(resolver.lookup("a.example", 80))
            await turns()
            servers.answer(number)
            await task
        assert resolver.stats() == dns.ResolverStats(hits=0, shared=0, asked=2, size=0)

    run_with(main)


async def ask_and_answer(resolver: dns.Resolver, servers: Servers, host: str, last_byte: int) -> str:
    """Ask; if that reaches the servers, they answer. The address told."""
    asked = len(servers.questions)
    task = asyncio.create_task(resolver.lookup(host, 80))
    await turns()
    if len(servers.questions) > asked:
        servers.answer(asked, last_byte)
    return (await task)[0].host


def test_an_answer_is_kept_until_its_time_is_over() -> None:
    clock = Clock()

    async def main(loop: Any, servers: Servers) -> None:
        resolver = dns.Resolver(ttl=30)
        assert await ask_and_answer(resolver, servers, "a.example", 1) == "192.0.2.1"
        clock.now_ns += 30 * 10**9 - 1
        assert await ask_and_answer(resolver, servers, "a.example", 2) == "192.0.2.1"
        clock.now_ns += 1
        assert await ask_and_answer(resolver, servers, "a.example", 3) == "192.0.2.3"
        assert resolver.stats() == dns.ResolverStats(hits=1, shared=0, asked=2, size=1)
        resolver.clear()
        assert await ask_and_answer(resolver, servers, "a.example", 4) == "192.0.2.4"

    run_with(main, clock)


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        (socket.gaierror(socket.EAI_NONAME, "none"), True),
        (socket.gaierror(socket.EAI_AGAIN, "later"), False),
        (socket.gaierror(socket.EAI_FAIL, "failed"), False),
        (OSError(24, "too many open files"), False),
        (MemoryError(), False),
    ],
    ids=repr,
)
def test_only_a_lasting_refusal_is_kept(error: Exception, is_kept: bool) -> None:
    clock = Clock()

    async def main(loop: Any, servers: Servers) -> None:
        resolver = dns.Resolver(ttl=30, negative_ttl=5)
        task = asyncio.create_task(resolver.lookup("a.example", 80))
        await turns()
        servers.answers[0].set_exception(error)
        with pytest.raises(type(error)):
            await task
        assert resolver.stats().size == is_kept
        if is_kept:
            for _ in range(2):
                with pytest.raises(socket.gaierror) as told:
                    await resolver.lookup("a.example", 80)
                assert told.value is not error
                assert told.value.args == error.args
            clock.now_ns += 5 * 10**9
        assert await ask_and_answer(resolver, servers, "a.example", 2) == "192.0.2.2"

    run_with(main, clock)


def test_the_least_used_answer_goes_first() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        resolver = dns.Resolver(ttl=1000, size=2)
        await ask_and_answer(resolver, servers, "a.example", 1)
        await ask_and_answer(resolver, servers, "b.example", 2)
        await ask_and_answer(resolver, servers, "a.example", 3)  # used again
        await ask_and_answer(resolver, servers, "c.example", 4)
        assert resolver.stats().size == 2
        assert await ask_and_answer(resolver, servers, "a.example", 5) == "192.0.2.1"
        assert await ask_and_answer(resolver, servers, "b.example", 6) == "192.0.2.6"

    run_with(main)


def test_what_a_caller_does_to_its_answer_stays_with_it() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        resolver = dns.Resolver(ttl=1000)
        await ask_and_answer(resolver, servers, "a.example", 1)
        (await resolver.lookup("a.example", 80)).clear()
        (await resolver.getaddrinfo("a.example", 80)).clear()
        assert await ask_and_answer(resolver, servers, "a.example", 2) == "192.0.2.1"

    run_with(main)


def test_numeric_hosts_are_neither_asked_about_nor_kept() -> None:
    async def main(loop: Any, servers: Servers) -> None:
        resolver = dns.Resolver(ttl=1000)
        assert (await resolver.lookup("192.0.2.55", 80, type=STREAM))[0].host == "192.0.2.55"
        assert servers.questions == []
        assert resolver.stats() == dns.ResolverStats(0, 0, 0, 0)

    run_with(main)


def test_a_resolver_can_stand_in_the_place_of_the_loops_own() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        resolver = dns.Resolver(ttl=1000)
        loop.getaddrinfo = resolver.getaddrinfo
        server = await loop.create_server(asyncio.Protocol, "localhost", 0, family=socket.AF_INET)
        port = server.sockets[0].getsockname()[1]
        for _ in range(3):
            transport, _ = await loop.create_connection(asyncio.Protocol, "localhost", port, family=socket.AF_INET)
            transport.close()
        assert resolver.stats().asked == 2  # the server's and the first connection's
        assert resolver.stats().hits == 2
        server.close()
        await server.wait_closed()

    hoop.run(main())
