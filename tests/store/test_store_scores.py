"""Scores: written, changed, listed, deleted."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


def _scores(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/public/v3/scores", params={"fields": "details,subject", **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def test_score_without_id_gets_one(client: httpx.Client) -> None:
    """The answer names the id under which the score can be read, changed and deleted."""
    made = client.post("/api/public/scores", json={"name": "a", "value": 0.5, "traceId": "no-id"}).json()[
        "id"
    ]
    assert [score["id"] for score in _scores(client, traceId="no-id")] == [made]
    assert client.delete(f"/api/public/scores/{made}").status_code == 202
    assert _scores(client, traceId="no-id") == []


def test_list_keeps_its_own_timestamps(client: httpx.Client) -> None:
    """A score in a list keeps the time that the client measured."""
    body = {"name": "a", "value": 1, "traceId": "timed", "timestamp": "2026-11-20T09:00:00.123Z"}
    assert client.post("/api/public/scores", json=[body]).json() == {"message": "Accepted"}
    assert [score["timestamp"] for score in _scores(client, traceId="timed")] == ["2026-11-20T09:00:00.123Z"]


@pytest.mark.parametrize("value", [float("1e308"), -0.0, 5, 2**53])
def test_numbers_survive(client: httpx.Client, value: float) -> None:
    """A numeric score is read as it was written."""
    client.post("/api/public/scores", json={"id": "n", "name": "n", "value": value, "traceId": "numbers"})
    assert [score["value"] for score in _scores(client, traceId="numbers")] == [value]


@pytest.mark.parametrize(
    "body", ["", "{", "null", "1", '"x"', "{}", '{"name": "a", "value": NaN, "traceId": "t"}']
)
def test_invalid_bodies_are_refused(client: httpx.Client, body: str) -> None:
    """What is no score is a 400, never a server error."""
    answer = client.post("/api/public/scores", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    "batch", [[None], [1], [{}], [{"type": "score-create", "timestamp": "x", "body": {}}]]
)
def test_invalid_events_fail_one_by_one(client: httpx.Client, batch: list[Any]) -> None:
    """Events that are no scores are counted as errors inside the answer."""
    answer = client.post("/api/public/ingestion", json={"batch": batch})
    assert answer.status_code == 207
    assert len(answer.json()["errors"]) == 1


def test_deleting_a_trace_deletes_its_scores(client: httpx.Client) -> None:
    """Scores of a trace and of its observations leave with it; others stay."""
    for identity, target in {
        "d1": {"traceId": "gone"},
        "d2": {"traceId": "gone", "observationId": "o"},
        "d3": {"sessionId": "gone"},
    }.items():
        client.post("/api/public/scores", json={"id": identity, "name": "d", "value": 1, **target})
    assert client.delete("/api/public/traces/gone").status_code == 200
    assert [score["id"] for score in _scores(client, name="d")] == ["d3"]
