"""Scores on their way to the server: first into the spool, like everything that ended.

Owns `score` and the transport under Langfuse's own client, whose lists of scores a server of version 4.16
refuses and its client then drops.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from typing import Any

import httpx

from research_kit.errors import ConfigError
from research_kit.session import kernel
from research_kit.wire import BoundedClient, Bounds, no_cookies

__all__ = ["ClientTransport", "ScoreTransport", "score", "score_payload"]

_PATH = "/api/public/scores"
# What Langfuse's client asks besides: prompts, projects, data sets in pages.
_BOUNDS = Bounds(total_s=120.0, max_bytes=64_000_000)


class ScoreTransport(httpx.BaseTransport):
    """Takes scores out of the requests of Langfuse's client; everything else goes its way.

    Args:
        add_score: Puts one score, as a JSON object, into the spool.
        network: Takes the other requests.
    """

    def __init__(self, add_score: Callable[[bytes], None], *, network: httpx.BaseTransport) -> None:
        self._add_score = add_score
        self._client = httpx.Client(transport=network, cookies=no_cookies())
        self._network = BoundedClient(self._client)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a score with its id, and forward other requests."""
        if request.method != "POST" or not request.url.path.endswith(_PATH):
            return self._network.send(request, bounds=_BOUNDS)
        content = json.loads(request.read())
        scores = content if isinstance(content, list) else [content]
        ids = [self._keep(score) for score in scores]
        return httpx.Response(200, json={"id": ids[-1] if ids else ""}, request=request)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _keep(self, score: dict[str, Any]) -> str:
        # With an id of its own a score that is sent twice is one score.
        score = {**score, "id": score.get("id") or str(uuid.uuid4())}
        self._add_score(_encode(score))
        return str(score["id"])


class ClientTransport(httpx.BaseTransport):
    """Sends requests through a client of user code, which may know of proxies, certificates and headers."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Forward the request with what the client adds to each of its own."""
        for name, value in self._client.headers.items():
            request.headers.setdefault(name, value)
        return self._client.send(request)


def score(
    name: str,
    value: float | str | bool,
    *,
    trace_id: str | None = None,
    observation_id: str | None = None,
    session_id: str | None = None,
    comment: str | None = None,
    score_id: str | None = None,
) -> None:
    """Put a named value on a trace, one of its observations, or a session; by default on the current session.

    The score is on disk when this returns, and is delivered like observations are.

    Args:
        name: What is judged, for instance ``helpful``.
        value: A number, a text (a category), True or False.
        trace_id: The trace, in hexadecimal.
        observation_id: An observation of the trace.
        session_id: A session, instead of a trace.
        comment: Why.
        score_id: An id of your own; the same one again replaces the score.

    Raises:
        ConfigError: When the name is empty, the value is none that a score can have, or nothing is bound.
    """
    if trace_id is None and session_id is None:
        session_id = kernel.current_session_id()
    payload = score_payload(
        name,
        value,
        target={"traceId": trace_id, "observationId": observation_id, "sessionId": session_id},
        comment=comment,
        score_id=score_id,
    )
    if not kernel.activate():
        return
    telemetry = kernel.kernel_session().telemetry
    if telemetry is not None:
        telemetry.delivery.add_score(payload)


def _plain_value(name: str, value: Any) -> float | str | bool:
    # NumPy's and pandas' own numbers, which the mean of a column is.
    value = (
        value.item() if callable(getattr(value, "item", None)) and not getattr(value, "shape", ()) else value
    )
    if not isinstance(value, int | float | str):
        raise ConfigError(
            f"The value of the score {name!r} is {value!r}, of type {type(value).__name__}. Give a number, a "
            "text, True or False."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            f"The value of the score {name!r} is {value!r}, which no server takes. Give a finite number, or "
            "leave the score out."
        )
    return value


def score_payload(
    name: str,
    value: float | str | bool,
    *,
    target: dict[str, str | None],
    comment: str | None,
    score_id: str | None,
) -> bytes:
    """Return a score as the server takes it.

    Raises:
        ConfigError: When the name is empty, the value is none that a score can have, or there is no target.
    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"The name of the score is {name!r}. Give it a name, such as 'helpful'.")
    value = _plain_value(name, value)
    found = {key: text for key, text in target.items() if text}
    if not found:
        raise ConfigError(
            f"The score {name!r} has no target. Give trace_id or session_id, or bind a session."
        )
    is_boolean = isinstance(value, bool)
    data_type = "BOOLEAN" if is_boolean else "CATEGORICAL" if isinstance(value, str) else "NUMERIC"
    score = {
        "id": score_id or str(uuid.uuid4()),
        "name": name,
        "value": int(value) if is_boolean else value,
        "dataType": data_type,
        **found,
    }
    return _encode(score if comment is None else {**score, "comment": comment})


def _encode(score: dict[str, Any]) -> bytes:
    # Half of a surrogate pair becomes a question mark; no protocol takes it.
    return json.dumps(score, ensure_ascii=False).encode("utf-8", "replace")
