"""Recorded answers of language models and tools: the file, and which answer belongs to which call.

Owns the format, the key of a call and the search for the nearest one; does not know who calls. Invariants:
two processes give the same call the same key, whatever the order of dicts, and a file is replaced as a whole,
never half written.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from research_kit.errors import ConfigError
from research_kit.regression.sanitize import DEFAULT_SANITIZERS, sanitize_text

__all__ = ["Cassette", "RecordedCall", "call_key", "describe_nearest"]

_VERSION = 1
_HEADER = (
    "# Answers recorded by research-kit, replayed without network and keys.\n"
    "# Committed and reviewed like code; --record all writes it again.\n"
)
_DIFF_LINE_COUNT = 24
# How much of a call is compared to find the nearest one.
_COMPARED_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call and its answer.

    Attributes:
        kind: ``lm`` or ``mcp``.
        request: What was asked, as JSON values, without secrets.
        answer: What came back, as JSON values, without secrets.
    """

    kind: str
    request: Mapping[str, Any]
    answer: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What the call is found by."""
        return call_key(self.kind, self.request)


@dataclass(slots=True, kw_only=True)
class Cassette:
    """The calls of one file, in the order in which they were made.

    Attributes:
        path: The file.
        calls: Its calls.
    """

    path: Path
    calls: list[RecordedCall] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Cassette:
        """Read a file; one that does not exist has no calls.

        Raises:
            ConfigError: When it cannot be read, or is no cassette.
        """
        if not path.exists():
            return cls(path=path)
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
            if document["version"] != _VERSION:
                raise ValueError(f"it has version {document['version']!r}, not {_VERSION}")
            calls = [
                RecordedCall(kind=call["kind"], request=call["request"], answer=call["answer"])
                for call in document["calls"] or ()
            ]
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"Cannot read the cassette {str(path)!r}: {error}. Repair or restore the file, or delete it "
                "and record it again (--record all)."
            ) from error
        return cls(path=path, calls=calls)

    def save(self) -> None:
        """Replace the file.

        Raises:
            ConfigError: When it cannot be written.
        """
        calls = [{"kind": call.kind, "request": call.request, "answer": call.answer} for call in self.calls]
        text = yaml.dump(
            {"version": _VERSION, "calls": calls},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=110,
        )
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(_HEADER + text, encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ConfigError(
                f"Cannot write the cassette {str(self.path)!r}: {error.strerror}. Correct its folder."
            ) from error


def call_key(kind: str, request: Mapping[str, Any]) -> str:
    """Return what a call is found by: its content, without what differs from run to run.

    Dates with a time, ids, addresses, durations and temporary paths count as equal, as in outputs.
    """
    text = json.dumps(_plain_numbers(request), sort_keys=True, ensure_ascii=False)
    return f"{kind} {sanitize_text(text, DEFAULT_SANITIZERS)}"


def describe_nearest(kind: str, request: Mapping[str, Any], calls: Iterable[RecordedCall]) -> str:
    """Return the recorded call that is most like ``request``, and the lines in which they differ."""
    wanted = _lines(request)
    candidates = [call for call in calls if call.kind == kind]
    if not candidates:
        return "No call of this kind is recorded."
    nearest = max(candidates, key=lambda call: _likeness(wanted, _lines(call.request)))
    found = list(difflib.unified_diff(_lines(nearest.request), wanted, "recorded", "asked", n=1, lineterm=""))
    if len(found) > _DIFF_LINE_COUNT:
        found = [*found[:_DIFF_LINE_COUNT], f"... and {len(found) - _DIFF_LINE_COUNT} more lines"]
    return "The nearest recorded call differs in:\n" + "\n".join(found)


def _lines(request: Mapping[str, Any]) -> list[str]:
    text = yaml.dump(request, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=110)
    return sanitize_text(text, DEFAULT_SANITIZERS).splitlines()


def _likeness(wanted: list[str], recorded: list[str]) -> float:
    one, other = "\n".join(wanted)[:_COMPARED_CHARS], "\n".join(recorded)[:_COMPARED_CHARS]
    by_line = difflib.SequenceMatcher(None, wanted, recorded, autojunk=False).ratio()
    return by_line + difflib.SequenceMatcher(None, one, other).quick_ratio()


def _plain_numbers(value: Any) -> Any:
    """Write 0.0 as 0: whether somebody writes the point is no difference."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return value


_BaseLoader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: type[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_BaseLoader):  # type: ignore[misc]  # whichever class the platform has
    """Reads what `_Dumper` writes."""


class _Dumper(_BaseDumper):  # type: ignore[misc]  # whichever class the platform has
    """Writes texts of several lines as blocks, so that a person can read them."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value again instead of referring to it."""
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    if "\n" not in text:
        return dumper.represent_scalar(_TEXT_TAG, text)
    if not _BLOCK_BREAKER.search(text):
        return dumper.represent_scalar(_TEXT_TAG, text, style="|")
    return dumper.represent_sequence(_LINES_TAG, text.split("\n"), flow_style=False)


def _construct_lines(loader: Any, node: Any) -> str:
    return "\n".join(loader.construct_sequence(node))


_TEXT_TAG, _LINES_TAG = "tag:yaml.org,2002:str", "!lines"
# YAML writes a text with one of these in quotes and with escapes, which nobody can read.
_BLOCK_BREAKER = re.compile(r"[ \t]$|\A\s|[^\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]", re.MULTILINE)
_Dumper.add_representer(str, _represent_text)
_Loader.add_constructor(_LINES_TAG, _construct_lines)
