"""The measured process of `span_cost` and `exit_time`: makes observations in one way, and ends.

Run as ``python -m benchmarks.span_worker <way> <number of observations> <children of each root>``. Every way
does the same work with the same kind of small inputs and outputs. ``warmed``, when given last, makes and
sends some before, and prints the CPU seconds of the others until the server has them all.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.measuring import note_end

WARM_UP_COUNT = 100
# Langfuse's own queue holds 2,048 spans and drops what comes faster than it is sent.
_FLUSH_EVERY = 1_000


def _question() -> dict[str, object]:
    # Never the same twice, so that nothing is gained by remembering it.
    question = f"Which species has the longest bill in island {next(_numbers)}?"
    return {"question": question, "columns": ["species", "bill_length_mm"]}


def _answer() -> dict[str, object]:
    return {"answer": f"Gentoo, with 47.5 mm on average of {next(_numbers)}.", "row_count": 3}


_numbers = itertools.count()


class Way(NamedTuple):
    """How to make one trace with so many children, and how to send what was made."""

    make_trace: Callable[[int], object]
    flush: Callable[[], object]


def nothing() -> Way:
    """Do the loop only."""
    return Way(lambda _: None, _nothing_to_send)


def with_sdk(*, session_id: str | None = None) -> Way:
    """Observe with Langfuse's SDK, as its documentation suggests."""
    from langfuse import get_client, propagate_attributes

    client = get_client()

    def make_trace(child_count: int) -> None:
        with client.start_as_current_observation(name="question", as_type="span", input=_question()) as root:
            for _ in range(child_count):
                with client.start_as_current_observation(
                    name="step", as_type="tool", input=_question()
                ) as step:
                    step.update(output=_answer())
            root.update(output=_answer())

    def make_trace_in_session(child_count: int) -> None:
        with propagate_attributes(session_id=session_id, user_id="researcher"):
            make_trace(child_count)

    return Way(make_trace if session_id is None else make_trace_in_session, client.flush)


def with_sdk_in_session() -> Way:
    """Observe with Langfuse's SDK, which also puts a session and a user on every observation."""
    return with_sdk(session_id="session-1")


def with_research_kit() -> Way:
    """Observe with research-kit, bound and durable."""
    import research_kit as rk

    rk.bind("session-1", user_id="researcher")

    def make_trace(child_count: int) -> None:
        with rk.trace_span("question", input=_question()) as root:
            for _ in range(child_count):
                with rk.trace_span("step", as_type="tool", input=_question()) as step:
                    step.update(output=_answer())
            root.update(output=_answer())

    return Way(make_trace, rk.flush)


def while_off() -> Way:
    """Observe while ``LANGFUSE_TRACING_ENABLED`` is false."""
    import research_kit as rk

    rk.bind("session-1", user_id="researcher")
    return while_unbound()


def while_unbound() -> Way:
    """Observe while no session is bound."""
    import research_kit as rk

    question = _question()

    def make_trace(_: int) -> None:
        with rk.trace_span("step", input=question):
            pass

    return Way(make_trace, _nothing_to_send)


def with_empty_block() -> Way:
    """Enter and leave the least block that takes the same arguments."""
    question = _question()

    def make_trace(_: int) -> None:
        with _EmptyBlock("step", input=question):
            pass

    return Way(make_trace, _nothing_to_send)


class _EmptyBlock:
    __slots__ = ("name",)

    def __init__(self, name: str, **_: object) -> None:
        self.name = name

    def __enter__(self) -> _EmptyBlock:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Do nothing."""


def decorated_while_off() -> Way:
    """Call a decorated function while ``LANGFUSE_TRACING_ENABLED`` is false."""
    import research_kit as rk

    rk.bind("session-1", user_id="researcher")

    @rk.trace_span("step", as_type="tool")
    def make_trace(_: int) -> None:
        pass

    return Way(make_trace, _nothing_to_send)


WAYS: dict[str, Callable[[], Way]] = {
    "nothing": nothing,
    "sdk": with_sdk,
    "sdk-session": with_sdk_in_session,
    "research-kit": with_research_kit,
    "empty": with_empty_block,
    "off": while_off,
    "off-decorated": decorated_while_off,
    "unbound": while_unbound,
}
IN_CELL = "cell"


def _nothing_to_send() -> None:
    pass


def _make(way: Way, count: int, child_count: int) -> None:
    unsent_count = 0
    for _ in range(count // (child_count + 1)):
        way.make_trace(child_count)
        unsent_count += child_count + 1
        if unsent_count >= _FLUSH_EVERY:
            way.flush()
            unsent_count = 0


def _make_measured(way: Way, count: int, child_count: int) -> None:
    _make(way, WARM_UP_COUNT, child_count)
    way.flush()
    begin_cpu_s = time.process_time()
    _make(way, count, child_count)
    way.flush()
    sys.stdout.write(f"{time.process_time() - begin_cpu_s}\n")


def _run_in_cell(work: Callable[[Way], None]) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell: Any = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "research_kit")
    shell.user_ns["work"] = lambda: work(with_research_kit())
    shell.run_cell("work()").raise_error()


def main() -> None:
    """Do what the command line says."""
    name, count, child_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make = _make_measured if sys.argv[4:] == ["warmed"] else _make
    if name == IN_CELL:
        _run_in_cell(lambda way: make(way, count, child_count))
    else:
        make(WAYS[name](), count, child_count)
    note_end()


if __name__ == "__main__":
    main()
