"""Langfuse clients that user code makes itself: taken over, or left alone and said to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from recording_server import PUBLIC_KEY, SECRET_KEY, RecordingServer, recording_server
from scripts import SECRET, Destination, run_script

OBSERVE = """
from langfuse import Langfuse, get_client, observe
@observe()
def step(text): return text
"""
BLOCK = "\nwith client.start_as_current_observation(name='block', input='hunter2 swordfish'): pass\n"
OWN_MASK = "mask=lambda *, data, **_: data.replace('swordfish', 'fish') if isinstance(data, str) else data"
KEYS = f"public_key={PUBLIC_KEY!r}, secret_key={SECRET_KEY!r}"


@pytest.fixture
def other_server() -> Iterator[RecordingServer]:
    with recording_server() as running:
        yield running


def names_at(server: RecordingServer | None) -> list[str]:
    assert server is not None
    return sorted(span["name"] for span in server.spans)


@pytest.mark.parametrize("keys", [[], [KEYS]], ids=["keys of the environment", "keys as arguments"])
def test_client_made_after_binding_keeps_its_mask_and_gets_ours(
    keys: list[str], with_keys: Destination, tmp_path: Path
) -> None:
    """What the client masks, and what the session masks, are both gone."""
    client = f"client = Langfuse({', '.join([*keys, OWN_MASK])})"
    code = f"{OBSERVE}{with_keys.bind}\n{client}{BLOCK}step('hunter2')"
    run = run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["block", "step"])
    assert with_keys.server is not None
    assert "[masked] fish" in with_keys.server.text
    assert run.stderr == ""


def test_client_without_keys_keeps_its_mask_in_the_store(destination: Destination, tmp_path: Path) -> None:
    """The embedded store's keys are filled in."""
    run_script(
        f"{OBSERVE}{destination.bind}\nclient = Langfuse({OWN_MASK}){BLOCK}",
        tmp_path,
        destination.environment,
    )
    destination.assert_arrived(["block"])
    assert "[masked] fish" in destination.arrived(1)[0].text


def test_mask_that_comes_too_late_is_said(with_keys: Destination, tmp_path: Path) -> None:
    """Langfuse keeps the first client of a key, without a word; here there is one."""
    code = f"{OBSERVE}{with_keys.bind}\nstep('hunter2')\nclient = Langfuse({OWN_MASK}){BLOCK}"
    run = run_script(code, tmp_path, with_keys.environment)
    assert "script.py:" in run.stderr
    assert "mask of this Langfuse client has no effect" in run.stderr
    with_keys.assert_arrived(["block", "step"])


def test_choice_of_spans_of_the_client_counts(with_keys: Destination, tmp_path: Path) -> None:
    """What `should_export_span` refuses is not delivered, and what it takes is."""
    code = f"""{OBSERVE}{with_keys.bind}
client = Langfuse(should_export_span=lambda span: span.name != "private")
with client.start_as_current_observation(name="private"): pass
from opentelemetry import trace
with trace.get_tracer("mine").start_as_current_span("plain"): pass
{BLOCK}"""
    run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["block", "plain"])


def test_http_client_of_the_client_is_used_and_scores_are_spooled(
    with_keys: Destination, tmp_path: Path
) -> None:
    """API calls go through it, with its headers; scores go the way of observations."""
    code = f"""{OBSERVE}{with_keys.bind}
import httpx
hook = {{"request": [lambda request: print(request.url.path, request.headers["x-mine"])]}}
client = Langfuse(httpx_client=httpx.Client(headers={{"x-mine": "yes"}}, event_hooks=hook))
client.create_score(name="good", value=1, session_id="s", comment="hunter2")
assert client.auth_check()
{BLOCK}"""
    run = run_script(code, tmp_path, with_keys.environment)
    assert run.stdout == "/api/public/projects yes\n"
    assert with_keys.server is not None
    assert [score["comment"] for score in with_keys.server.scores] == ["[masked]"]


def test_client_that_does_not_trace_leaves_the_session_traced(with_keys: Destination, tmp_path: Path) -> None:
    """`tracing_enabled=False` is about that client."""
    code = f"{OBSERVE}{with_keys.bind}\nclient = Langfuse(tracing_enabled=False){BLOCK}step('hunter2')"
    run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["step"])


EARLIER = {
    "get_client": "client = get_client()",
    "with a mask": f"client = Langfuse({OWN_MASK})",
    "called": "step('before'); client = get_client()",
    "thread": """
import threading
thread = threading.Thread(target=step, args=("before",))
thread.start(); thread.join()
client = get_client()
""",
}


@pytest.mark.parametrize("made", EARLIER)
def test_client_older_than_the_session_is_not_sent_twice_and_said_not_to_be_masked(
    made: str, with_keys: Destination, tmp_path: Path
) -> None:
    """Langfuse's SDK has no way to take its exporter back: one copy, in the session, and a clear word."""
    code = f"""{OBSERVE}{EARLIER[made]}
{with_keys.bind}
{with_keys.bind}{BLOCK}
step("after")
with rk.trace_span("ours"): pass
assert "neither masks" in rk.status().notice
print(rk.status().pending_count)
"""
    run = run_script(code, tmp_path, with_keys.environment)
    assert run.stderr.count("UserWarning") == 1, run.stderr
    assert "Bind the session before Langfuse's first client is made" in run.stderr
    assert run.stdout == "0\n"
    assert with_keys.server is not None
    bound = [span for span in with_keys.server.spans if "before" not in str(span)]
    assert sorted(span["name"] for span in bound) == ["block", "ours", "step"]
    assert {span["session.id"] for span in bound} == {with_keys.session_id}


OWN_EXPORT = {
    "exporter": "span_exporter=InMemorySpanExporter()",
    "mask of spans": "mask_otel_spans=lambda *, params: None",
    "headers": "additional_headers={'x-gate': 'open'}",
}


@pytest.mark.parametrize("kind", OWN_EXPORT)
def test_client_that_exports_in_a_way_of_its_own_is_left_to_it(
    kind: str, with_keys: Destination, tmp_path: Path
) -> None:
    """What cannot be done for it is not done twice, and said."""
    code = f"""{OBSERVE}{with_keys.bind}
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
client = Langfuse({OWN_EXPORT[kind]})
{BLOCK}
assert rk.status().notice
"""
    run = run_script(code, tmp_path, with_keys.environment)
    assert run.stderr.count("UserWarning") == 1, run.stderr
    assert names_at(with_keys.server) == ([] if kind == "exporter" else ["block"])


@pytest.mark.parametrize("order", ["client first", "session first"])
def test_client_of_another_project_is_left_alone(
    order: str, with_keys: Destination, other_server: RecordingServer, tmp_path: Path
) -> None:
    """Its observations go to its server only, out of the session, and the status says so."""
    make = (
        f"client = Langfuse(public_key='pk-other', secret_key='sk-other', base_url={other_server.base_url!r})"
    )
    parts = [make, with_keys.bind] if order == "client first" else [with_keys.bind, make]
    code = OBSERVE + "\n".join(parts) + BLOCK
    code += "get_client(public_key='pk-other')\nwith rk.trace_span('ours', input='hunter2'): pass\n"
    code += "assert 'pk-other' in rk.status().notice\n"
    run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["ours"])
    assert names_at(other_server) == ["block"]
    assert "session.id" not in other_server.spans[0]


def test_client_with_explicit_keys_beside_the_store_is_left_alone(
    other_server: RecordingServer, tmp_path: Path
) -> None:
    """Keys that the environment does not name are another project's."""
    bind = Destination(session_id="s", environment={}).bind
    make = f"client = Langfuse({KEYS}, base_url={other_server.base_url!r})"
    code = f"{OBSERVE}{bind}\n{make}{BLOCK}assert {PUBLIC_KEY!r} in rk.status().notice\nclient.flush()"
    run_script(code, tmp_path, {})
    assert names_at(other_server) == ["block"]
    assert SECRET in other_server.text


def test_client_for_another_server_keeps_its_server(
    with_keys: Destination, other_server: RecordingServer, tmp_path: Path
) -> None:
    """The same keys, and an address that the environment does not name: nothing goes to the other one."""
    code = f"{OBSERVE}{with_keys.bind}\nclient = Langfuse(base_url={other_server.base_url!r}){BLOCK}"
    run = run_script(code, tmp_path, with_keys.environment)
    assert names_at(other_server) == ["block"]
    assert names_at(with_keys.server) == []
    assert run.stderr.count("UserWarning") == 1, run.stderr


def test_key_that_is_named_at_a_call_finds_the_client(with_keys: Destination, tmp_path: Path) -> None:
    """`langfuse_public_key=` of a decorated function, once a client was made."""
    call = f"step('hunter2', langfuse_public_key={PUBLIC_KEY!r})"
    run_script(f"{OBSERVE}{with_keys.bind}\nclient = get_client()\n{call}\n", tmp_path, with_keys.environment)
    with_keys.assert_arrived(["step"])
