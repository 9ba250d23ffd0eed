"""``%chat`` and ``%%chat``: options, variables in braces, and the answer as an output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from scripted_lm import ScriptedLM, adapter_reply, running_lm

import research_kit as rk
from research_kit.chat.cell_chat import CellAnswer, fill_in, parse_options
from research_kit.chat.events import MessageFinished, Usage
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.store import stop_store

NAMESPACE: dict[str, Any] = {
    "n": 3,
    "name": "Ann {n}",
    "table": {"a": [10, 20], "b c": {"d": 5}},
    "place": SimpleNamespace(city="Oslo"),
    "_": "hidden",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{n} rows", "3 rows"),
        ("{name}", "Ann {n}"),
        ("{table['a'][1]} {table[\"b c\"]['d']} {table['a'][-2]}", "20 5 10"),
        ("{place.city}", "Oslo"),
        ("{{n}} and {{}}", "{n} and {}"),
        (
            "a {} b {1} {n+1} {n!r} {n:>9} {f(n)} {table[n]}",
            "a {} b {1} {n+1} {n!r} {n:>9} {f(n)} {table[n]}",
        ),
        ('{"json": [1, 2]}', '{"json": [1, 2]}'),
        ("{ n }", "{ n }"),
    ],
)
def test_fill_in_takes_names_and_paths_only(text: str, expected: str) -> None:
    """Names, attributes and items are filled in; whatever else stands in braces stays text."""
    assert fill_in(text, NAMESPACE) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{missing}", "no variable 'missing' is there"),
        ("{place.town}", r"\.town cannot be taken of a SimpleNamespace"),
        ("{table['x']}", r"\['x'\] cannot be taken of a dict"),
        ("{n[0]}", r"\[0\] cannot be taken of a int"),
        ("{place.__class__}", "underscore are private"),
    ],
)
def test_fill_in_explains_what_is_not_there(text: str, problem: str) -> None:
    """A name or a step that leads nowhere is an error that names it."""
    with pytest.raises(ConfigError, match=problem):
        fill_in(text, NAMESPACE)


def test_fill_in_shortens_large_values() -> None:
    """A large frame or text does not fill the question."""
    frame = pd.DataFrame({"x": range(100_000)})
    filled = fill_in("{frame} {text} {lines}", {"frame": frame, "text": "y" * 5000, "lines": "z\n" * 300})
    assert "DataFrame of 100,000 rows and 1 columns" in filled
    assert "3,000 more characters" in filled
    assert "261 more lines" in filled
    assert len(filled) < 4_000


def test_parse_options_leaves_the_question() -> None:
    """Options come first, in any order; the rest of the line is the question, dashes included."""
    options = parse_options("--new --lm ollama_chat/qwen3 --as reply why --not 'this'?")
    assert options == ("ollama_chat/qwen3", True, False, "reply", "why --not 'this'?")
    assert parse_options("what's up?").question == "what's up?"
    assert parse_options("--raw").is_raw


@pytest.mark.parametrize(
    ("line", "problem"),
    [("--lmm x", "not understood"), ("--as 2x why", "no name of a variable"), ("--lm", "not understood")],
)
def test_parse_options_explains_mistakes(line: str, problem: str) -> None:
    """A misspelt option is named, with the options there are."""
    with pytest.raises(ConfigError, match=problem):
        parse_options(line)


def test_cell_answer_is_harmless_and_holds_no_secret() -> None:
    """The output shows sanitised Markdown and its figures; an address that is none becomes no link."""
    event = MessageFinished(
        answer="**3** <script>x</script> ![p](http://evil.example/p.png)",
        usage=Usage(input_tokens=10, output_tokens=2, cost_usd=0.5),
        latency_s=1.2,
        trace_id="t1",
    )
    html = CellAnswer(event, 'javascript:"x')._repr_html_()
    assert "<strong>3</strong>" in html
    assert "<script" not in html
    assert "<img" not in html
    assert "javascript:" not in html
    assert "tokens 10 in · 2 out · cost $0.50 · 1.20 s" in html


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InteractiveShell]:
    # Before the extension is loaded: a process that has sent traces before would start a store for these.
    monkeypatch.setenv("LANGFUSE_TRACING_ENABLED", "false")
    shell = InteractiveShell.instance()
    shell.extension_manager.load_extension("research_kit")
    yield shell
    shell.extension_manager.unload_extension("research_kit")
    InteractiveShell.clear_instance()
    assert not stop_store(tmp_path / "data"), "a chat without traces has started a store"


QUESTIONS = [
    "Which islands?",
    "{n}?",
    "Why??",
    "What's {table['a'][1]} ?  ",
    "Is 'a' it?",
    "How many (of (them?",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_mark_asks_the_assistant(shell: InteractiveShell, question: str) -> None:
    """IPython takes a line that ends in a question mark for a request for help; this one is a question."""
    asked = f"get_ipython().run_line_magic('chat', {question.rstrip(' ')!r})\n"
    assert shell.transform_cell(f"%chat {question}") == asked
    around = shell.transform_cell(f"x = 1\nif x:\n    %chat {question}\ny = 2")
    assert around == f"x = 1\nif x:\n    {asked}y = 2\n"
    assert shell.transform_cell(f"said = %chat {question}") == f"said = {asked}"


@pytest.mark.parametrize("source", ["%chat?", "%chat??", "len?", 'x = """\n%chat really?\n"""'])
def test_other_question_marks_mean_what_they_meant(shell: InteractiveShell, source: str) -> None:
    """Help on the magic and on anything else is still help, and a string stays what it is."""
    with_ours = shell.transform_cell(source)
    shell.extension_manager.unload_extension("research_kit")
    assert shell.transform_cell(source) == with_ours


def test_chat_magics_answer_and_remember(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line and the cell magic talk to one conversation; unloading removes both."""
    with running_lm() as server:
        configure(monkeypatch, server)
        for text in ("There are 3.", "As I said."):
            server.script(
                adapter_reply(next_thought="I know.", next_tool_name="finish", next_tool_args="{}"),
                adapter_reply(reasoning="I know.", answer=text),
            )
        shell.user_ns["n"] = 3
        first = shell.run_cell(
            f"%chat --new Are there {{n}}, {{n + 1}} or {{{{n}}}} for $5 at {server.base_url}?"
        ).result
        assert first.text == "There are 3."
        shell.run_cell("%%chat --as reply\nAre you\nsure?")
        assert shell.user_ns["reply"] == "As I said."
        asked = str(server.requests[-1]["messages"])
        assert "Are there 3, {n + 1} or {n} for $5 at http" in asked
        assert "There are 3." in asked
        with pytest.raises(ResearchKitError, match="is empty"):
            shell.run_line_magic("chat", "")
        server.finish()
    rk.unload_ipython_extension(shell)
    assert "chat" not in shell.magics_manager.magics["line"]


def configure(monkeypatch: pytest.MonkeyPatch, server: ScriptedLM) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("RESEARCH_KIT_LM", "openai/scripted-model")
    monkeypatch.setenv("RESEARCH_KIT_LM_BASE_URL", server.base_url)


def test_answer_of_a_cell_is_html_and_markdown_with_its_figures() -> None:
    """Jupyter shows the HTML, converters to other forms the Markdown; both have figures and link, no more."""
    text = "**Yes** <b>\n\n```python\nif a < b: pass\n```\n\n![x](http://evil.example/x.png)"
    event = MessageFinished(answer=text, usage=Usage(input_tokens=7), latency_s=1.0, trace_id="t")
    answer = CellAnswer(event, "http://127.0.0.1:1/traces/t")
    html, markdown = answer._repr_html_(), answer._repr_markdown_()
    assert '<pre class="highlight"><code class="language-python"><span class="k">if</span>' in html
    assert "<img" not in html
    assert markdown.startswith("**Yes** &lt;b>\n\n```python\nif a < b: pass\n```\n\n\\![x](")
    assert markdown.endswith("1.00 s · [trace](http://127.0.0.1:1/traces/t)*")
    assert "trace" not in CellAnswer(event, "javascript:alert(1)")._repr_html_()
