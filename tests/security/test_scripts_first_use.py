"""Whatever comes first in a program that has bound a session: it is masked, in the session, and not lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels import Observations, end_kernel, start_kernel
from recording_server import RecordingServer
from scripts import SECRET, Destination, run_script

from research_kit.store import ensure_running, stop_store

FUNCTION = """
@observe()
def step(text): return text
"""
# A server that answers as OpenAI's does, within the script.
OPENAI = """
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "hunter2, too"}
        body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
def ask():
    client = OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_address[1]}/v1")
    messages = [{"role": "user", "content": "hunter2?"}]
    return client.chat.completions.create(model="gpt-4o-mini", messages=messages)
"""
# What comes first: what is imported, what is done, and the names of what arrives.
FIRST = {
    "observe": (
        "from langfuse import observe" + FUNCTION,
        "step('hunter2 1'); step('hunter2 2')",
        ["step", "step"],
    ),
    "get_client": (
        "from langfuse import get_client",
        "with get_client().start_as_current_observation(name='block', input='hunter2'): pass",
        ["block"],
    ),
    "client": (
        "from langfuse import Langfuse",
        "with Langfuse().start_as_current_observation(name='block', input={'a': ['hunter2']}): pass",
        ["block"],
    ),
    "openai": ("from langfuse.openai import OpenAI" + OPENAI, "ask()", ["OpenAI-generation"]),
    "experiment": (
        "from langfuse import get_client",
        "task = lambda *, item, **_: item['input']\n"
        "get_client().run_experiment(name='e', data=[{'input': 'hunter2'}], task=task)",
        ["experiment-item-run", "experiment-item-task"],
    ),
}
DESTINATIONS = ("keys", "no keys")
ORDERS = {
    "imported before": "{imports}\n{bind}\n{does}\n",
    "imported after": "{bind}\n{imports}\n{does}\n",
}
OBSERVE, _, _ = FIRST["observe"]
PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("first", FIRST)
def test_langfuse_first_is_masked_and_in_the_session(
    first: str, order: str, destination: Destination, tmp_path: Path
) -> None:
    """Langfuse's own call is the first that is observed, and the script ends without a flush."""
    imports, does, names = FIRST[first]
    run = run_script(
        ORDERS[order].format(imports=imports, bind=destination.bind, does=does),
        tmp_path,
        destination.environment,
    )
    destination.assert_arrived(names)
    assert run.stderr == ""


@pytest.mark.parametrize("launcher", ["command", "pytest"])
def test_every_kind_of_process_does_it(launcher: str, destination: Destination, tmp_path: Path) -> None:
    """`python -c`, and a test that binds and observes."""
    code = f"{OBSERVE}{destination.bind}\ndef test(): assert step('hunter2')\ntest()\n"
    run_script(code, tmp_path, destination.environment, launcher=launcher)
    destination.assert_arrived(["step"] * (2 if launcher == "pytest" else 1))


def test_scores_are_masked_and_spooled(destination: Destination, tmp_path: Path) -> None:
    """A score through Langfuse's client goes alone, as servers of 4.16 want it, and without the secret."""
    does = "get_client().create_score(name='good', value=1, session_id='s', comment='hunter2')"
    code = f"from langfuse import get_client\n{destination.bind}\n{does}\nassert rk.flush()\n"
    run_script(code, tmp_path, destination.environment)
    if destination.server is not None:
        assert [(score["name"], score["comment"]) for score in destination.server.scores] == [
            ("good", "[masked]")
        ]


def test_api_of_the_client_asks_the_right_server(destination: Destination, tmp_path: Path) -> None:
    """Synchronous, asynchronous and in links, the client found by Langfuse talks to the session's server."""
    code = f"""
import asyncio
from langfuse import get_client
{destination.bind}
client = get_client()
assert client.auth_check()
[project] = asyncio.run(client.async_api.projects.get()).data
with client.start_as_current_observation(name="block"):
    assert client.get_trace_url().startswith(f"{{rk.status().base_url}}/project/{{project.id}}/traces/")
"""
    run_script(code, tmp_path, destination.environment)
    destination.assert_arrived(["block"])


def test_first_observation_starts_the_store(tmp_path: Path) -> None:
    """Binding starts nothing; what is observed first starts the store, and has arrived at the end."""
    folder = tmp_path / "data"
    destination = Destination(session_id="first", environment={})
    code = f"""{OBSERVE}{destination.bind}
import pathlib, sys, threading
assert not pathlib.Path({str(folder)!r}).exists()
assert threading.active_count() == 1
step("hunter2")
"""
    run_script(code, tmp_path, {})
    destination.store = Observations(ensure_running(folder))
    destination.assert_arrived(["step"])
    stop_store(folder)


def test_binding_costs_nothing_before_the_first_use(with_keys: Destination, tmp_path: Path) -> None:
    """No library, thread or request, however often the session is bound."""
    code = f"""{with_keys.bind * 3}
import sys, threading
heavy = ("langfuse", "opentelemetry", "httpx", "wrapt", "pandas", "dspy", "mcp")
assert not [name for name in heavy if name in sys.modules]
assert threading.active_count() == 1
"""
    run_script(code, tmp_path, with_keys.environment)
    assert with_keys.server is not None
    assert with_keys.server.requests == []


@pytest.mark.parametrize("variable", ["LANGFUSE_TRACING_ENABLED=false", "OTEL_SDK_DISABLED=true"])
def test_tracing_that_is_off_stays_off(variable: str, with_keys: Destination, tmp_path: Path) -> None:
    """Nothing is sent and the status says why."""
    name, _, value = variable.partition("=")
    code = f"""{OBSERVE}{with_keys.bind}
import threading
step("hunter2")
assert rk.status().state == "disabled" and {name!r} in rk.status().reason, rk.status()
assert not [thread for thread in threading.enumerate() if thread.name.startswith("research-kit")]
"""
    run_script(code, tmp_path, {**with_keys.environment, name: value})
    assert with_keys.server is not None
    assert with_keys.server.requests == []


def test_unbinding_ends_it_and_binding_begins_again(with_keys: Destination, tmp_path: Path) -> None:
    """What is observed while nothing is bound is not sent by anybody, also when Langfuse comes first then."""
    code = f"""{OBSERVE}{with_keys.bind}
rk.unbind()
step("unbound hunter2")
{with_keys.bind}
step("hunter2")
rk.unbind()
step("unbound hunter2")
"""
    run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["step"])
    assert "unbound" not in with_keys.arrived(1)[0].text


ENDINGS = {
    "exit": ("import sys; step('hunter2'); sys.exit(3)", 3, ["step"]),
    "exception": ("step('hunter2'); raise ValueError('for the test')", 1, ["step"]),
    "inside": ("def fail(): raise SystemExit(4)\nobserve(name='step')(fail)()", 4, ["step"]),
    "thread": (
        "t = threading.Thread(target=lambda: (step('hunter2'), exit())); t.start(); t.join()",
        0,
        ["step"],
    ),
    "thread that stays": ("threading.Thread(target=step, args=('hunter2',)).start()", 0, ["step"]),
    "exit handler": ("step('1'); atexit.register(step, 'hunter2')", 0, ["step", "step"]),
    "framework": ("step('1'); trace.get_tracer_provider().shutdown(); step('hunter2')", 0, ["step", "step"]),
    "client": ("step('1'); get_client().shutdown(); step('hunter2')", 0, ["step", "step"]),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ended_is_delivered_however_the_script_ends(
    ending: str, with_keys: Destination, tmp_path: Path
) -> None:
    """No ending needs a flush."""
    does, returns, names = ENDINGS[ending]
    imports = "import atexit, threading\nfrom langfuse import get_client\nfrom opentelemetry import trace\n"
    run_script(
        f"{OBSERVE}{imports}{with_keys.bind}\n{does}\n", tmp_path, with_keys.environment, returns=returns
    )
    with_keys.assert_arrived(names)


def test_server_that_is_away_gets_it_later(with_keys: Destination, tmp_path: Path) -> None:
    """It waits on disk, masked, until another process finds the server."""
    away = {**with_keys.environment, "LANGFUSE_BASE_URL": "http://127.0.0.1:9"}
    run_script(f"{OBSERVE}{with_keys.bind}\nstep('hunter2')\n", tmp_path, away)
    spools = b"".join(path.read_bytes() for path in (tmp_path / "data" / "spool").rglob("*.spool"))
    assert b"[masked]" in spools
    assert SECRET.encode() not in spools
    run_script(
        f"{with_keys.bind}\nrk.score('s', 1)\nassert rk.flush()",
        tmp_path,
        with_keys.environment,
    )
    with_keys.assert_arrived(["step"])


CHILDREN = {
    **{
        method: f"""
process = multiprocessing.get_context({method!r}).Process(target=step, args=("hunter2",))
process.start(); process.join(); assert process.exitcode == 0
"""
        for method in ("spawn", "fork", "forkserver")
    },
    "pool": """
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
    list(pool.map(step, ["hunter2"]))
""",
    "workers": """
if not os.fork():
    step("hunter2")
    sys.exit()
os.wait()
""",
}
_MAIN = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import research_kit as rk
{observe}
if __name__ == "__main__":
    {bind}
    {does}
"""


def main_of(bind: str, does: str) -> str:
    return _MAIN.format(
        observe=OBSERVE, bind=bind.strip().replace("\n", "\n    "), does=does.replace("\n", "\n    ")
    )


@pytest.mark.parametrize("kind", CHILDREN)
def test_children_that_call_langfuse_alone_join_the_session(
    kind: str, with_keys: Destination, tmp_path: Path
) -> None:
    """The parent has bound and observed nothing; the child's first call is Langfuse's."""
    run_script(main_of(with_keys.bind, CHILDREN[kind]), tmp_path, with_keys.environment)
    with_keys.assert_arrived(["step"])


def test_child_that_cannot_mask_sends_nothing(with_keys: Destination, tmp_path: Path) -> None:
    """A mask that is a function does not reach a spawned child, which then records nothing."""
    bind = with_keys.bind.replace('mask=["hunter2"]', "mask=lambda text: text.replace('hunter2', 'X')")
    run_script(main_of(bind, CHILDREN["spawn"]), tmp_path, with_keys.environment)
    assert with_keys.server is not None
    assert with_keys.server.requests == []


def test_first_calls_side_by_side_all_arrive(destination: Destination, tmp_path: Path) -> None:
    """Langfuse's calls and ours begin in eight threads at once; none waits for another for ever."""
    code = f"""{OBSERVE}{destination.bind}
import threading
barrier = threading.Barrier(8)
def first(number):
    barrier.wait()
    if number % 2:
        step("hunter2")
    else:
        with rk.trace_span("span", input="hunter2"): pass
threads = [threading.Thread(target=first, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    run_script(code, tmp_path, destination.environment)
    destination.assert_arrived(["step"] * 4 + ["span"] * 4)


def test_asyncio_first_calls_all_arrive(with_keys: Destination, tmp_path: Path) -> None:
    """Tasks that begin side by side."""
    code = f"""
import asyncio
from langfuse import observe
{with_keys.bind}
@observe()
async def step(text): await asyncio.sleep(0)
async def main(): await asyncio.gather(*[step("hunter2") for _ in range(4)])
asyncio.run(main())
"""
    run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["step"] * 4)


PROVIDERS = {
    "set first": (PROVIDER + "trace.set_tracer_provider(provider)", ""),
    "set after binding": ("", PROVIDER + "trace.set_tracer_provider(provider)"),
    # As some libraries do, logfire among them.
    "wrapped": (
        PROVIDER
        + """
class Wrapper(trace.TracerProvider):
    def get_tracer(self, *args, **options): return provider.get_tracer(*args, **options)
    def __getattr__(self, name): return getattr(provider, name)
trace.set_tracer_provider(Wrapper())
""",
        "",
    ),
    "of the client": (
        "",
        PROVIDER + "from langfuse import Langfuse\nLangfuse(tracer_provider=provider)",
    ),
}


@pytest.mark.parametrize("kind", PROVIDERS)
def test_providers_of_other_libraries_keep_their_exporters(
    kind: str, with_keys: Destination, tmp_path: Path
) -> None:
    """Their own exporter gets its copy, the session's server one."""
    before, after = PROVIDERS[kind]
    check = "assert len(exporter.get_finished_spans()) == 1"
    code = f"{before}{with_keys.bind}\n{after}\n{OBSERVE}\nstep('hunter2')\n{check}\n"
    run = run_script(code, tmp_path, with_keys.environment)
    with_keys.assert_arrived(["step"])
    assert run.stderr == ""


@pytest.mark.parametrize("order", ["instrument first", "drop-in first"])
def test_drop_in_beside_an_instrumented_library_is_one_generation(
    order: str, with_keys: Destination, tmp_path: Path
) -> None:
    """OpenAI's library is observed in two ways, and each call counts once."""
    imports = "from langfuse.openai import OpenAI" + OPENAI
    instrument = "rk.instrument('openai')\n"
    parts = [instrument, imports] if order == "instrument first" else [imports, instrument]
    run_script(with_keys.bind + "\n".join(parts) + "\nask()\n", tmp_path, with_keys.environment)
    with_keys.assert_arrived(["OpenAI-generation"])


@pytest.mark.parametrize("where", DESTINATIONS)
@pytest.mark.parametrize("order", ["imported in the cell", "imported before"])
def test_kernels_do_it_in_their_first_cell(
    order: str, where: str, server: RecordingServer, tmp_path: Path
) -> None:
    """In a kernel, the cell becomes a trace around it."""
    environment = server.environment if where == "keys" else {}
    bind = Destination(session_id="kernel", environment={}).bind
    kernel = start_kernel(environment, tmp_path)
    if order == "imported before":
        kernel.run(OBSERVE)
    kernel.run(f"%load_ext research_kit\n{bind}")
    kernel.run(("" if order == "imported before" else OBSERVE) + "\nstep('hunter2')")
    end_kernel(kernel)
    store = None if where == "keys" else Observations(ensure_running(tmp_path / "data"))
    destination = Destination(
        session_id="kernel", environment={}, server=server if store is None else None, store=store
    )
    arrived = destination.arrived(2)
    stop_store(tmp_path / "data")
    assert [one.name.partition(" ")[0] for one in arrived] == ["cell", "step"]
    assert all(one.session_id == "kernel" and SECRET not in one.text for one in arrived)
