"""Tasks and futures: create_task passes on what the caller gave and nothing else (trap 33)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from typing import Any

import pytest

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def answer(value: int = 42) -> int:
    await asyncio.sleep(0)
    return value


# create_task.


def test_create_task_makes_a_standard_task(loop):
    task = loop.create_task(answer())
    assert isinstance(task, asyncio.Task)
    assert task.get_loop() is loop and not task.done()
    assert loop.run_until_complete(task) == 42


def test_create_task_with_a_name(loop):
    named, number, plain, other = (
        loop.create_task(answer(), name="a name"),
        loop.create_task(answer(), name=123),
        loop.create_task(answer()),
        loop.create_task(answer(), name=None),
    )
    assert named.get_name() == "a name"
    assert number.get_name() == "123"
    assert plain.get_name().startswith("Task-") and other.get_name().startswith("Task-")
    assert plain.get_name() != other.get_name()
    loop.run_until_complete(asyncio.gather(named, number, plain, other))


def test_create_task_with_a_context(loop):
    async def read_and_set() -> str:
        before = variable.get()
        variable.set("set by the task")
        return before

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    task = loop.create_task(read_and_set(), context=context)
    assert loop.run_until_complete(task) == "given"
    assert context[variable] == "set by the task"
    if hasattr(asyncio.Task, "get_context"):
        assert task.get_context() is context
    assert variable.get() == "unset"


def test_create_task_copies_the_current_context(loop):
    async def read_and_set() -> str:
        before = variable.get()
        variable.set("set by the task")
        return before

    def schedule() -> asyncio.Task[str]:
        variable.set("of the caller")
        task = loop.create_task(read_and_set())
        variable.set("changed after")
        return task

    assert loop.run_until_complete(contextvars.copy_context().run(schedule)) == "of the caller"
    assert variable.get() == "unset"


@pytest.mark.parametrize("wrong", [None, 1, answer, "text"], ids=repr)
def test_create_task_refuses_what_is_not_a_coroutine(loop, wrong):
    with pytest.raises(TypeError):
        loop.create_task(wrong)


def test_create_task_takes_its_options_by_keyword_only(loop):
    coroutine = answer()
    with pytest.raises(TypeError):
        loop.create_task(coroutine, "name")
    with pytest.raises(TypeError):
        loop.create_task(coroutine, nonsense=1)
    with pytest.raises(TypeError):
        loop.create_task()
    coroutine.close()


def test_tasks_start_in_the_order_of_creation(loop):
    seen: list[tuple[str, int]] = []

    async def step(number: int) -> None:
        seen.append(("start", number))
        await asyncio.sleep(0)
        seen.append(("end", number))

    async def main() -> None:
        await asyncio.gather(*(step(number) for number in range(20)))

    loop.run_until_complete(main())
    assert seen == [("start", number) for number in range(20)] + [("end", number) for number in range(20)]


def test_tasks_that_yield_take_turns(loop):
    seen: list[int] = []

    async def worker(number: int) -> None:
        for _ in range(5):
            seen.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(worker(number) for number in range(3)))

    loop.run_until_complete(main())
    assert seen == [0, 1, 2] * 5


# Task factories (trap 33).


class Recorder:
    """A task factory that remembers what it was given."""

    def __init__(self) -> None:
        self.keywords: list[dict[str, Any]] = []
        self.loops: list[asyncio.AbstractEventLoop] = []

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **keywords: Any) -> asyncio.Task[Any]:
        self.loops.append(loop)
        self.keywords.append(keywords)
        return asyncio.Task(coroutine, loop=loop, **keywords)


def test_trap_33_a_factory_without_keywords_works(loop):
    made: list[asyncio.Task[Any]] = []

    def factory(factory_loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=factory_loop)
        made.append(task)
        return task

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(answer(1))
        two = asyncio.create_task(answer(2))
        three = asyncio.ensure_future(answer(3))
        return [one.result(), await two, await three, *await asyncio.gather(answer(4), answer(5))]

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert loop.run_until_complete(loop.create_task(answer(0))) == 0
    assert loop.run_until_complete(main()) == [1, 2, 3, 4, 5]
    assert len(made) == 7


def test_trap_33_a_factory_gets_only_what_the_caller_gave(loop):
    factory = Recorder()
    loop.set_task_factory(factory)
    context = contextvars.copy_context()
    tasks = [
        loop.create_task(answer()),
        loop.create_task(answer(), name="a name"),
        loop.create_task(answer(), context=context),
        loop.create_task(answer(), name="both", context=context),
    ]
    given = [set(), {"name"}, {"context"}, {"name", "context"}]
    for keywords, allowed in zip(factory.keywords, given, strict=True):
        # Whether the name goes through the factory or is set afterwards differs between Python versions.
        assert {key for key, value in keywords.items() if value is not None} <= allowed
    assert factory.keywords[0] == {}
    assert factory.keywords[2]["context"] is context and factory.keywords[3]["context"] is context
    assert factory.loops == [loop] * 4
    assert tasks[1].get_name() == "a name" and tasks[3].get_name() == "both"
    loop.run_until_complete(asyncio.gather(*tasks))


def test_a_factory_may_return_its_own_kind_of_task(loop):
    class OwnTask(asyncio.Task):
        """Only its type matters."""

    def factory(factory_loop: asyncio.AbstractEventLoop, coroutine: Any, **keywords: Any) -> OwnTask:
        return OwnTask(coroutine, loop=factory_loop, **keywords)

    loop.set_task_factory(factory)

    async def main() -> bool:
        return type(asyncio.current_task()) is OwnTask and type(asyncio.create_task(answer())) is OwnTask

    assert loop.run_until_complete(main()) is True
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))


def test_set_task_factory_validates(loop):
    assert loop.get_task_factory() is None
    for wrong in (1, "text", object()):
        with pytest.raises(TypeError, match="task factory must be a callable or None"):
            loop.set_task_factory(wrong)
    assert loop.get_task_factory() is None
    loop.set_task_factory(Recorder())
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    assert type(loop.create_task(answer())) is asyncio.Task
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))


def test_a_factory_that_raises_reaches_the_caller(loop):
    def factory(factory_loop: object, coroutine: Any, **keywords: Any) -> None:
        raise LookupError

    loop.set_task_factory(factory)
    coroutine = answer()
    with pytest.raises(LookupError):
        loop.create_task(coroutine)
    coroutine.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
class TestEagerTasks:
    def test_an_eager_task_starts_inside_create_task(self, loop):
        seen: list[str] = []

        async def main() -> None:
            async def child() -> str:
                seen.append("child starts")
                assert asyncio.current_task() is not parent
                await asyncio.sleep(0)
                seen.append("child ends")
                return "done"

            parent = asyncio.current_task()
            seen.append("before")
            task = asyncio.create_task(child(), name="eager")
            seen.append("after")
            assert asyncio.current_task() is parent
            assert task.get_name() == "eager"
            assert await task == "done"

        loop.set_task_factory(asyncio.eager_task_factory)
        loop.run_until_complete(main())
        assert seen == ["before", "child starts", "after", "child ends"]

    def test_an_eager_task_that_never_waits_is_done_at_once(self, loop):
        async def immediate() -> int:
            return 5

        async def main() -> None:
            task = asyncio.create_task(immediate())
            assert task.done() and task.result() == 5
            assert task not in asyncio.all_tasks()

        loop.set_task_factory(asyncio.eager_task_factory)
        loop.run_until_complete(main())

    def test_eager_tasks_in_groups_and_gather(self, loop):
        async def main() -> list[int]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(number)) for number in range(5)]
            return [task.result() for task in tasks] + await asyncio.gather(*(answer(number) for number in range(3)))

        loop.set_task_factory(asyncio.eager_task_factory)
        assert loop.run_until_complete(main()) == [0, 1, 2, 3, 4, 0, 1, 2]

    def test_eager_tasks_with_a_context(self, loop):
        async def read() -> str:
            return variable.get()

        async def main() -> None:
            context = contextvars.copy_context()
            context.run(variable.set, "given")
            assert await loop.create_task(read(), context=context) == "given"
            assert variable.get() == "unset"

        loop.set_task_factory(asyncio.eager_task_factory)
        loop.run_until_complete(main())

    def test_a_custom_eager_factory(self, loop):
        made: list[asyncio.Task[Any]] = []

        class OwnTask(asyncio.Task):
            def __init__(self, *args: Any, **keywords: Any) -> None:
                super().__init__(*args, **keywords)
                made.append(self)

        loop.set_task_factory(asyncio.create_eager_task_factory(OwnTask))
        assert loop.run_until_complete(answer()) == 42
        assert len(made) == 1

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start= came with Python 3.14")
    def test_eager_start_is_passed_on(self, loop):
        async def immediate() -> int:
            return 5

        async def main() -> None:
            assert loop.create_task(immediate(), eager_start=True).done()
            task = loop.create_task(immediate(), eager_start=False)
            assert not task.done()
            await task
            factory = Recorder()
            loop.set_task_factory(factory)
            await loop.create_task(immediate(), eager_start=True)
            assert factory.keywords[0]["eager_start"] is True

        loop.run_until_complete(main())


# Futures.


def test_create_future_makes_a_standard_future(loop):
    future = loop.create_future()
    assert isinstance(future, asyncio.Future) and asyncio.isfuture(future)
    assert future.get_loop() is loop and not future.done()
    future.cancel()


def test_done_callbacks_run_by_call_soon_in_order(loop):
    seen: list[str] = []
    future = loop.create_future()
    for name in "abc":
        future.add_done_callback(lambda done, name=name: seen.append(name))
    future.set_result(None)
    loop.call_soon(seen.append, "queued after set_result")
    assert seen == []
    loop.run_until_complete(future)
    assert seen == ["a", "b", "c", "queued after set_result"]


def test_an_exception_in_a_done_callback_is_reported(loop):
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    future = loop.create_future()
    future.add_done_callback(lambda done: 1 / 0)
    future.set_result(None)
    loop.run_until_complete(future)
    [context] = contexts
    assert set(context) == {"message", "exception", "handle"}
    assert context["message"].startswith("Exception in callback ")


# Introspection.


def test_all_tasks_and_current_task(loop):
    async def main() -> None:
        current = asyncio.current_task()
        other = asyncio.create_task(answer())
        assert asyncio.all_tasks() == {current, other}
        assert asyncio.current_task(loop) is current
        await other
        assert asyncio.all_tasks() == {current}

    loop.run_until_complete(main())
    task = loop.create_task(answer())
    assert asyncio.all_tasks(loop) == {task}
    assert asyncio.current_task(loop) is None
    loop.run_until_complete(task)
    assert asyncio.all_tasks(loop) == set()


def test_callbacks_run_outside_of_any_task(loop):
    seen: list[object] = []

    async def main() -> None:
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        loop.call_later(0, lambda: seen.append(asyncio.current_task()))
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    assert seen == [None, None]


def test_tasks_of_two_loops_are_kept_apart(loop, loop_factory):
    other = loop_factory()
    try:
        one, two = loop.create_task(answer(1)), other.create_task(answer(2))
        assert asyncio.all_tasks(loop) == {one}
        assert asyncio.all_tasks(other) == {two}
        assert loop.run_until_complete(one) == 1
        assert other.run_until_complete(two) == 2
    finally:
        other.close()


# What asyncio reports through the loop.


def test_an_exception_nobody_retrieved_is_reported(loop):
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))

    async def fails() -> None:
        raise LookupError("on purpose")

    task = loop.create_task(fails())
    loop.run_until_complete(asyncio.wait([task]))
    del task
    gc.collect()
    [context] = contexts
    assert context["message"] == "Task exception was never retrieved"
    assert type(context["exception"]) is LookupError
    assert isinstance(context["future"], asyncio.Task)


def test_a_pending_task_that_is_destroyed_is_reported(loop):
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))

    async def waits() -> None:
        await loop.create_future()

    task = loop.create_task(waits())
    loop.run_until_complete(asyncio.sleep(0))
    del task
    gc.collect()
    assert [context["message"] for context in contexts] == ["Task was destroyed but it is pending!"]
    assert isinstance(contexts[0]["task"], asyncio.Task)


# asyncio's own primitives on top.


def test_cancelling_a_task(loop):
    seen: list[str] = []

    async def waits() -> None:
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel("reason")
        with pytest.raises(asyncio.CancelledError, match="reason"):
            await task
        assert task.cancelled()

    loop.run_until_complete(main())
    assert seen == ["cancelled"]


def test_a_task_group_cancels_siblings(loop):
    cancelled: list[int] = []

    async def waits(number: int) -> None:
        try:
            await loop.create_future()
        finally:
            cancelled.append(number)

    async def fails() -> None:
        raise LookupError

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(waits(number))
            group.create_task(fails())

    with pytest.raises(ExceptionGroup) as caught:
        loop.run_until_complete(main())
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert sorted(cancelled) == [0, 1, 2, 3, 4]


def test_a_bounded_queue_with_producers_and_consumers(loop):
    async def main() -> int:
        queue: asyncio.Queue[int | None] = asyncio.Queue(maxsize=3)

        async def produce() -> None:
            for number in range(200):
                await queue.put(number)
            await queue.put(None)

        async def consume() -> int:
            total = 0
            while (number := await queue.get()) is not None:
                total += number
            return total

        return (await asyncio.gather(produce(), consume()))[1]

    assert loop.run_until_complete(main()) == 19_900


def test_locks_events_conditions_semaphores_and_barriers(loop):
    async def main() -> list[str]:
        seen: list[str] = []
        lock, event, condition = asyncio.Lock(), asyncio.Event(), asyncio.Condition()
        semaphore, barrier = asyncio.Semaphore(2), asyncio.Barrier(3)

        async def worker(number: int) -> None:
            await event.wait()
            async with semaphore, lock:
                seen.append(f"locked {number}")
                await asyncio.sleep(0)
            await barrier.wait()
            async with condition:
                seen.append("passed")
                condition.notify_all()

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(worker(number))
            event.set()
            async with condition:
                await condition.wait_for(lambda: seen.count("passed") == 3)
        return seen

    assert loop.run_until_complete(main()) == ["locked 0", "locked 1", "locked 2"] + ["passed"] * 3


def test_ten_thousand_tasks(loop):
    async def main() -> int:
        return sum(await asyncio.gather(*(answer(number) for number in range(10_000))))

    assert loop.run_until_complete(main()) == 49_995_000


def test_a_long_chain_of_waiting_tasks(loop):
    async def main() -> int:
        first = future = loop.create_future()

        async def wait(future: asyncio.Future[int]) -> int:
            return await future + 1

        for _ in range(2000):
            future = asyncio.ensure_future(wait(future))
        loop.call_soon(first.set_result, 0)
        return await future

    assert loop.run_until_complete(main()) == 2000
