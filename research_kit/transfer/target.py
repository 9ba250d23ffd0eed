"""The server that takes what is moved.

Owns sending: attempts, batches that are too large, and what is refused for its content. Invariant: whatever
is given to `Target` has been taken by the server, or is counted as refused, when the call returns.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from research_kit.config import keep_loopback_direct
from research_kit.errors import BackendError, ConfigError
from research_kit.transfer.spans import export_of
from research_kit.trust import check_transport

__all__ = ["Target"]

_ATTEMPTS = 8
_FIRST_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_TIMEOUT_S = 60.0
_TOO_LARGE = (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.BAD_REQUEST)


class Target:
    """A Langfuse server that observations and scores are sent to.

    Args:
        base_url: Root of the server.
        public_key: Its public key.
        secret_key: Its secret key.
        sleep_s: Waits between attempts.
        transport: How requests are made; None means over the network.

    Raises:
        ConfigError: When ``base_url`` is no web address, or the secret key would travel there in the clear.
    """

    def __init__(
        self,
        base_url: str,
        public_key: str,
        secret_key: str,
        *,
        sleep_s: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not _is_web_address(base_url):
            raise ConfigError(
                f"The server is {base_url!r}, which is no web address. Give it with its scheme."
            )
        check_transport(base_url, secret="The secret key")
        self.base_url = base_url.rstrip("/")
        self.public_key = public_key
        self.refused: list[str] = []
        keep_loopback_direct()
        self._client = httpx.Client(
            auth=(public_key, secret_key),
            timeout=_TIMEOUT_S,
            verify=base_url.startswith("https:"),
            transport=transport,
        )
        self._sleep_s = sleep_s

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def project_id(self) -> str:
        """Return the project of the keys.

        Raises:
            BackendError: When the server cannot be reached or refuses the keys.
        """
        answer = self._request("GET", "/api/public/projects", attempts=_FIRST_ATTEMPTS)
        self._require(answer)
        try:
            return str(answer.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise self._error("it does not answer as a Langfuse server does. Check the address") from error

    def send_observations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send observations; one that the server refuses for its content is noted in ``refused``.

        Raises:
            BackendError: When the server stays away, or refuses the keys.
        """
        if not rows:
            return
        body = gzip.compress(json.dumps(export_of(rows)).encode(), compresslevel=3)
        headers = {
            "content-type": "application/json",
            "content-encoding": "gzip",
            "x-langfuse-ingestion-version": "4",
        }
        answer = self._request("POST", "/api/public/otel/v1/traces", content=body, headers=headers)
        if answer.status_code in _TOO_LARGE:
            self._divide_observations(rows, _words(answer))
            return
        self._require(answer)
        if problem := _partial_problem(answer):
            self._divide_observations(rows, problem)

    def _divide_observations(self, rows: Sequence[Mapping[str, Any]], problem: str) -> None:
        if len(rows) == 1:
            self.refused.append(f"observation {rows[0]['id']} of trace {rows[0]['traceId']}: {problem}")
            return
        middle = len(rows) // 2
        self.send_observations(rows[:middle])
        self.send_observations(rows[middle:])

    def send_scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send scores with their ids and times; one that the server refuses is noted in ``refused``.

        Raises:
            BackendError: When the server stays away, or refuses the keys.
        """
        if not rows:
            return
        # As events of a batch: a score that is sent by itself gets the time of the request.
        events = [
            {"id": row["id"], "type": "score-create", "timestamp": row["timestamp"], "body": _score(row)}
            for row in rows
        ]
        answer = self._request("POST", "/api/public/ingestion", json={"batch": events})
        if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and len(rows) > 1:
            self.send_scores(rows[: len(rows) // 2])
            self.send_scores(rows[len(rows) // 2 :])
            return
        self._require(answer)
        for error in answer.json().get("errors", []):
            self.refused.append(f"score {error.get('id')}: {error.get('message')}")

    def _request(
        self, method: str, path: str, *, attempts: int = _ATTEMPTS, **options: Any
    ) -> httpx.Response:
        for attempt in range(1, attempts + 1):
            pause_s = min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S)
            try:
                answer = self._client.request(method, f"{self.base_url}{path}", **options)
            except httpx.TransportError as error:
                if attempt == attempts:
                    problem = (
                        f"no answer after {attempt} attempts ({error}). Check the address and the network"
                    )
                    raise self._error(problem) from error
            else:
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    return answer
                if attempt == attempts:
                    return answer
                pause_s = max(pause_s, _wish_s(answer))
            self._sleep_s(pause_s)
        raise AssertionError("every last attempt returns or raises")

    def _require(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        if answer.status_code in (401, 403):
            raise self._error(
                f"the server answered {answer.status_code} for the public key {self.public_key!r}. "
                "Check that both keys belong to this server",
                answer.status_code,
            )
        raise self._error(f"the server answered {answer.status_code}: {_words(answer)}", answer.status_code)

    def _error(self, problem: str, status_code: int | None = None) -> BackendError:
        return BackendError(
            f"Cannot send to {self.base_url}: {problem}. What was sent so far is there; the same command "
            "goes on from here.",
            base_url=self.base_url,
            status_code=status_code,
        )


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    subject = row["subject"]
    value = float(row["value"]) if isinstance(row["value"], bool) else row["value"]
    targets = {
        "trace": {"traceId": subject["id"]},
        "observation": {"observationId": subject["id"], "traceId": subject.get("traceId")},
        "session": {"sessionId": subject["id"]},
        "experiment": {"datasetRunId": subject["id"]},
    }
    kept = {
        key: row[key]
        for key in ("id", "name", "dataType", "environment", "comment", "metadata", "queueId")
        if row.get(key)
    }
    return {**kept, "value": value, **targets[subject["kind"]]}


def _is_web_address(text: str) -> bool:
    try:
        return text.startswith(("http://", "https://")) and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def _partial_problem(answer: httpx.Response) -> str:
    """Return why a server that has answered with success took not everything; empty when it did."""
    try:
        partial = answer.json().get("partialSuccess") or {}
        is_partial = int(partial.get("rejectedSpans") or 0) > 0
    except (ValueError, AttributeError):
        return ""
    return str(partial.get("errorMessage") or "it was rejected") if is_partial else ""


def _wish_s(answer: httpx.Response) -> float:
    """Return how long the server asks to wait, in seconds or until a date."""
    wish = answer.headers.get("retry-after", "0")
    try:
        return float(wish)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(wish) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _words(answer: httpx.Response) -> str:
    return answer.text[:200] or answer.reason_phrase
