"""CPU of one observation: research-kit bound and durable, Langfuse's SDK, tracing off, nothing.

Each way runs in a process of its own, which first makes and sends some observations, so that imports and
the start do not count; then the CPU time of all its threads counts until everything is delivered. The server
takes everything and runs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import sub, truediv
from typing import NamedTuple

from benchmarks.measuring import (
    KEYS,
    Options,
    ProcessRun,
    Row,
    median,
    null_server,
    run_interleaved,
    run_python,
    take_span_count,
)
from benchmarks.span_worker import IN_CELL, WARM_UP_COUNT
from research_kit.store import ensure_running, stop_store

_MANY_OFF = 50_000
_GOAL_RATIO = 1.3
_GOAL_OFF_US = 1.0
_OFF_ENVIRONMENT = {**KEYS, "LANGFUSE_TRACING_ENABLED": "false"}


class Way(NamedTuple):
    """A way to observe, and what it observes.

    Attributes:
        worker: Its name in `span_worker`.
        child_count: Observations inside each root.
        is_local: Whether it sends to the embedded store instead of the null server.
    """

    worker: str
    child_count: int = 1
    is_local: bool = False


_OFF = tuple(Way(worker, 0) for worker in ("nothing", "empty", "off", "off-decorated", "unbound"))
_TRACED = (
    *(Way(worker, count) for count in (1, 9) for worker in ("sdk", "sdk-session", "research-kit", "cell")),
    Way("research-kit", is_local=True),
)
_NAMES = {
    "sdk": "Langfuse SDK",
    "sdk-session": "Langfuse SDK, session propagated",
    "research-kit": "research-kit, bound and durable",
    "cell": "research-kit, in a cell",
    "empty": "an empty block",
    "off": "trace_span, tracing disabled",
    "off-decorated": "@trace_span, tracing disabled",
    "unbound": "trace_span, nothing bound",
}


# Microseconds of CPU per observation, one figure per round.
_Costs = Mapping[Way, list[float]]


def measure(options: Options) -> list[Row]:
    """Return the cost of an observation in every way."""
    count = 2_000 if options.is_quick else 5_000
    counts = {way: _MANY_OFF if way in _OFF else count for way in (*_OFF, *_TRACED)}
    with null_server() as base_url, _store(options):
        runs = run_interleaved(
            counts,
            options.repeat_count,
            lambda way: _run(way, counts[way], options=options, base_url=base_url),
        )
    costs = {way: [run.noted_s / counts[way] * 1e6 for run in runs[way]] for way in runs}
    return [*_off_rows(costs), *_traced_rows(costs), *_start_rows(runs)]


def _off_rows(costs: _Costs) -> Iterator[Row]:
    nothing, empty, *ways = _OFF
    empty_us = median(map(sub, costs[empty], costs[nothing]))
    yield Row(name=_NAMES[empty.worker], value=empty_us, unit="us")
    for way in ways:
        added_us = max(median(map(sub, costs[way], costs[nothing])), 0.0)
        yield Row(
            name=_NAMES[way.worker],
            value=added_us,
            unit="us",
            against=_NAMES[empty.worker],
            ratio=added_us / empty_us,
            goal=_GOAL_OFF_US,
        )


def _traced_rows(costs: _Costs) -> Iterator[Row]:
    for way in _TRACED:
        plain_us = costs[Way("sdk", way.child_count)]
        shape = "1 child" if way.child_count == 1 else f"{way.child_count} children"
        is_sdk = way.worker.startswith("sdk")
        yield Row(
            name=f"{_NAMES[way.worker]}{', to the store' if way.is_local else ''} ({shape})",
            value=median(costs[way]),
            unit="us",
            against="" if way.worker == "sdk" else f"Langfuse SDK ({shape})",
            # Round by round, because the machine is not equally fast all the time.
            ratio=None if way.worker == "sdk" else median(map(truediv, costs[way], plain_us)),
            goal=None if is_sdk else _GOAL_RATIO,
            goal_of="ratio",
        )


def _start_rows(runs: Mapping[Way, list[ProcessRun]]) -> Iterator[Row]:
    """Yield what the rest of such a process costs: imports, start, some observations, end."""
    nothing_s, sdk_s = (_rest_s(runs[way]) for way in (_OFF[0], Way("sdk")))
    for worker in ("sdk", "research-kit"):
        rest_s = _rest_s(runs[Way(worker)]) - nothing_s
        yield Row(
            name=f"{_NAMES[worker]}: start, {WARM_UP_COUNT} observations, end",
            value=rest_s,
            unit="CPU s",
            against="" if worker == "sdk" else "Langfuse SDK",
            ratio=None if worker == "sdk" else rest_s / (sdk_s - nothing_s),
        )


def _rest_s(runs: list[ProcessRun]) -> float:
    return median(run.cpu_s - run.noted_s for run in runs)


def _run(way: Way, count: int, *, options: Options, base_url: str) -> ProcessRun:
    settings = {**KEYS, "LANGFUSE_BASE_URL": base_url}
    if way.is_local:
        settings = {}
    elif way in _OFF:
        settings = _OFF_ENVIRONMENT
    run = run_python(
        ["-m", "benchmarks.span_worker", way.worker, str(count), str(way.child_count), "warmed"],
        options.environment("spans", **settings),
        options.folder,
    )
    if way in _TRACED and not way.is_local:
        _check_delivered(way, count, take_span_count(base_url))
    return run


def _check_delivered(way: Way, count: int, delivered_count: int) -> None:
    # A cell adds its own root.
    expected_count = WARM_UP_COUNT + count + (way.worker == IN_CELL)
    if delivered_count != expected_count:
        raise RuntimeError(f"{way} made {expected_count} observations and delivered {delivered_count}")


@contextmanager
def _store(options: Options) -> Iterator[None]:
    environment = options.environment("spans")
    data_dir = options.folder / "spans" / "data"
    assert environment["RESEARCH_KIT_DATA_DIR"] == str(data_dir)
    ensure_running(data_dir)
    try:
        yield
    finally:
        stop_store(data_dir)
