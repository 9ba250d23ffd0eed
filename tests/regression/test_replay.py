"""Language model and tool calls recorded to a cassette, and replayed from it with nothing to connect to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
import yaml
from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer
from scripted_lm import ScriptedLM, adapter_reply, running_lm

import research_kit as rk
from research_kit.agent import ToolServer, resolve_lm
from research_kit.config import load_settings
from research_kit.errors import ConfigError
from research_kit.regression import CassetteMissError
from research_kit.regression.cassette import Cassette, RecordedCall, call_key

KEY = "sk-" + "a1b2c3d4" * 6
SERVER = Path(__file__).parents[1] / "agent" / "stdio_server.py"
STDIO = StdioServerParameters(command=sys.executable, args=[str(SERVER)])
PREDICT = dspy.Predict("question -> answer")
# Nothing listens there: a call that is not replayed fails.
NOWHERE = {"api_base": "http://127.0.0.1:9/v1", "api_key": KEY, "num_retries": 0}


@pytest.fixture
def scripted() -> Iterator[ScriptedLM]:
    with running_lm() as server:
        yield server
        server.finish()


def model(scripted: ScriptedLM | None, **options: Any) -> dspy.LM:
    place = NOWHERE if scripted is None else {"api_base": scripted.base_url, "api_key": KEY}
    return dspy.LM("openai/gpt-4o-mini", **{**place, **options})


def ask_in_every_way(lm: dspy.LM) -> list[Any]:
    """Call a model as programs do: plain, async, threaded, streamed, several candidates, repeated."""

    async def gathered() -> list[str]:
        calls = [PREDICT.acall(question=question) for question in ("two", "three")]
        return [found.answer for found in await asyncio.gather(*calls)]

    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    streamed = dspy.streamify(PREDICT, stream_listeners=[listener], async_streaming=False)
    parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        return [
            PREDICT(question="one").answer,
            asyncio.run(gathered()),
            [
                found.answer
                for found in parallel([(PREDICT, {"question": name}) for name in ("four", "five")])
            ],
            [getattr(chunk, "chunk", None) for chunk in streamed(question="six")],
            lm("seven", n=2),
            [lm("eight", cache=False), lm("eight", cache=False)],
            [lm("nine"), lm("nine")],
            lm(dspy.lm15.Request(model=lm.model, messages=(dspy.lm15.Message.user("ten"),))).message.text,
        ]


def accounts(lm: dspy.LM) -> list[Any]:
    return sorted(
        (entry["usage"].get("total_tokens") or 0, entry["cost"], entry["response_model"])
        for entry in lm.history
    )


def test_replay_equals_what_was_recorded(scripted, tmp_path):
    """However a model is called, the replay gives answers, chunks, usage and cost; it connects to nothing."""
    path = tmp_path / "cassettes" / "all.yaml"
    same = adapter_reply(answer="the same words")
    scripted.script(*[same] * 6, "left", "right", "first", "second", "once", "typed")
    recording, replaying = model(scripted), model(None)
    with rk.replaying(path, record="all") as player, dspy.track_usage() as used:
        recorded = ask_in_every_way(recording)
    assert (player.recorded_count, player.replayed_count) == (11, 0)
    with rk.replaying(path) as player, dspy.track_usage() as used_again:
        replayed = ask_in_every_way(replaying)
    assert replayed == recorded
    assert recorded[3] == ["the", " same", " words", None]
    assert recorded[4:7] == [["left", "right"], [["first"], ["second"]], [["once"], ["once"]]]
    assert (player.replayed_count, player.unused_count, player.misses) == (11, 0, [])
    assert accounts(replaying) == accounts(recording)
    assert used_again.get_total_tokens() == used.get_total_tokens()
    assert len(scripted.requests) == 12


def test_cassette_is_readable_and_holds_no_secret(scripted, tmp_path, monkeypatch):
    """A cassette is YAML whose texts stand line by line, and keys are not in it, wherever they came from."""
    monkeypatch.setenv("SERVICE_TOKEN", "hunter2-hunter2-hunter2")
    scripted.script(f"Do not tell {KEY}.\nNor hunter2-hunter2-hunter2.")
    path = tmp_path / "one.yaml"
    with rk.replaying(path, record="all"):
        model(scripted)("Use hunter2-hunter2-hunter2 \nand be quick.")
    text = path.read_text(encoding="utf-8")
    assert "hunter2" not in text
    assert KEY not in text
    assert scripted.base_url not in text
    assert "prompt: !lines\n    - 'Use [masked] '\n    - and be quick.\n" in text
    assert "    - |-\n      Do not tell [masked].\n      Nor [masked].\n" in text
    with rk.replaying(path):
        assert model(None)("Use hunter2-hunter2-hunter2 \nand be quick.") == [
            "Do not tell [masked].\nNor [masked]."
        ]


def test_local_model_is_not_started_to_be_replayed(tmp_path):
    """Getting it ready, as a chat does first of all, starts nothing where nothing may be called."""
    with rk.replaying(tmp_path / "none.yaml"):
        resolve_lm("local", settings=load_settings({"RESEARCH_KIT_CACHE_DIR": str(tmp_path)})).lm.start()
    assert not (tmp_path / "local-lm").exists()


def test_miss_names_the_nearest_call_and_its_lines(scripted, tmp_path):
    """A call that is not recorded is an error with the nearest recorded one, the lines, and what to do."""
    scripted.script(adapter_reply(answer="yes"), "x")
    path = tmp_path / "near.yaml"
    with rk.replaying(path, record="all"), dspy.context(lm=model(scripted)):
        PREDICT(question="Is the mean above 3?")
        dspy.settings.lm("unrelated")
    with (
        rk.replaying(path) as player,
        dspy.context(lm=model(None)),
        pytest.raises(
            CassetteMissError, match=r"cannot be replayed from .*near\.yaml': it is not recorded"
        ) as info,
    ):
        PREDICT(question="Is the mean above 4?")
    lines = str(info.value).splitlines()
    assert [line.strip() for line in lines if line.startswith(("-", "+"))][2:] == [
        "-    Is the mean above 3?",
        "+    Is the mean above 4?",
    ]
    assert lines[-1].endswith("record it: --record missing (rk.replaying(..., record='missing')).")
    assert player.misses == [str(info.value)]


def test_record_missing_adds_only_what_is_not_there(scripted, tmp_path):
    """`missing` keeps what is recorded and asks for the rest; `all` replaces, in the order of the file."""
    path = tmp_path / "some.yaml"
    scripted.script("1", "2", "3", "2 again", "3 again")

    def ask(*questions: str, record: str) -> list[str]:
        with rk.replaying(path, record=record):
            return [model(scripted)(question)[0] for question in questions]

    assert ask("a", "b", record="all") == ["1", "2"]
    assert ask("c", "a", record="missing") == ["3", "1"]
    assert [call.request["prompt"] for call in Cassette.load(path).calls] == ["a", "b", "c"]
    assert ask("c", "b", record="all") == ["2 again", "3 again"]
    assert [call.answer["outputs"] for call in Cassette.load(path).calls] == [["3 again"], ["2 again"]]
    with (
        rk.replaying(path),
        pytest.raises(CassetteMissError, match=r"recorded 1 time\(s\), and this is one more"),
    ):
        [model(None, cache=False)("c") for _ in range(2)]


def test_a_failed_block_keeps_what_it_did_not_come_to(scripted, tmp_path):
    """Recording anew, a block that fails half way loses nothing: what it did not ask again is kept."""
    path = tmp_path / "half.yaml"
    scripted.script("1", "2", "1 again")
    with rk.replaying(path, record="all"):
        [model(scripted)(question) for question in ("a", "b")]
    with pytest.raises(ZeroDivisionError), rk.replaying(path, record="all"):
        _ = 1 / len(model(scripted)("a")[1:])
    assert [call.answer["outputs"] for call in Cassette.load(path).calls] == [["1 again"], ["2"]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"text": "at 2026-01-02 03:04"}, {"text": "at 2027-11-12 13:14"}),
        ({"text": "<A object at 0x7f13d92e1980>"}, {"text": "<A object at 0x10aa>"}),
        ({"text": "/tmp/a1/out.csv"}, {"text": "/tmp/b2/out.csv"}),
    ],
    ids=["order", "number", "timestamp", "address", "folder"],
)
def test_key_leaves_out_what_differs_by_run(one, other):
    """What differs from run to run is no part of the key; what is asked is."""
    assert call_key("lm", one) == call_key("lm", other)
    assert call_key("lm", one) != call_key("lm", {**one, "more": 1})
    assert call_key("lm", one) != call_key("mcp", one)


def test_key_is_the_same_in_every_process(tmp_path):
    """Hash seeds of processes do not reach the key."""
    code = (
        "from research_kit.regression.replay_lm import _as_json\n"
        "from research_kit.regression.cassette import call_key\n"
        "print(call_key('lm', _as_json({'stop': {'b', 'a', 'c'}, 'x': (1, 2)})))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert keys == {'lm {"stop": ["a", "b", "c"], "x": [1, 2]}\n'}


def call_tools(server: ToolServer) -> list[Any]:
    async def directly() -> Any:
        async with Client(STDIO) as client:
            return (await client.call_tool("process_id", {})).structured_content

    drawn = server.call_tool("draw")
    failed = server.call_tool("fail")
    [tool] = [tool for tool in server.list_tools() if tool.name == "add"]
    return [
        server.call_tool("add", {"a": 1, "b": 2}).structured,
        (drawn.text, drawn.images),
        (failed.is_error, failed.text),
        tool.input_schema,
        asyncio.run(directly()),
    ]


def test_tool_calls_are_replayed_without_starting_the_server(tmp_path, monkeypatch):
    """MCP calls, through our client or MCP's own, give the recorded answers; no server is started."""
    path = tmp_path / "tools.yaml"
    server = ToolServer("practice", STDIO)
    with rk.replaying(path, record="all"):
        recorded = call_tools(server)
    server.close()
    gone = StdioServerParameters(command="/nowhere/python3", args=[f"/elsewhere/{SERVER.name}"])
    monkeypatch.setitem(globals(), "STDIO", gone)
    with rk.replaying(path) as player:
        again = ToolServer("practice", gone)
        assert call_tools(again) == recorded
        again.close()
        with pytest.raises(CassetteMissError, match=r"A tool call cannot be replayed(.|\n)*\+ +a: 2"):
            asyncio.run(call_directly("add", {"a": 2, "b": 2}))
    assert player.unused_count == 0
    assert recorded[2] == (True, "Error executing tool fail: the drawer is empty")


async def call_directly(name: str, arguments: dict[str, Any]) -> Any:
    async with Client(STDIO) as client:
        return await client.call_tool(name, arguments)


def test_the_kernels_own_server_is_not_replayed(tmp_path):
    """What the built-in server says about the variables is a result; other servers are replayed."""
    calls: list[str] = []

    def serve(name: str) -> MCPServer[None]:
        server: MCPServer[None] = MCPServer(name)

        @server.tool()
        def look() -> int:
            calls.append(name)
            return len(calls)

        return server

    async def look(name: str) -> Any:
        async with Client(serve(name)) as client:
            return (await client.call_tool("look", {})).structured_content

    path = tmp_path / "own.yaml"
    for record in ("all", "none"):
        with rk.replaying(path, record=record):
            asyncio.run(look("kernel"))
            assert asyncio.run(look("other")) == {"result": 2}
    assert calls == ["kernel", "other", "kernel"]


def test_replayed_latency_is_the_recorded_one(tmp_path):
    """On request a replayed answer takes its time."""
    request = {"model": "openai/gpt-4o-mini", "prompt": "wait", "parameters": {}}
    answer = {"outputs": ["a b"], "usage": {}, "cost_usd": None, "response_model": "m", "latency_s": 0.3}
    path = tmp_path / "slow.yaml"
    Cassette(path=path, calls=[RecordedCall(kind="lm", request=request, answer=answer)] * 2).save()
    took = []
    for replays_latency in (True, False):
        with rk.replaying(path, replays_latency=replays_latency) as player:
            lm = model(None, cache=False)
            seen = Watch()
            with dspy.context(callbacks=[seen]):
                assert lm("wait") == ["a b"]
            took.append(seen.took_s)
            assert player.replays_latency is replays_latency
    assert took[0] >= 0.3 > took[1]


class Watch(dspy.utils.callback.BaseCallback):
    """Measures the calls of a model as an observer sees them."""

    took_s = 0.0

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.took_s -= asyncio.new_event_loop().time()

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.took_s += asyncio.new_event_loop().time()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version: 9\ncalls: []\n", "it has version 9, not 1"),
        ("calls: [", "Repair or restore the file"),
        ("version: 1\ncalls: [{kind: lm}]\n", "'request'"),
    ],
)
def test_unusable_cassettes_are_refused(tmp_path, content, message):
    """A damaged file is an error with its name and a remedy, not an empty cassette."""
    path = tmp_path / "bad.yaml"
    path.write_text(content, encoding="utf-8")
    with (
        pytest.raises(ConfigError, match=rf"Cannot read the cassette .*bad\.yaml(.|\n)*{message}"),
        rk.replaying(path),
    ):
        raise AssertionError("not reached")


def test_replaying_refuses_what_it_cannot_do(tmp_path):
    """A wrong mode, and a second cassette in one process, are refused."""
    with pytest.raises(ConfigError, match=r"record is 'some'\. Use one of: missing, all, none"):
        rk.replaying(tmp_path / "a.yaml", record="some").__enter__()
    with (
        rk.replaying(tmp_path / "a.yaml"),
        pytest.raises(ConfigError, match=r"a\.yaml' is in use in this process"),
    ):
        rk.replaying(tmp_path / "b.yaml").__enter__()
    assert "RESEARCH_KIT_REPLAYING" not in os.environ


def test_cassette_keeps_every_text(tmp_path):
    """Whatever a text consists of, it is read as it was written."""
    texts = [
        "a\nb",
        "a \nb",
        "  x\ny",
        "x\n\n",
        "\n",
        "tab\t\n",
        "é\n☃\n🎉",
        "a\r\nb",
        "\x1b[0m\nz",
        "- a\n# b",
        "null",
        "",
    ]
    path = tmp_path / "texts.yaml"
    Cassette(path=path, calls=[RecordedCall(kind="lm", request={"texts": texts}, answer={})]).save()
    assert Cassette.load(path).calls[0].request["texts"] == texts
    assert yaml.compose(path.read_text(encoding="utf-8")) is not None
