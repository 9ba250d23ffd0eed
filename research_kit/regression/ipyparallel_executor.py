"""Tasks on the engines of an ipyparallel cluster.

Owns the watch over the cluster: its own executor leaves tasks waiting for ever when the last engine or the
controller has gone. Invariant: every future ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from research_kit.errors import ConfigError

__all__ = ["EnginesExecutor", "Watch", "connect_engines"]

_CONNECT_TIMEOUT_S = 10
_REMEDY = "Start some: ipcluster start -n 4 (or ipcluster engines -n 4), and give the profile with --address"


class ClusterGoneError(ConnectionError):
    """There is nobody left to run a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a cluster is watched, in seconds.

    Attributes:
        period_s: Time between two looks.
        no_engine_s: How long there may be no engine; the scheduler takes 5 s to tell that a task was lost.
        ask_period_s: Time between two questions to the controller.
        answer_s: How long it may take to answer.
    """

    period_s: float = 0.5
    no_engine_s: float = 8.0
    ask_period_s: float = 10.0
    answer_s: float = 60.0


class EnginesExecutor(Executor):
    """An executor on the engines of one client, which is closed with it."""

    def __init__(self, client: Any, watch: Watch | None = None) -> None:
        self._client = client
        self._times = watch or Watch()
        self._view = client.load_balanced_view()
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._watch = threading.Thread(target=self._run_watch, name="research-kit-engines", daemon=True)
        self._watch.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand a task to the scheduler of the cluster."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        result = self._view.apply_async(fn, *args, **kwargs)
        with self._lock:
            self._pending.add(future)
        result.add_done_callback(lambda done: self._end(future, done))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the client, with ``wait`` after all tasks have ended; engines go on."""
        if wait:
            self._wait()
        self._is_closed.set()
        self._watch.join()
        self._client.close(linger=0)

    def _wait(self) -> None:
        with self._lock:
            pending = set(self._pending)
        wait(pending)

    def _end(self, future: Future[Any], done: Future[Any]) -> None:
        error = done.exception()
        # The watch may have given it up a moment before.
        with suppress(InvalidStateError):
            if error is None:
                future.set_result(done.result())
            else:
                future.set_exception(error)
        with self._lock:
            self._pending.discard(future)

    def _give_up(self, reason: str) -> None:
        with self._lock:
            pending, self._pending = self._pending, set()
        for future in pending:
            with suppress(InvalidStateError):
                future.set_exception(ClusterGoneError(reason))

    def _run_watch(self) -> None:
        last_engine_s = last_asked_s = monotonic()
        while not self._is_closed.wait(self._times.period_s):
            now = monotonic()
            if self._client.ids:
                last_engine_s = now
            elif now - last_engine_s > self._times.no_engine_s:
                self._give_up(f"the cluster has no engine left. {_REMEDY}")
            if now - last_asked_s > self._times.ask_period_s:
                if not self._answers():
                    self._give_up("the controller of the cluster does not answer. Start the cluster again")
                last_asked_s = monotonic()

    def _answers(self) -> bool:
        """Whether the controller answers; the question itself would wait for ever."""
        answered = threading.Event()

        def ask() -> None:
            try:
                self._client.queue_status()
            except OSError:  # the client is closed when the cluster is shut down in order
                return
            except Exception:  # noqa: BLE001 -- an error of the controller is an answer too
                pass
            answered.set()

        threading.Thread(target=ask, name="research-kit-engines-ask", daemon=True).start()
        deadline = monotonic() + self._times.answer_s
        while not answered.wait(self._times.period_s):
            if self._is_closed.is_set() or monotonic() > deadline:
                return False
        return True


def connect_engines(ipyparallel: Any, address: str | None) -> EnginesExecutor:
    """Connect to a running cluster.

    Args:
        ipyparallel: The library.
        address: A profile, or the path of a connection file of the controller (``...-client.json``); None is
            the default profile.

    Raises:
        ConfigError: When there is no controller, or it has no engine.
    """
    where: dict[str, str] = {}
    if address:
        where = {"connection_info" if address.endswith(".json") else "profile": address}
    try:
        client = ipyparallel.Client(**where, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        name = "of the default profile" if address is None else repr(address)
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"Cannot connect to the ipyparallel cluster {name}: {reason}. {_REMEDY}."
        ) from error
    try:
        client.wait_for_engines(1, timeout=_CONNECT_TIMEOUT_S, interactive=False)
    except (TimeoutError, ipyparallel.error.EngineError) as error:
        client.close(linger=0)
        raise ConfigError(f"The ipyparallel cluster has no engine. {_REMEDY}.") from error
    return EnginesExecutor(client)
