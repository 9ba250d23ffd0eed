"""``%chat`` and ``%%chat``: a question in a cell, its answer as the cell's output.

Owns the options, the variables in braces, and the output; the conversation is one per kernel and belongs to
the engine. Invariant: braces look up names, attributes and items of plain values, and never call anything
that the cell's author did not call.
"""

from __future__ import annotations

import argparse
import re
import shlex
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from html import escape
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote

from research_kit import session
from research_kit._words import duration_text
from research_kit.chat.engine import Conversation
from research_kit.chat.events import MessageFinished, Notice
from research_kit.chat.markdown import defuse_markdown, highlight_apart, render_markdown
from research_kit.chat.pages import page_address
from research_kit.chat.ui_format import usage_texts
from research_kit.chat.ui_messages import kept_text
from research_kit.errors import ConfigError
from research_kit.plain_text import plain_block

__all__ = ["CellAnswer", "ChatOptions", "ask_in_cell", "fill_in", "parse_options", "run_chat_magic"]

_MAX_VALUE_CHARACTERS = 2_000
_MAX_LINES = 40
# {name}, {name.attribute}, {name[0]}, {name["key"]}; doubled braces are braces.
_FIELD = re.compile(
    r"\{\{|\}\}|\{(?P<name>[^\W\d]\w*)(?P<path>(?:\.[^\W\d]\w*|\[-?\d+\]|\[\"[^\"\]]*\"\]|\['[^'\]]*'\])*)\}"
)
_STEP = re.compile(r"\.(?P<attribute>\w+)|\[(?P<number>-?\d+)\]|\[[\"'](?P<key>[^\"'\]]*)[\"']\]")
_USAGE = "%%chat [--lm NAME] [--new] [--raw] [--as NAME]"


class ChatOptions(NamedTuple):
    """What the line of a magic says.

    Attributes:
        lm: The language model of this and later questions; None keeps the one before.
        is_new: Whether earlier questions are forgotten.
        is_raw: Whether braces are text.
        variable: The variable that takes the text of the answer; None for none.
        question: The rest of the line.
    """

    lm: str | None
    is_new: bool
    is_raw: bool
    variable: str | None
    question: str


class CellAnswer:
    """An answer as the output of a cell: Markdown, with its figures below.

    Attributes:
        text: The answer as the model wrote it.
    """

    def __init__(
        self, event: MessageFinished, trace_address: str | None, notices: Sequence[str] = ()
    ) -> None:
        self.text = kept_text(event.answer)
        self._notices = [kept_text(notice) for notice in notices]
        self._facts = [*_figures(event)]
        is_web = trace_address is not None and trace_address.startswith(("http://", "https://"))
        self._trace_address = trace_address if is_web else None

    def __str__(self) -> str:
        """Return the text of the answer."""
        return self.text

    def __repr__(self) -> str:
        """Show text and figures where there is no HTML."""
        return plain_block("\n".join([self.text, "", *self._notices, " · ".join(self._facts)]))

    def _repr_html_(self) -> str:
        facts = [escape(fact) for fact in self._facts]
        if self._trace_address is not None:
            address = escape(self._trace_address)
            facts.append(f'<a href="{address}" target="_blank" rel="noopener noreferrer">trace</a>')
        style = "margin-top: .6em; font-size: .85em; opacity: .75"
        lines = "<br>".join([*map(escape, self._notices), " · ".join(facts)])
        return (
            f'<div style="overflow-wrap: anywhere">{highlight_apart(render_markdown(self.text))}'
            f'<div style="{style}">{lines}</div></div>'
        )

    def _repr_markdown_(self) -> str:
        facts = list(self._facts)
        if self._trace_address is not None:
            facts.append(f"[trace]({quote(self._trace_address, safe=':/?#=&%')})")
        notices = "".join(f"{defuse_markdown(notice)}\n\n" for notice in self._notices)
        return f"{defuse_markdown(self.text)}\n\n{notices}*{' · '.join(facts)}*"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"The options of the chat magic are not understood: {message}. Usage: {_USAGE}")


class _Current:
    """The conversation of the cells of this kernel."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.conversation: Conversation | None = None
        self.lm: str | None = None
        self.session_id: str | None = None


_current = _Current()


def parse_options(line: str) -> ChatOptions:
    """Read the options at the beginning of a magic's line; the rest is the question.

    Raises:
        ConfigError: When an option is not known.
    """
    parser = _Parser(prog="%%chat", add_help=False, allow_abbrev=False)
    parser.add_argument("--lm")
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--as", dest="variable")
    words, question = _split(line)
    found = parser.parse_args(words)
    if found.variable is not None and not found.variable.isidentifier():
        raise ConfigError(f"--as {found.variable!r} is no name of a variable. Give one, such as answer.")
    return ChatOptions(found.lm, found.new, found.raw, found.variable, question)


def fill_in(text: str, namespace: Mapping[str, Any]) -> str:
    """Return ``text`` with the values of ``{name}``, ``{name.attribute}`` and ``{name[key]}``.

    Nothing in braces is run as code; ``{{`` and ``}}`` are braces, and braces around anything else stay.
    Large values are shortened.

    Raises:
        ConfigError: When a name is not there, or a value has no such attribute or item.
    """

    def value_of(match: re.Match[str]) -> str:
        if match["name"] is None:
            return match[0][0]
        return _shown(_look_up(match, namespace))

    return _FIELD.sub(value_of, text)


def run_chat_magic(line: str, cell: str | None, namespace: MutableMapping[str, Any]) -> CellAnswer:
    """Run ``%chat line``, or ``%%chat line`` with a cell below it.

    Raises:
        ResearchKitError: When the question cannot be understood or answered.
    """
    options = parse_options(line)
    question = options.question if cell is None else f"{options.question}\n{cell}".strip()
    answer = ask_in_cell(question, options, namespace)
    if options.variable is not None:
        namespace[options.variable] = answer.text
    return answer


def ask_in_cell(text: str, options: ChatOptions, namespace: Mapping[str, Any]) -> CellAnswer:
    """Ask the conversation of this kernel's cells, and return the answer.

    Raises:
        ResearchKitError: When the question is empty or could not be answered.
    """
    conversation = _conversation(options)
    question = text if options.is_raw else fill_in(text, namespace)
    turn = conversation.send(question)
    event = turn.result()
    notices = [told.text for told in turn if isinstance(told, Notice)]
    address = page_address(trace_id=event.trace_id) if event.trace_id else None
    return CellAnswer(event, address, notices)


def _conversation(options: ChatOptions) -> Conversation:
    session.bind()
    with _current.lock:
        session_id = session.current_session_id()
        is_other = options.lm not in (None, _current.lm) or _current.session_id != session_id
        if _current.conversation is None or options.is_new or is_other:
            _current.lm = options.lm or _current.lm
            _current.session_id = session_id
            _current.conversation = Conversation(lm=_current.lm)
            if session.kernel_session().resumed_session_id == session_id and not options.is_new:
                _current.conversation.restore()
        return _current.conversation


def _split(line: str) -> tuple[list[str], str]:
    """Return the words of the options, and the question after them."""
    words: list[str] = []
    rest = line.strip()
    while rest.startswith("--"):
        takes_value = rest.startswith(("--lm ", "--as "))
        parts = rest.split(None, 2 if takes_value else 1)
        words += parts[: 2 if takes_value else 1]
        rest = parts[-1] if len(parts) > (2 if takes_value else 1) else ""
    return [shlex.split(word)[0] if word[:1] in "'\"" else word for word in words], rest


def _look_up(match: re.Match[str], namespace: Mapping[str, Any]) -> Any:
    name = match["name"]
    if name not in namespace:
        raise ConfigError(
            f"The question names {match[0]}, but no variable {name!r} is there. Define it, or write {{{{ and "
            "}} for braces, or use --raw."
        )
    value = namespace[name]
    for step in _STEP.finditer(match["path"]):
        value = _step_into(value, step, match[0])
    return value


def _step_into(value: Any, step: re.Match[str], field: str) -> Any:
    try:
        if step["attribute"] is not None:
            if step["attribute"].startswith("_"):
                raise AttributeError("names that begin with an underscore are private")
            return getattr(value, step["attribute"])
        return value[int(step["number"]) if step["number"] is not None else step["key"]]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The question names {field}, but {step[0]} cannot be taken of a {type(value).__name__}: {error}."
        ) from error


def _shown(value: Any) -> str:
    """Return a value as text that a question can carry."""
    text = value if isinstance(value, str) else _table_text(value)
    lines = text.split("\n")
    if len(lines) > _MAX_LINES:
        text = "\n".join([*lines[:_MAX_LINES], f"… {len(lines) - _MAX_LINES:,} more lines"])
    if len(text) > _MAX_VALUE_CHARACTERS:
        rest_count = len(text) - _MAX_VALUE_CHARACTERS
        text = f"{text[:_MAX_VALUE_CHARACTERS]}… {rest_count:,} more characters"
    return text


def _table_text(value: Any) -> str:
    shape = getattr(value, "shape", None)
    text = str(value)
    if isinstance(shape, tuple) and len(shape) == 2:
        return f"{type(value).__name__} of {shape[0]:,} rows and {shape[1]:,} columns:\n{text}"
    return text


def _figures(event: MessageFinished) -> list[str]:
    texts = usage_texts(event.usage)
    return [f"tokens {texts['tokens']}", f"cost {texts['cost']}", duration_text(event.latency_s)]
