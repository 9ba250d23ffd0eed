"""One request to the server, and what its answer means.

Owns the wire: paths, headers, bodies. Decides nothing about waiting or keeping. Invariant: whatever comes
back, or does not, has one meaning of five: taken, away, failed, refused, or unfit.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx

from research_kit.config import load_settings
from research_kit.errors import ResearchKitError
from research_kit.session.backend import Backend, refusal
from research_kit.session.spool import Entry, Kind
from research_kit.wire import (
    AnswerError,
    BoundedClient,
    Bounds,
    JsonError,
    parse_json,
    retry_after_s,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Answer", "Sender"]

_LONGEST_WAIT_S = 300.0
_WRONG_KEYS = frozenset({401, 403, 404})
_WRONG_CONTENT = frozenset({400, 413, 415, 422})
# A server without room or time says so; that is no matter of what was sent.
_NOT_NOW = frozenset({429, 507})
# It may pass, and may as well be the content that brings a server down behind its proxy.
_MAY_PASS = frozenset({503})
_SLOWEST_UPLOAD_BYTES_PER_S = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request.

    Attributes:
        outcome: ``taken``; ``away`` (try again later); ``failed`` (as well, and it may be for this content);
            ``refused`` (until keys or address change); ``unfit`` (this content, whatever the keys).
        reason: Why it was not taken.
        retry_after_s: When the server asks to come back; None when it does not say.
        is_too_large: Whether less at once, or a shorter text, might be taken.
        may_pass: Whether a server that failed on one entry alone may take it later.
    """

    outcome: Literal["taken", "away", "failed", "refused", "unfit"]
    reason: str = ""
    retry_after_s: float | None = None
    is_too_large: bool = False
    may_pass: bool = False


class Sender:
    """Sends batches of spool entries.

    Args:
        get_backend: Returns the server; asked for each request, so that an embedded store that was stopped is
            started again.
    """

    def __init__(self, get_backend: Callable[[], Backend]) -> None:
        self._get_backend = get_backend
        self._client: httpx.Client | None = None
        self._place: tuple[object, ...] = ()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def send(self, batch: Sequence[tuple[Entry, bytes]]) -> Answer:
        """Send entries of one kind in one request; a score goes alone."""
        if batch[0][0].kind is Kind.SCORE:
            return self._post(_post_score, batch[0][1])
        return self._post(_post_spans, b"".join(payload for _, payload in batch))

    def takes_nothing_much(self) -> bool:
        """Whether the server takes an export without content."""
        return self._post(_post_spans, b"").outcome == "taken"

    def _post(self, post: Callable[[_Way, bytes], httpx.Response], body: bytes) -> Answer:
        try:
            backend = self._get_backend()
            answer = post(self._way(backend), body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, UnicodeError) as error:
            return Answer(outcome="away", reason=_unreached(error))
        except ResearchKitError as error:
            return Answer(outcome="away", reason=_unreached(error))
        except AnswerError as error:
            reason = f"{backend.base_url} does not answer as it should: {error}"
            return Answer(outcome="failed", reason=reason)
        except httpx.HTTPError as error:
            return Answer(outcome="failed", reason=_unreached(error))
        return _judge(backend, answer)

    def _way(self, backend: Backend) -> _Way:
        timeout_s = load_settings().request_timeout_s
        place = (backend.base_url, backend.socket_path, backend.secret_key)
        if self._client is None or place != self._place:
            self.close()
            self._place = place
            self._client = backend.open_client(timeout_s=timeout_s)
            self._bounded = BoundedClient(self._client)
        return _Way(client=self._bounded, backend=backend, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a server is reached."""

    client: BoundedClient
    backend: Backend
    timeout_s: float

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Post a body; the whole of it may take longer when it is long."""
        total_s = 2 * self.timeout_s + len(body) / _SLOWEST_UPLOAD_BYTES_PER_S
        return self.client.request(
            "POST",
            f"{self.backend.base_url}{path}",
            content=body,
            auth=(self.backend.public_key, self.backend.secret_key),
            headers=headers,
            bounds=Bounds(total_s=total_s),
        )


def _post_spans(way: _Way, body: bytes) -> httpx.Response:
    headers = {
        "content-type": "application/x-protobuf",
        "content-encoding": "gzip",
        "x-langfuse-ingestion-version": "4",
    }
    return way.post("/api/public/otel/v1/traces", gzip.compress(body, compresslevel=1), headers)


def _post_score(way: _Way, body: bytes) -> httpx.Response:
    path, headers = "/api/public/scores", {"content-type": "application/json"}
    answer = way.post(path, body, headers)
    # Servers of version 4.16 take one object, later ones a list.
    if answer.status_code == 400 and b"expected array" in answer.content.lower():
        answer = way.post(path, b"[" + body + b"]", headers)
    return answer


def _unreached(error: Exception) -> str:
    return f"the server cannot be reached: {error or type(error).__name__}"


def _judge(backend: Backend, answer: httpx.Response) -> Answer:
    status = answer.status_code
    if answer.is_success:
        return _judge_success(backend, answer)
    if status in _WRONG_KEYS:
        return Answer(outcome="refused", reason=refusal(backend, status))
    if status in _WRONG_CONTENT:
        is_too_large = status == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        return Answer(outcome="unfit", reason=refusal(backend, status), is_too_large=is_too_large)
    wait_s = retry_after_s(answer.headers)
    return Answer(
        outcome="away" if wait_s or status in _NOT_NOW else "failed",
        reason=f"{backend.base_url} answered {status}",
        retry_after_s=None if wait_s is None else min(wait_s, _LONGEST_WAIT_S),
        may_pass=status in _MAY_PASS,
    )


def _judge_success(backend: Backend, answer: httpx.Response) -> Answer:
    try:
        content = parse_json(answer.content)
    except JsonError as error:
        # A login page or a proxy says 200 to everything; believing it would lose the batch.
        reason = f"{backend.base_url} answered something that is not Langfuse's: {error}"
        return Answer(outcome="failed", reason=reason)
    if _is_partial(content):
        return Answer(outcome="unfit", reason=f"{backend.base_url} took only a part of what was sent")
    return Answer(outcome="taken")


def _is_partial(content: Any) -> bool:
    """Whether the server says that it did not take all spans, as the protocol lets it say with status 200."""
    partial = content.get("partialSuccess") if isinstance(content, dict) else None
    return isinstance(partial, dict) and partial.get("rejectedSpans") not in (None, 0, "0", "", False)
