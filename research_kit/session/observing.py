"""`trace_span`: observing a block or a function of the researcher's own.

Owns the block and the four kinds of functions; the observation itself is Langfuse's. Invariant: while nothing
is traced nothing is imported, and what is observed behaves as without it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, TypeVar

from research_kit.errors import ConfigError
from research_kit.session import kernel

__all__ = ["NullObservation", "trace_span"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_TYPES = frozenset(
    {"agent", "chain", "embedding", "evaluator", "generation", "guardrail", "retriever", "span", "tool"}
)
_CANCELLATIONS = (asyncio.CancelledError, KeyboardInterrupt)


class NullObservation:
    """Stands in for an observation while nothing is traced; takes every call of one and does nothing."""

    id: str | None = None
    trace_id: str | None = None

    def update(self, **_: Any) -> NullObservation:
        """Do nothing."""
        return self

    create_event = end = set_trace_as_public = update
    start_observation = start_as_current_observation = update

    def score(self, **_: Any) -> None:
        """Do nothing."""

    score_trace = score

    def __enter__(self) -> NullObservation:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


_NOTHING = NullObservation()
_NO_BLOCK: AbstractContextManager[None] = nullcontext()
_session = kernel.kernel_session()


class trace_span:
    """Observe a block, or each call of a function, as one observation.

    As a context manager, with ``with`` or ``async with``, it yields Langfuse's observation, with ``update()``
    and ``score()``, or a stand-in while nothing is traced. As a decorator it takes functions, async
    functions, generators and async generators; an observation lasts until the call is over, for generators
    until they are exhausted or closed.

    Args:
        name: Name of the observation.
        as_type: Its Langfuse type: ``span``, ``agent``, ``tool``, ``chain``, ``retriever``, ...
        attributes: What `Langfuse.start_as_current_observation` takes: ``input``, ``metadata``, ...

    Raises:
        ConfigError: When the name is empty, or the type is none of Langfuse's.
    """

    __slots__ = ("_as_type", "_attributes", "_entered", "_name")

    def __init__(self, name: str, *, as_type: str = "span", **attributes: Any) -> None:
        if as_type not in _TYPES or not name or (name.__class__ is not str and not isinstance(name, str)):
            raise _refusal(name, as_type)
        self._name, self._as_type, self._attributes = name, as_type, attributes
        # A stack, because a decorator or a reused object may be entered again before it was left.
        self._entered: list[tuple[AbstractContextManager[Any], Any]] | None = None

    def _again(self) -> trace_span:
        return trace_span(self._name, as_type=self._as_type, **self._attributes)

    def __enter__(self) -> Any:
        """Begin the observation and return it."""
        if self._entered is None:
            if not _session.is_active:
                return _NOTHING
            self._entered = []
        telemetry = _session.telemetry if kernel.activate() else None
        if telemetry is None:
            self._entered.append((_NO_BLOCK, _NOTHING))
            return _NOTHING
        block: AbstractContextManager[Any] = telemetry.client.start_as_current_observation(
            name=self._name,
            as_type=self._as_type,  # type: ignore[call-overload]
            **self._attributes,
        )
        observation = block.__enter__()
        self._entered.append((block, observation))
        return observation

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the observation; an error inside is noted and goes on."""
        if self._entered:
            block, observation = self._entered.pop()
            if isinstance(error, _CANCELLATIONS):
                observation.update(level="WARNING", status_message="cancelled")
            block.__exit__(kind, error, trace)

    async def __aenter__(self) -> Any:
        """Begin the observation and return it."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the observation; an error inside is noted and goes on."""
        self.__exit__(kind, error, trace)

    def __call__(self, function: _Function) -> _Function:
        """Return ``function`` so that each call is observed."""
        observed: Any
        if inspect.isasyncgenfunction(function):
            observed = _observed_async_generator(function, self._again)
        elif inspect.isgeneratorfunction(function):
            observed = _observed_generator(function, self._again)
        elif inspect.iscoroutinefunction(function):
            observed = _observed_coroutine(function, self._again)
        else:
            observed = _observed_function(function, self._again)
        return functools.wraps(function)(observed)  # type: ignore[return-value]


def _refusal(name: str, as_type: str) -> ConfigError:
    if as_type in _TYPES:
        return ConfigError(f"The name of the observation is {name!r}. Give it a text, such as 'clean data'.")
    return ConfigError(
        f"The observation {name!r} has the type {as_type!r}, which Langfuse does not know. "
        f"Use one of: {', '.join(sorted(_TYPES))}."
    )


_Open = Callable[[], AbstractContextManager[Any]]


def _observed_function(function: Callable[..., Any], open_: _Open) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _session.is_active:
            return function(*args, **kwargs)
        with open_():
            return function(*args, **kwargs)

    return call


def _observed_coroutine(function: Callable[..., Any], open_: _Open) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with open_():
            return await function(*args, **kwargs)

    return call


def _observed_generator(function: Callable[..., Any], open_: _Open) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inside = _Inside(open_)
        steps = function(*args, **kwargs)
        with inside.until_over():
            step: Callable[..., Any] = steps.send
            given: Any = None
            while True:
                try:
                    with inside.one_step():
                        value = step(given)
                except StopIteration as end:
                    return end.value
                try:
                    step, given = steps.send, (yield value)
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown on, as without us
                    step, given = steps.throw, error

    return call


def _observed_async_generator(function: Callable[..., Any], open_: _Open) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inside = _Inside(open_)
        steps = function(*args, **kwargs)
        with inside.until_over():
            step: Callable[..., Any] = steps.asend
            given: Any = None
            while True:
                try:
                    with inside.one_step():
                        value = await step(given)
                except StopAsyncIteration:
                    return
                try:
                    step, given = steps.asend, (yield value)
                except GeneratorExit:
                    await steps.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown on, as without us
                    step, given = steps.athrow, error

    return call


class _Inside:
    """The observation of a generator, which is current while the generator runs and not between its steps."""

    def __init__(self, open_: _Open) -> None:
        # A context of its own, because a generator may be closed in another one than it began in.
        self._context = contextvars.copy_context()
        self._block = self._context.run(open_)

    @contextmanager
    def until_over(self) -> Iterator[None]:
        self._context.run(self._block.__enter__)
        try:
            yield
        except GeneratorExit:
            self._context.run(self._block.__exit__, None, None, None)
            raise
        except BaseException as error:
            self._context.run(self._block.__exit__, type(error), error, error.__traceback__)
            raise
        else:
            self._context.run(self._block.__exit__, None, None, None)

    @contextmanager
    def one_step(self) -> Iterator[None]:
        if kernel.kernel_session().telemetry is None:
            yield
            return
        from opentelemetry import context

        token = context.attach(self._context.run(context.get_current))
        try:
            yield
        finally:
            context.detach(token)
