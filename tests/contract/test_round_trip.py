"""What a kernel sends is read back alike by the official SDK and by frames, from the store and from Langfuse.

With ``-m langfuse`` the server is the one that LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY
name; one session, of a new id, is written to its project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from research_kit.config import load_settings
from research_kit.errors import BackendError
from research_kit.traces import TraceReader, cost_by, observations_df, scores_df

# The kernel's own process. A real server shows what it took some seconds later, scores last.
_PROGRAM = """
import json, sys, time
import langfuse
import research_kit as rk

def read_until(is_whole, read):
    deadline_s = time.monotonic() + 120
    while not is_whole(found := read().data):
        assert time.monotonic() < deadline_s, f"the server shows only {found}"
        time.sleep(2)
    return [json.loads(row.model_dump_json()) for row in found]

session_id = sys.argv[1]
rk.bind(session_id, user_id="alice", tags=["jupyter"], metadata={"purpose": "contract"})
with rk.trace_span("chat") as chat:
    client = langfuse.get_client()
    chat.update(input="How many?", output="344 rows")
    with client.start_as_current_observation(name="count", as_type="tool", input={"of": "rows"}) as tool:
        tool.update(output=344)
    with client.start_as_current_observation(name="llm", as_type="generation", model="gpt-4o-mini") as llm:
        llm.update(output="344 rows", usage_details={"input": 1000, "output": 500})
        llm.score(name="grounded", value=1, data_type="BOOLEAN")
    trace_id = client.get_current_trace_id()
rk.score("helpful", 0.75, trace_id=trace_id, comment="short")
is_sent, status = rk.flush(60), rk.status()
assert is_sent, status

groups = "core,basic,io,model,usage,trace_context"
rows = read_until(
    lambda rows: len(rows) == 3 and any(row.total_cost for row in rows),
    lambda: client.api.observations.get_many(session_id=session_id, fields=groups),
)
scores = read_until(
    lambda scores: len(scores) == 2,
    lambda: client.api.scores.get_many(trace_id=trace_id, fields="details,subject"),
)
print(json.dumps({
    "state": [status.state, status.pending_count, status.lost_count, status.refused_count],
    "session_url": status.session_url, "trace_id": trace_id, "observations": rows, "scores": scores,
    "projects": [project.id for project in client.api.projects.get().data],
}))
"""


@dataclass(frozen=True, slots=True)
class Server:
    base_url: str
    public_key: str
    secret_key: str = field(repr=False)  # pytest shows the arguments of a test that fails


class Sent(NamedTuple):
    server: Server
    session_id: str
    seen: dict[str, Any]

    def observation(self, name: str) -> dict[str, Any]:
        """Return one observation as the SDK read it."""
        (found,) = [row for row in self.seen["observations"] if row["name"] == name]
        return found


@pytest.fixture(scope="module", params=["store", pytest.param("langfuse", marks=pytest.mark.langfuse)])
def server(request: pytest.FixtureRequest) -> Server:
    """The embedded store, or the server that the environment names."""
    if request.param == "store":
        address = request.getfixturevalue("empty_store")
        return Server(address.base_url, address.public_key, address.secret_key)
    settings = load_settings()
    if settings.public_key is None or settings.secret_key is None:
        pytest.fail(
            "Name the Langfuse server with LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY."
        )
    return Server(settings.base_url, settings.public_key, settings.secret_key)


@pytest.fixture(scope="module")
def sent(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """What a kernel has written, and the SDK has read back."""
    folder: Path = tmp_path_factory.mktemp("kernel")
    session_id = f"contract-{uuid.uuid4()}"
    foreign = ("LANGFUSE_", "RESEARCH_KIT_", "OTEL_", "JUPYTERHUB_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {
        "LANGFUSE_BASE_URL": server.base_url,
        "LANGFUSE_PUBLIC_KEY": server.public_key,
        "LANGFUSE_SECRET_KEY": server.secret_key,
        "RESEARCH_KIT_DATA_DIR": str(folder),
        "RESEARCH_KIT_STRICT_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, session_id],
        capture_output=True, text=True, timeout=400, check=False, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr.upper(), done.stderr
    return Sent(server, session_id, json.loads(done.stdout))


@pytest.fixture
def reader(server: Server) -> Iterator[TraceReader]:
    with TraceReader(server.base_url, server.public_key, server.secret_key) as opened:
        yield opened


def test_everything_is_delivered(sent: Sent) -> None:
    """The server has taken it all, and the link leads to the session in its one project."""
    assert sent.seen["state"] == ["connected", 0, 0, 0]
    (project_id,) = sent.seen["projects"]
    assert (
        sent.seen["session_url"] == f"{sent.server.base_url}/project/{project_id}/sessions/{sent.session_id}"
    )


def test_sdk_reads_what_the_kernel_sent(sent: Sent) -> None:
    """Types, parents, session, user, tags, input and output come back as they were given."""
    chat, tool, llm = map(sent.observation, ("chat", "count", "llm"))
    rows = (chat, tool, llm)
    assert [row["type"] for row in rows] == ["SPAN", "TOOL", "GENERATION"]
    assert [row["parentObservationId"] for row in rows] == [None, chat["id"], chat["id"]]
    assert {row["traceId"] for row in rows} == {sent.seen["trace_id"]}
    assert {(row["sessionId"], row["userId"], *row["tags"]) for row in rows} == {
        (sent.session_id, "alice", "jupyter")
    }
    assert (chat["input"], tool["input"], tool["output"]) == ("How many?", '{"of": "rows"}', "344")
    assert llm["usageDetails"] == {"input": 1000, "output": 500, "total": 1500}
    assert llm["totalCost"] == pytest.approx(0.00045)


def test_sdk_reads_the_scores(sent: Sent) -> None:
    """Scores of the SDK and of `rk.score` have their value, comment and target."""
    scores = {score["name"]: score for score in sent.seen["scores"]}
    assert (scores["helpful"]["value"], scores["helpful"]["comment"]) == (0.75, "short")
    assert scores["helpful"]["subject"] == {"kind": "trace", "id": sent.seen["trace_id"]}
    assert scores["grounded"]["value"] is True
    assert scores["grounded"]["subject"]["kind"] == "observation"


def test_frames_have_what_the_sdk_reads(sent: Sent, reader: TraceReader) -> None:
    """Ids, types, tokens, costs and scores of the frames are those of the SDK."""
    frame = observations_df(sent.session_id, reader=reader, cache=False).set_index("name")
    for name in ("chat", "count", "llm"):
        row, seen = frame.loc[name], sent.observation(name)
        assert (row["observation_id"], row["trace_id"], row["type"]) == (
            seen["id"],
            seen["traceId"],
            seen["type"],
        )
        assert (row["session_id"], row["user_id"]) == (sent.session_id, "alice")
    assert frame.loc["llm", ["input_tokens", "output_tokens", "total_tokens"]].tolist() == [1000, 500, 1500]
    assert frame.loc["llm", "cost_usd"] == pytest.approx(sent.observation("llm")["totalCost"])
    assert frame["cost_usd"].notna().tolist() == (frame.index == "llm").tolist()
    scores = scores_df(sent.session_id, reader=reader)
    assert set(scores["score_id"]) == {score["id"] for score in sent.seen["scores"]}


def test_server_and_frame_agree_on_the_cost(sent: Sent, reader: TraceReader) -> None:
    """A group-by of the server gives what the same group-by of the frame gives."""
    frame = observations_df(sent.session_id, reader=reader, cache=False)
    here = cost_by(frame[frame["type"] == "GENERATION"], "model")
    there = cost_by(by="model", engine="server", session_id=sent.session_id, reader=reader)
    assert there["cost_usd"].tolist() == pytest.approx(here["cost_usd"].tolist())
    assert there[["model", "call_count"]].values.tolist() == here[["model", "call_count"]].values.tolist()


def test_wrong_key_is_refused_with_what_to_check(sent: Sent) -> None:
    """A key that the server does not know is a 401 that names the variables."""
    with (
        TraceReader(sent.server.base_url, sent.server.public_key, "sk-lf-not-the-secret") as reader,
        pytest.raises(BackendError, match=r"401.*LANGFUSE_SECRET_KEY"),
    ):
        observations_df(sent.session_id, reader=reader, cache=False)
