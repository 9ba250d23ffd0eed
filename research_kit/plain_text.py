r"""Foreign text as it may be shown: at a terminal, in the log of a CI job, in a report, on a page.

Foreign is whatever this package did not word itself: outputs and errors of notebooks, file names, answers of
models, tools and servers. Owns which of its characters and lines are shown as they are, and how the others
are; HTML, XML and JSON still escape the result in their own way.

Invariant: the result has no character that moves a cursor, colours, reorders or hides what stands beside it,
and none that UTF-8 or XML cannot hold; no line of it is a command of a CI system. What was there can be read:
characters as ``\x1b`` or ``\u202e``, commands behind a backslash. Ordinary text of any script stays as it is,
and plain text made plain again is the same.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["plain_block", "plain_characters", "plain_lines", "plain_message", "plain_text", "quoted_lines"]

MAX_MARKS = 12
"""How many combining marks may follow each other: more than any script needs, and few enough to draw fast."""

_EMOJI = r"\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_SYMBOLS = rf"{_EMOJI}\u00a9\u00ae\u203c\u2049\u2122\u2139\u2460-\u25ff\u2900-\u297f\u3030\u303d\u3297\u3299"
_IDEOGRAPHS = r"\u2200-\u2aff\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RIGHT_TO_LEFT = r"\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc"
# Scripts in which a joiner changes the shape of a letter.
_JOINING = (
    r"\u0600-\u061b\u061d-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\u1a20-\u1aaf\u1b00-\u1bff\ua800-\uabff"
    r"\U00010a00-\U00011fff"
)

# Invisible characters where people use them: they only shape the character that they stand beside.
_ORDINARY = "|".join(
    (
        r"\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f",  # flags of regions
        rf"(?<=[{_EMOJI}])\ufe0f?\u200d(?=[{_EMOJI}])",
        rf"(?<=[{_SYMBOLS}])[\ufe0e\ufe0f]",
        r"(?<=[#*0-9])\ufe0f(?=\u20e3)",
        rf"(?<=[{_IDEOGRAPHS}\u1000-\u109f\ua840-\ua87f])[\ufe00-\ufe0f\U000e0100-\U000e01ef]",
        rf"(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])",
        rf"(?<=[{_RIGHT_TO_LEFT}])[\u034f\u061c\u200e\u200f]",
        rf"[\u061c\u200e\u200f](?=[ .,:;!?)]?[{_RIGHT_TO_LEFT}])",
        r"(?<=[\u1800-\u180a\u1810-\u18af])[\u180b-\u180f]",
    )
)
_NOT_CHARACTERS = "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(17))
# Controls, separators of lines and paragraphs, formats, fillers, directions, half characters, no characters.
_HIDDEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f"
    rf"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff{_NOT_CHARACTERS}"
)
# Looks at the character first: the rest is only for the few that are hidden.
_ORDINARY_OR_HIDDEN = re.compile(rf"(?=[\U0001f3f4{_HIDDEN}])(?:{_ORDINARY}|(?P<hidden>[{_HIDDEN}]))")
_LINE_END = re.compile(r"\r?\n")
_MAYBE_MARKS = re.compile(rf"[^\x00-\u02ff\w\s]{{{MAX_MARKS + 1},}}")
# GitHub's commands begin a line, whatever blanks are before them. The old ones, and those of Azure Pipelines
# and TeamCity, are found anywhere in it, as are the folds of GitLab and Travis.
_COMMAND = re.compile(
    r"^\s*(?=::)|#(?=#\w*\[)|(?:section_(?:start|end)|travis_(?:fold|time))(?=:)", re.IGNORECASE
)
# Buildkite folds what follows such a line, and does nothing else.
_FOLD = re.compile(r"^(?=(?:---|\+\+\+|~~~|\^\^\^)\s)")


def plain_text(text: str) -> str:
    r"""Return ``text`` on one line: a name, a path, a message; what ends lines is shown as ``\n``."""
    line = plain_characters(text)
    return _without_commands(line.replace("\n", r"\n").replace("\t", r"\t"))


def plain_lines(text: str) -> list[str]:
    """Return the lines of ``text``, each fit to begin a line of a log; tabs stay."""
    return plain_block(text).removesuffix("\n").split("\n")


def plain_block(text: str) -> str:
    """Return ``text`` with its lines, each fit to begin a line of a log."""
    return "\n".join(map(_without_commands, plain_characters(text).split("\n")))


def plain_message(text: str) -> str:
    """Return the text of an error with its lines; the marks of a diff stay, which fold a log at most."""
    return "\n".join(_COMMAND.sub(r"\g<0>\\", line) for line in plain_characters(text).split("\n"))


def quoted_lines(text: str) -> list[str]:
    """Return the lines of ``text`` behind a bar, so that nobody takes them for lines of ours."""
    lines = plain_characters(text).removesuffix("\n").split("\n")
    return [_without_commands(f"  | {line}" if line else "  |") for line in lines]


def plain_characters(text: str) -> str:
    """Return ``text`` with its lines and tabs, for places that read no commands, such as HTML."""
    if text.isascii() and text.isprintable():
        return text
    lines = _LINE_END.sub("\n", text)
    return _with_few_marks(_ORDINARY_OR_HIDDEN.sub(_shown, lines))


def _shown(match: re.Match[str]) -> str:
    hidden = match["hidden"]
    return ascii(hidden)[1:-1] if hidden else match[0]


def _without_commands(line: str) -> str:
    return _FOLD.sub(r"\\", _COMMAND.sub(r"\g<0>\\", line))


def _with_few_marks(text: str) -> str:
    return text if text.isascii() else _MAYBE_MARKS.sub(_cap_marks, text)


def _cap_marks(match: re.Match[str]) -> str:
    kept, run = [], 0
    for char in match[0]:
        run = run + 1 if unicodedata.category(char).startswith("M") else 0
        if run <= MAX_MARKS:
            kept.append(char)
        elif run == MAX_MARKS + 1:
            kept.append("…")
    return "".join(kept)
