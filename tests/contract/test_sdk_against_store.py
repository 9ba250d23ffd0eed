"""The official Langfuse SDK writes to the store and reads from it, unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from research_kit.store import StoreAddress

# One client per process is all the SDK allows, so it gets a process of its own.
_PROGRAM = """
import json, sys
from langfuse import Langfuse, propagate_attributes

base_url, public_key, secret_key = sys.argv[1:]
client = Langfuse(base_url=base_url, public_key=public_key, secret_key=secret_key)
assert client.auth_check()
with propagate_attributes(session_id="sdk-session", user_id="alice", tags=["jupyter"]):
    with client.start_as_current_observation(name="chat", as_type="agent", input="How many?") as agent:
        with client.start_as_current_observation(name="count", as_type="tool", input={"of": "rows"}) as tool:
            tool.update(output=344)
        with client.start_as_current_observation(name="llm", as_type="generation") as llm:
            llm.update(model="gpt-4o-mini", output="344 rows", usage_details={"input": 1000, "output": 500})
            llm.score(name="grounded", value=1, data_type="BOOLEAN")
        agent.update(output="344 rows")
        client.score_current_trace(name="helpful", value=0.75, comment="short")
        trace_id = client.get_current_trace_id()
client.flush()

groups = "core,basic,io,model,usage,trace_context"
page = client.api.observations.get_many(session_id="sdk-session", fields=groups)
scores = client.api.scores.get_many(trace_id=trace_id, fields="details,subject")
first = client.api.observations.get_many(session_id="sdk-session", limit=1)
second = client.api.observations.get_many(session_id="sdk-session", limit=1, cursor=first.meta.cursor)
print(json.dumps({
    "trace_id": trace_id,
    "observations": [json.loads(row.model_dump_json()) for row in page.data],
    "scores": [json.loads(score.model_dump_json()) for score in scores.data],
    "paged": [first.data[0].id, second.data[0].id],
    "projects": [project.id for project in client.api.projects.get().data],
}))
"""


@pytest.fixture(scope="module")
def seen(empty_store: StoreAddress) -> dict[str, Any]:
    """What the SDK read back of what it had written."""
    arguments = [empty_store.base_url, empty_store.public_key, empty_store.secret_key]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr.upper(), done.stderr
    return dict(json.loads(done.stdout))


def test_sdk_reads_the_tree_that_it_wrote(seen: dict[str, Any]) -> None:
    """Types, parents, session, user, tags, input and output come back as they were given."""
    rows = {row["name"]: row for row in seen["observations"]}
    agent, tool, llm = rows["chat"], rows["count"], rows["llm"]
    assert [row["type"] for row in (agent, tool, llm)] == ["AGENT", "TOOL", "GENERATION"]
    assert [row["parentObservationId"] for row in (agent, tool, llm)] == [None, agent["id"], agent["id"]]
    assert {row["sessionId"] for row in rows.values()} == {"sdk-session"}
    assert {row["userId"] for row in rows.values()} == {"alice"}
    assert {tuple(row["tags"]) for row in rows.values()} == {("jupyter",)}
    assert (agent["input"], tool["input"], tool["output"]) == ("How many?", '{"of": "rows"}', "344")


def test_sdk_reads_the_cost_that_the_store_added(seen: dict[str, Any]) -> None:
    """A generation of a known model without cost is priced from the table."""
    (llm,) = [row for row in seen["observations"] if row["type"] == "GENERATION"]
    assert llm["usageDetails"] == {"input": 1000, "output": 500, "total": 1500}
    assert llm["totalCost"] == pytest.approx(0.00045)


def test_sdk_scores_arrive(seen: dict[str, Any]) -> None:
    """Scores, which the SDK sends as a list, are stored with value, comment and target."""
    scores = {score["name"]: score for score in seen["scores"]}
    assert (scores["helpful"]["value"], scores["helpful"]["comment"]) == (0.75, "short")
    assert scores["helpful"]["subject"] == {"kind": "trace", "id": seen["trace_id"]}
    assert scores["grounded"]["value"] is True
    assert scores["grounded"]["subject"]["kind"] == "observation"


def test_sdk_pages_and_projects(seen: dict[str, Any], empty_store: StoreAddress) -> None:
    """The cursor leads to the next row, and the one project is listed."""
    ids = [row["id"] for row in seen["observations"]]
    assert seen["paged"] == ids[:2]
    assert seen["projects"] == [empty_store.project_id]


def test_score_list_with_an_invalid_score_keeps_the_valid_ones(empty_store: StoreAddress) -> None:
    """A partly valid list is answered with counts and reasons, in the form that the SDK understands."""
    valid = {"name": "a", "value": 1, "traceId": "t"}
    answer = httpx.post(
        f"{empty_store.base_url}/api/public/scores",
        auth=(empty_store.public_key, empty_store.secret_key),
        json=[valid, {"name": "b", "value": 1}, "nonsense"],
    )
    assert answer.status_code == 207
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, 2)
    assert "exactly one" in answer.json()["errors"][0]["message"]
