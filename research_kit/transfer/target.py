"""The server that takes what is moved.

Owns sending: attempts, batches that are too large, and what is refused for its content. Invariant: whatever
is given to `Target` has been taken by the server, or is counted as refused, when the call returns.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from research_kit.config import keep_loopback_direct
from research_kit.errors import BackendError, ConfigError
from research_kit.transfer.spans import export_of
from research_kit.trust import check_transport
from research_kit.wire import (
    AnswerError,
    BoundedClient,
    Bounds,
    JsonError,
    no_cookies,
    parse_json,
    parse_object,
    plain_words,
    retry_after_s,
)

__all__ = ["Target"]

_ATTEMPTS = 8
_FIRST_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_TIMEOUT_S = 60.0
# A server that wants to be left alone for longer ends the command, which can be repeated then.
_LONGEST_WISH_S = 300.0
# A failure of the server is repeated less often than its absence: it may be for the content.
_ATTEMPTS_ON_500 = 3
# Halving a batch down to one observation fails eight times; so many failures in a row are for everything.
_MAX_FAILURES = 12
# A batch of scores is answered score by score.
_BOUNDS = Bounds(total_s=2 * _TIMEOUT_S, max_bytes=16_000_000)
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
        self._failures_in_a_row = 0
        keep_loopback_direct()
        self._client = httpx.Client(
            timeout=_TIMEOUT_S,
            verify=base_url.startswith("https:"),
            transport=transport,
            cookies=no_cookies(),
        )
        self._bounded = BoundedClient(self._client)
        self._auth = (public_key, secret_key)
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
            return str(parse_object(answer.content)["data"][0]["id"])
        except (JsonError, LookupError, TypeError) as error:
            raise self._error("it does not answer as a Langfuse server does. Check the address") from error

    def send_observations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send observations; one that the server refuses for its content is noted in ``refused``.

        Raises:
            BackendError: When the server stays away, or refuses the keys.
        """
        if not rows:
            return
        try:
            export = export_of(rows)
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            self._divide_observations(rows, f"it is no observation: {type(error).__name__}: {error}")
            return
        answer = self._send_export(export)
        if answer.status_code in _TOO_LARGE or self._fails_for_content(answer):
            self._divide_observations(rows, _words(answer))
            return
        self._require(answer)
        self._failures_in_a_row = 0
        if problem := _partial_problem(answer):
            self._divide_observations(rows, problem)

    def _send_export(self, export: Mapping[str, Any]) -> httpx.Response:
        body = gzip.compress(json.dumps(export).encode(), compresslevel=3)
        headers = {
            "content-type": "application/json",
            "content-encoding": "gzip",
            "x-langfuse-ingestion-version": "4",
        }
        return self._request("POST", "/api/public/otel/v1/traces", content=body, headers=headers)

    def _fails_for_content(self, answer: httpx.Response) -> bool:
        """Whether a server that answers 500 takes an export without content: it fails on what is in it."""
        if answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
            return False
        self._failures_in_a_row += 1
        return self._failures_in_a_row <= _MAX_FAILURES and self._send_export({}).is_success

    def _divide_observations(self, rows: Sequence[Mapping[str, Any]], problem: str) -> None:
        if len(rows) == 1:
            named = f"observation {rows[0].get('id')} of trace {rows[0].get('traceId')}"
            self.refused.append(f"{named}: {plain_words(problem)}")
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
        self.refused += _refused_scores(answer)

    def _request(
        self, method: str, path: str, *, attempts: int = _ATTEMPTS, **options: Any
    ) -> httpx.Response:
        for attempt in range(1, attempts + 1):
            pause_s = min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S)
            try:
                answer = self._bounded.request(
                    method, f"{self.base_url}{path}", auth=self._auth, bounds=_BOUNDS, **options
                )
            except AnswerError as error:
                raise self._error(str(error)) from error
            except httpx.TransportError as error:
                if attempt == attempts:
                    problem = (
                        f"no answer after {attempt} attempts ({error}). Check the address and the network"
                    )
                    raise self._error(problem) from error
            else:
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    return answer
                wish_s = retry_after_s(answer.headers) or 0.0
                is_failing = answer.status_code == 500 and attempt >= _ATTEMPTS_ON_500
                if attempt == attempts or is_failing or wish_s > _LONGEST_WISH_S:
                    return answer
                pause_s = max(pause_s, wish_s)
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
        content = parse_json(answer.content) if answer.content else {}
    except JsonError as error:
        return f"its answer cannot be read: {error}"
    partial = content.get("partialSuccess") if isinstance(content, dict) else None
    if not isinstance(partial, dict) or partial.get("rejectedSpans") in (None, 0, "0", "", False):
        return ""
    return plain_words(str(partial.get("errorMessage") or "it was rejected"))


def _refused_scores(answer: httpx.Response) -> list[str]:
    try:
        errors = parse_object(answer.content).get("errors")
    except JsonError as error:
        return [f"scores: the answer cannot be read: {error}"]
    found = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return [plain_words(f"score {error.get('id')}: {error.get('message')}") for error in found]


def _words(answer: httpx.Response) -> str:
    return plain_words(answer.content[:1000].decode("utf-8", "replace")) or answer.reason_phrase
