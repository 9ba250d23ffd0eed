"""`trace_span` as a block and as a decorator of every kind of function."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from langfuse import LangfuseSpan

from research_kit import session
from research_kit.errors import ConfigError
from research_kit.session import trace_span

KINDS = {
    "function": "@rk.trace_span('call')\ndef go():\n    with rk.trace_span('step'): pass\ngo(); go()",
    "async function": """
        import asyncio
        @rk.trace_span('call')
        async def go():
            await asyncio.sleep(0)
            with rk.trace_span('step'): pass
        await asyncio.gather(go(), go())
        """,
    "generator": """
        @rk.trace_span('call')
        def go():
            for n in range(2):
                with rk.trace_span('step'): pass
                yield n
        for n in go():
            with rk.trace_span('consumer'): pass
        """,
    "async generator": """
        @rk.trace_span('call')
        async def go():
            for n in range(2):
                with rk.trace_span('step'): pass
                yield n
        async for n in go():
            with rk.trace_span('consumer'): pass
        """,
}


@pytest.mark.parametrize("kind", KINDS)
def test_decorated_call_lasts_until_it_is_over(kind: str, shared_kernel: Any, shared_store: Any) -> None:
    """What a call does is inside its observation; what the consumer of a generator does is not."""
    session_id = shared_kernel.run("rk.new_session(); print(rk.current_session_id())").strip()
    shared_kernel.run(textwrap.dedent(KINDS[kind]))
    shared_kernel.run("rk.flush()")
    rows = shared_store.wait(6 if "generator" in kind else 5, sessionId=session_id)
    calls = {row["id"]: row for row in rows if row["name"] == "call"}
    [root] = [row for row in rows if row["name"].startswith("cell [")]
    steps = [row for row in rows if row["name"] == "step"]
    assert len(calls) == (1 if "generator" in kind else 2)
    assert {row["parentObservationId"] for row in steps} == set(calls)
    assert all(row["endTime"] <= calls[row["parentObservationId"]]["endTime"] for row in steps)
    consumers = [row["parentObservationId"] for row in rows if row["name"] == "consumer"]
    assert consumers == [root["id"]] * (2 if "generator" in kind else 0)


ENDINGS = {
    "closed early": ("next(steps); steps.close()", "DEFAULT", ""),
    "failing": ("next(steps); steps.throw(ValueError('no'))", "ERROR", "no"),
    "cancelled": (
        "import asyncio\nnext(steps); steps.throw(asyncio.CancelledError())",
        "WARNING",
        "cancelled",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_generator_ends_its_observation(ending: str, shared_kernel: Any, shared_store: Any) -> None:
    """A generator that is closed, fails or is cancelled ends its observation accordingly."""
    code, level, message = ENDINGS[ending]
    session_id = shared_kernel.run("rk.new_session(); print(rk.current_session_id())").strip()
    generator = "@rk.trace_span('call')\ndef go():\n    yield 1\n    yield 2\nsteps = go()\n"
    shared_kernel.client.execute_interactive(generator + code, timeout=60, output_hook=lambda _: None)
    shared_kernel.run("rk.flush()")
    [row] = [row for row in shared_store.wait(2, sessionId=session_id) if row["name"] == "call"]
    assert row["level"] == level
    assert message in row["statusMessage"]


def test_disabled_function_behaves_as_without_us() -> None:
    """While nothing is traced each kind of function gives and takes the same values, sent ones too."""
    session.unbind()

    @trace_span("call")
    def echo() -> Any:
        """Say it again."""
        got = yield 1
        try:
            yield got
        except ValueError:
            yield "caught"
        return "end"

    steps = echo()
    assert (next(steps), steps.send("sent"), steps.throw(ValueError())) == (1, "sent", "caught")
    with pytest.raises(StopIteration, match="end"):
        next(steps)
    assert echo.__doc__ == "Say it again."
    assert inspect.isgeneratorfunction(echo)


async def test_disabled_async_functions_keep_their_kind() -> None:
    """Async functions and async generators stay what they are under the decorator."""
    session.unbind()

    @trace_span("call")
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    @trace_span("call")
    async def count() -> Any:
        yield 1
        yield 2

    assert inspect.iscoroutinefunction(answer)
    assert inspect.isasyncgenfunction(count)
    assert await answer() == 42
    assert [n async for n in count()] == [1, 2]


def test_block_can_be_entered_again_inside_itself() -> None:
    """One block object nests, and errors inside it go on."""
    session.unbind()
    block = trace_span("block")
    with block as outer, block as inner:
        assert outer.update(output=1) is outer
        assert inner.trace_id is None
    with pytest.raises(ValueError, match="inside"), block, block:
        raise ValueError("inside")


async def test_block_is_an_async_block_too() -> None:
    """``async with`` is the same block."""
    session.unbind()
    async with trace_span("block") as outer:
        assert outer.update(output=1) is outer


def test_stand_in_takes_every_call_of_an_observation() -> None:
    """Code that uses an observation goes on when nothing is traced."""
    session.unbind()
    with trace_span("block") as stand_in:
        missing = [name for name in dir(LangfuseSpan) if not name.startswith("_")]
        assert [name for name in missing if not hasattr(stand_in, name)] == []
        assert stand_in.score(name="q", value=1) is None
        with stand_in.start_as_current_observation(name="inner") as inner:
            inner.update(output=1).end()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "work", "as_type": "foo"}, r"'work' has the type 'foo'.*agent, chain, .*tool"),
        ({"name": ""}, r"name of the observation is ''\. Give it a text"),
        ({"name": 3}, r"name of the observation is 3\. Give it a text"),
    ],
    ids=["type", "empty", "number"],
)
def test_mistakes_are_told_whether_something_is_bound_or_not(arguments: dict[str, Any], message: str) -> None:
    """A type or name that Langfuse does not take is an error at once."""
    with pytest.raises(ConfigError, match=message):
        trace_span(**arguments)


def test_disabled_block_imports_nothing() -> None:
    """A block without a session loads neither langfuse nor OpenTelemetry."""
    code = (
        "import sys, research_kit as rk\n"
        "with rk.trace_span('work') as observation: observation.update(output=1)\n"
        "sys.exit(any(name in sys.modules for name in ('langfuse', 'opentelemetry.sdk')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
