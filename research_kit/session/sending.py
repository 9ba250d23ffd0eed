"""One request to the server, and what its answer means.

Owns the wire: paths, headers, bodies. Decides nothing about waiting or keeping. Invariant: every answer has
one meaning of four: taken, try again, refused, or unfit.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

import httpx

from research_kit.config import load_settings
from research_kit.errors import ResearchKitError
from research_kit.session.backend import Backend, refusal
from research_kit.session.spool import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Answer", "Sender"]

_MAX_RETRY_AFTER_S = 300.0
_WRONG_KEYS = frozenset({401, 403, 404})
_WRONG_CONTENT = frozenset({400, 413, 415, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request.

    Attributes:
        outcome: ``taken``; ``away`` (try again later); ``refused`` (until keys or address change); ``unfit``
            (this content, whatever the keys).
        reason: Why it was not taken.
        retry_after_s: When the server asks to come back; None when it does not say.
        is_too_large: Whether less at once, or a shorter text, might be taken.
    """

    outcome: Literal["taken", "away", "refused", "unfit"]
    reason: str = ""
    retry_after_s: float | None = None
    is_too_large: bool = False


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

    def send(self, batch: Sequence[tuple[Entry, bytes]]) -> Answer:
        """Send entries of one kind in one request; a score goes alone."""
        try:
            backend = self._get_backend()
            client = self._client_of(backend)
            if batch[0][0].kind is Kind.SCORE:
                answer = _post_score(client, backend, batch[0][1])
            else:
                answer = _post_spans(client, backend, b"".join(payload for _, payload in batch))
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ResearchKitError) as error:
            return Answer(
                outcome="away", reason=f"the server cannot be reached: {error or type(error).__name__}"
            )
        return _judge(backend, answer)

    def _client_of(self, backend: Backend) -> httpx.Client:
        place = (backend.base_url, backend.socket_path, backend.secret_key)
        if self._client is None or place != self._place:
            self.close()
            self._place = place
            self._client = backend.open_client(timeout_s=load_settings().request_timeout_s)
        return self._client


def _post_spans(client: httpx.Client, backend: Backend, body: bytes) -> httpx.Response:
    return client.post(
        f"{backend.base_url}/api/public/otel/v1/traces",
        content=gzip.compress(body, compresslevel=1),
        auth=(backend.public_key, backend.secret_key),
        headers={
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
            "x-langfuse-ingestion-version": "4",
        },
    )


def _post_score(client: httpx.Client, backend: Backend, body: bytes) -> httpx.Response:
    address, auth = f"{backend.base_url}/api/public/scores", (backend.public_key, backend.secret_key)
    headers = {"content-type": "application/json"}
    answer = client.post(address, content=body, auth=auth, headers=headers)
    # Servers of version 4.16 take one object, later ones a list.
    if answer.status_code == 400 and "expected array" in answer.text.lower():
        answer = client.post(address, content=b"[" + body + b"]", auth=auth, headers=headers)
    return answer


def _judge(backend: Backend, answer: httpx.Response) -> Answer:
    if answer.is_success:
        if _rejected_count(answer):
            return Answer(outcome="unfit", reason=f"{backend.base_url} took only a part of what was sent")
        if _is_json(answer):
            return Answer(outcome="taken")
        # A login page or a proxy says 200 to everything; believing it would lose the batch.
        return Answer(outcome="away", reason=f"{backend.base_url} answered something that is not Langfuse's")
    if answer.status_code in _WRONG_KEYS:
        return Answer(outcome="refused", reason=refusal(backend, answer.status_code))
    if answer.status_code in _WRONG_CONTENT:
        is_too_large = answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        return Answer(outcome="unfit", reason=refusal(backend, answer.status_code), is_too_large=is_too_large)
    reason = f"{backend.base_url} answered {answer.status_code}"
    return Answer(outcome="away", reason=reason, retry_after_s=_retry_after_s(answer))


def _rejected_count(answer: httpx.Response) -> int:
    """Return how many spans the server says it did not take, as the protocol lets it say with status 200."""
    try:
        return int(json.loads(answer.content)["partialSuccess"]["rejectedSpans"])
    except (ValueError, LookupError, TypeError):
        return 0


def _is_json(answer: httpx.Response) -> bool:
    try:
        json.loads(answer.content)
    except ValueError:
        return False
    return True


def _retry_after_s(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        wait_s = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait_s, 0.0), _MAX_RETRY_AFTER_S)
