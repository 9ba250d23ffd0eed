"""One request to a Langfuse server, repeated while that helps, and errors that say what to do.

Owns authentication, repetition and the words of failures; knows nothing of observations or scores. Invariant:
`get_json` returns a JSON object or raises `BackendError`, after a bounded number of attempts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx

from research_kit.errors import BackendError, ConfigError
from research_kit.trust import check_transport, is_loopback
from research_kit.wire import (
    AnswerError,
    AnswerTooLargeError,
    BoundedClient,
    Bounds,
    JsonError,
    TooManyValuesError,
    no_cookies,
    parse_json,
    parse_object,
    plain_words,
    retry_after_s,
)

__all__ = ["STOP", "Clock", "SystemClock", "Transport"]

STOP: ContextVar[threading.Event | None] = ContextVar("research_kit_stop_reading", default=None)
"""Set to end the reads of this context before their next request."""

_ATTEMPTS = 5
_TIMEOUT_ATTEMPTS = 2
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 60.0  # the rate limits of Langfuse Cloud count per minute
_CONNECT_TIMEOUT_S = 5.0
_TOO_MANY = 429
_TOO_LARGE = 413
# Langfuse Cloud answers 5 MB at most; a single observation with an image or two still fits.
_MAX_ANSWER_BYTES = 64_000_000
# Less than so many bytes per value are brackets around nothing, which take ten times as much memory.
_BYTES_PER_VALUE = 12
_PASSING = frozenset({429, 500, 502, 503, 504})


class Clock(Protocol):
    """Time and waiting, so that tests need neither."""

    def now_s(self) -> float:
        """Return seconds that only ever grow."""

    def sleep_s(self, duration_s: float) -> None:
        """Return after ``duration_s`` seconds."""


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        """Return the monotonic clock in seconds."""
        return time.monotonic()

    def sleep_s(self, duration_s: float) -> None:
        """Sleep, or until the read is stopped."""
        stop = STOP.get()
        if stop is None:
            time.sleep(duration_s)
        else:
            stop.wait(duration_s)


class Sized(NamedTuple):
    """A JSON object, and how many bytes it had."""

    value: dict[str, Any]
    body_bytes: int


class Transport:
    """An authenticated connection to one server.

    Args:
        base_url: Root of the server.
        auth: Public and secret key.
        client: The httpx client to use; None makes one, closed by `close`.
        timeout_s: How long one step of a request may take; the whole of it twice as long.
        clock: Time and waiting.
    """

    def __init__(
        self,
        base_url: str,
        auth: tuple[str, str],
        *,
        client: httpx.Client | None,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.clock = clock
        self.auth = auth
        self._open_at_s = 0.0
        self._timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S))
        self._owns_client = client is None
        if client is None:  # one that is given is the caller's choice
            check_transport(self.base_url, secret="The secret key")
        self._client = _make_client(self.base_url) if client is None else client
        self._bounded = BoundedClient(self._client)
        self._bounds = Bounds(total_s=2 * timeout_s, max_bytes=_MAX_ANSWER_BYTES)

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine."""
        return is_loopback(self.base_url)

    def close(self) -> None:
        """Close the connections, unless the client was given."""
        if self._owns_client:
            self._client.close()

    def get_json(
        self, path: str, params: Mapping[str, str | int], *, attempts_on_500: int = _ATTEMPTS
    ) -> dict[str, Any]:
        """Return the JSON object at ``path``; the arguments and errors are those of `get_sized`."""
        return self.get_sized(path, params, attempts_on_500=attempts_on_500).value

    def get_sized(
        self, path: str, params: Mapping[str, str | int], *, attempts_on_500: int = _ATTEMPTS
    ) -> Sized:
        """Return the JSON object at ``path``, and how many bytes it had.

        Args:
            path: Path on the server.
            params: Query parameters.
            attempts_on_500: How often to ask when the server answers 500, which may mean "too much at once".

        Raises:
            BackendError: When the server cannot be reached, refuses, or keeps failing.
        """
        attempt = 0
        while True:
            attempt += 1
            self._wait_for_turn()
            outcome = self._ask(path, params)
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return Sized(self._json_object(outcome), len(outcome.content))
            pause_s = _pause_s(outcome, attempt)
            if attempt >= _allowed_attempts(outcome, attempts_on_500) or pause_s > _LONGEST_PAUSE_S:
                raise self._failure(outcome, attempt)
            if isinstance(outcome, httpx.Response) and outcome.status_code == _TOO_MANY:
                self._open_at_s = max(self._open_at_s, self.clock.now_s() + pause_s)
            self.clock.sleep_s(pause_s)

    def _wait_for_turn(self) -> None:
        """Wait while the server's rate limit holds, which is one for all threads that read."""
        closed_s = self._open_at_s - self.clock.now_s()
        if closed_s > 0:
            self.clock.sleep_s(closed_s)
        stop = STOP.get()
        if stop is not None and stop.is_set():
            raise CancelledError(f"The read from {self.base_url} was stopped.")

    def _ask(self, path: str, params: Mapping[str, str | int]) -> httpx.Response | httpx.TransportError:
        try:
            return self._bounded.request(
                "GET",
                f"{self.base_url}{path}",
                params=dict(params),
                auth=self.auth,
                timeout=self._timeout,
                bounds=self._bounds,
            )
        except httpx.TransportError as error:
            return error

    def _json_object(self, answer: httpx.Response) -> dict[str, Any]:
        cause = "it is no JSON object"
        try:
            # Numbers that are none are left out value by value, where the frame is made.
            body = parse_json(
                answer.content, max_values=_MAX_ANSWER_BYTES // _BYTES_PER_VALUE, keeps_odd_numbers=True
            )
        except TooManyValuesError as error:
            raise self._error(f"of its answer, {error}.", _TOO_LARGE) from error
        except JsonError as error:
            body, cause = None, str(error)
        if isinstance(body, dict):
            return body
        kind = plain_words(answer.headers.get("content-type", "no content type"))
        raise self._error(
            f"it answered with {kind} instead of a JSON object ({cause}). "
            "Check that LANGFUSE_BASE_URL is the root of a Langfuse server, not a login page or a proxy.",
            answer.status_code,
        )

    def _failure(self, outcome: httpx.Response | httpx.TransportError, attempts: int) -> BackendError:
        if isinstance(outcome, AnswerError):
            failure = self._error(
                f"{outcome}. Read less with start_time and end_time.",
                _TOO_LARGE if isinstance(outcome, AnswerTooLargeError) else None,
            )
            failure.__cause__ = outcome
            return failure
        if isinstance(outcome, httpx.TransportError):
            cause = str(outcome) or type(outcome).__name__
            failure = self._error(
                f"no answer after {attempts} attempts ({cause}). For the embedded store run "
                "`research-kit store start`; for another server check LANGFUSE_BASE_URL and the network."
            )
            failure.__cause__ = outcome
            return failure
        return self._error(self._refusal(outcome, attempts), outcome.status_code)

    def _refusal(self, answer: httpx.Response, attempts: int) -> str:
        status = answer.status_code
        if status in (401, 403):
            return (
                f"the server answered {status} for the public key {self.auth[0]!r}. "
                "Check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY: both must belong to this server."
            )
        if status == httpx.codes.NOT_FOUND:
            return self._not_found(answer)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            wait_s = retry_after_s(answer.headers)
            advice = f"Wait {wait_s:.0f} seconds" if wait_s else "Wait a minute"
            return f"the server answered 429 (rate limit) {attempts} times. {advice}, or read less."
        if status in _PASSING:
            return f"the server answered {status} {attempts} times. Try later, or see the server's own log."
        return f"the server answered {status}: {_message(answer)}. Check the arguments and LANGFUSE_BASE_URL."

    def _not_found(self, answer: httpx.Response) -> str:
        """Say which version the server has, when it says so itself."""
        health = self._ask("/api/public/health", {})
        version = _version(health) if isinstance(health, httpx.Response) else None
        if version is not None and version.partition(".")[0] in ("1", "2", "3"):
            return f"it runs Langfuse {version}, and reading needs version 4 or later. Update the server."
        return (
            f"the server answered 404 for {answer.request.url.path}. Check that LANGFUSE_BASE_URL is the "
            "root of a Langfuse server of version 4 or later."
        )

    def _error(self, problem: str, status_code: int | None = None) -> BackendError:
        return BackendError(
            f"Cannot read traces from {self.base_url}: {problem}",
            base_url=self.base_url,
            status_code=status_code,
        )


def _allowed_attempts(outcome: httpx.Response | httpx.TransportError, attempts_on_500: int) -> int:
    if isinstance(outcome, AnswerError):
        return 1
    if isinstance(outcome, httpx.TimeoutException) and not isinstance(outcome, httpx.ConnectTimeout):
        return _TIMEOUT_ATTEMPTS
    if isinstance(outcome, httpx.TransportError):
        return _ATTEMPTS
    if outcome.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        return attempts_on_500
    return _ATTEMPTS if outcome.status_code in _PASSING else 1


def _pause_s(outcome: httpx.Response | httpx.TransportError, attempt: int) -> float:
    """Return the server's own wish, else a pause that doubles with every attempt."""
    backoff_s = _FIRST_PAUSE_S * float(2 ** (attempt - 1))
    if isinstance(outcome, httpx.TransportError):
        return backoff_s
    wish_s = retry_after_s(outcome.headers)
    return backoff_s if wish_s is None else wish_s


def _message(answer: httpx.Response) -> str:
    text = _text_in(answer, "message")
    return answer.reason_phrase if text is None else text


def _version(answer: httpx.Response) -> str | None:
    return _text_in(answer, "version")


def _text_in(answer: httpx.Response, name: str) -> str | None:
    try:
        text = parse_object(answer.content).get(name)
    except JsonError:
        return None
    return plain_words(text) if isinstance(text, str) else None


def _checked_url(base_url: str) -> str:
    if not base_url.startswith(("http://", "https://")) or not urlsplit(base_url).hostname:
        raise ConfigError(
            f"base_url is {base_url!r}, which is not a web address. Give it with its scheme, "
            "for instance https://cloud.langfuse.com."
        )
    return base_url.rstrip("/")


def _make_client(base_url: str) -> httpx.Client:
    # A proxy for the outside world cannot reach a server on this machine; certificates take long to load, and
    # plain HTTP has none.
    is_direct, verify = is_loopback(base_url), base_url.startswith("https:")
    return httpx.Client(trust_env=not is_direct, verify=verify, cookies=no_cookies())
