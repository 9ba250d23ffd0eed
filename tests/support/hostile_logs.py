"""Texts that a terminal or a CI system would obey, and how to tell that it would.

Owns the texts and the check. Invariant: `breaches` knows nothing of the code that it checks.
"""

from __future__ import annotations

import re
import unicodedata

# Of each kind one, in one text, so that what follows the first is not saved by it.
HOSTILE = (
    "boom\n::error file=x::injected\n::add-mask::true\n  ::set-env name=PATH::x\r::warning::cr\r\n::debug"
    "::crlf\u2028::notice::ls\u2029::notice::ps\x85::notice::nel\x0b##[error]vt\x0c##vso[task.complete]ff\n"
    "x ##teamcity[buildStop]\nsection_start:1700000000:x\r\x1b[0Kgitlab\ntravis_fold:start:x\r\x1b[0K\n"
    "--- fold\n+++ fold\n~~~ fold\n^^^ +++\n\u3000\xa0::error::wide\n\x1b[2J\x1b]0;title\x07\x9b2J\x08\x7f"
    "\u202egnp.exe\u2066\u200b\ufeff\U000e0041 Z" + "\u0351" * 400 + "\n99 passed in 0.01s forged"
)
TEXTS = [
    "::add-mask::true",
    "x\n::error::x",
    "x\r::error::x",
    "x\u2028::error::x",
    "x\x85\x0b\x0c::error::x",
    "##[error]x",
    "##vso[task.complete]",
    "##teamcity[x]",
    "section_start:1:x\r\x1b[0K",
    "travis_fold:start:x\r",
    "--- fold",
    "+++ fold",
    "\x1b[2J\x1b]0;x\x07\x9b",
    "a\u202eb\u2066c\u200bd\ufeff",
    "a\ud83d\udcffb\ufffe\uffff",
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&",
    "@everyone [x](http://evil) ![y](http://evil/y.png) http://evil www.evil.com | `code` <http://evil> #1",
    "Z" + "\u0351\u035b" * 200,
    HOSTILE,
]
# A log is trimmed, or searched, line by line; what ends a line differs from system to system.
COMMAND = re.compile(r"^\s*::|^(?:---|\+\+\+|~~~|\^\^\^)\s|##\w*\[|(?:section|travis)_\w+:", re.IGNORECASE)
OWN_COMMAND = re.compile(r"::(?:error|warning) file=[^:,\r\n]+,title=[^:,\r\n]+::[^\r\n]*")
MAX_MARKS = 12
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\U000e0000-\U000e007f]")


def breaches(text: str) -> list[str]:
    """Return what a terminal or a CI system would obey in a text, or could not show."""
    return [*(line for line in text.splitlines() if COMMAND.search(line)), *character_breaches(text)]


def character_breaches(text: str) -> list[str]:
    """Return the characters of a text that act instead of being read."""
    odd = {char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")} - {"\n", "\t"}
    return [*map(ascii, odd), *map(ascii, TURNING.findall(text)), *_long_marks(text)]


def _long_marks(text: str) -> list[str]:
    runs = re.findall("[\u0300-\u036f]+", text)
    return [f"{len(run)} marks" for run in runs if len(run) > MAX_MARKS]


def log_breaches(output: bytes) -> list[str]:
    """Return the same of the complete output of a command, but for commands that are ours and encoded."""
    text = output.decode("utf-8")
    own = [line for line in text.split("\n") if line.startswith(("::error ", "::warning "))]
    assert [line for line in own if not OWN_COMMAND.fullmatch(line)] == []
    return breaches("\n".join(line.removeprefix("::") if line in own else line for line in text.split("\n")))
