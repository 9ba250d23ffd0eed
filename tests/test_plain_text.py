"""Foreign text as it may be shown: what stays, what is escaped, and what no input gets through."""
# ruff: noqa: RUF001 - other scripts are the point

from __future__ import annotations

import random
import re
import unicodedata

import pytest

from research_kit.plain_text import (
    MAX_MARKS,
    plain_block,
    plain_characters,
    plain_lines,
    plain_text,
    quoted_lines,
)

# A log that a CI system reads: the line is trimmed, or searched.
COMMAND = re.compile(
    r"^\s*::|^(?:---|\+\+\+|~~~|\^\^\^)\s|##\w*\[|section_(?:start|end):|travis_(?:fold|time):", re.IGNORECASE
)
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}

ORDINARY = [
    "plain words, numbers 1.5e-3, paths C:\\temp\\x and a\\nb",
    "naïve café, Übergröße, Ærøskøbing, ĳ ǆ",
    "cafe\u0301 e\u0302\u0301 a\u0328\u0301",
    "Tiếng Việt, Ελληνικά, Русский, ქართული, հայերեն",
    "日本語 中文 한국어 葛\U000e0100城 \u3000全角",
    "שלום עולם שָׁלוֹם וְהָאָ֗רֶץ",
    "مرحبا بالعالم می\u200cخواهم \u0600\u06dd \u200fعربي C++\u200f عربي",
    "हिन्दी क्\u200dष தமிழ் ไทย ภาษา བོད་ཡིག မြန်မာ",
    "👍🏽 👩\u200d🔬 👩\u200d👩\u200d👧 🏳️\u200d🌈 ❤️ ☀︎ 1️⃣ #️⃣ 🇩🇪",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "┌─┐│ █▓▒░ ⠿⠀⠇ → ≥ – … “x” «y» × µ ℝ ∑ \U0001d4d0",
    "\N{NO-BREAK SPACE}indented by no-break space",
    "std::vector<int> x; a[::2]; tests/a.py::test; .. note:: rst; a :: b",
    "# Title",
    "## Section", "### [link](x)", "---", "- a", "-- sql", "++i", "#[derive(Debug)]", "item #1 [x]",
    "a,b;c|d\"e'f<g>h&i%25", "https://example.org/?q=1#x", "100 %", "[1/2] passed", "section_started: x",
]  # fmt: skip

HIDDEN = [
    ("a\x1b[2Jb", r"a\x1b[2Jb"),
    ("a\x1b]8;;http://x\x07b", r"a\x1b]8;;http://x\x07b"),
    ("a\x9b31mb\x90q", r"a\x9b31mb\x90q"),
    ("a\x00\x08\x7fb", r"a\x00\x08\x7fb"),
    ("a\rb", r"a\rb"),
    ("a\nb\r\nc", r"a\nb\nc"),
    ("a\tb", r"a\tb"),
    ("a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b", r"a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b"),
    ("gpj\u202etxt.exe", r"gpj\u202etxt.exe"),
    ("\u2066a\u2067b\u2068c\u2069", r"\u2066a\u2067b\u2068c\u2069"),
    ("\u202ad\u202be\u202cf\u202dg", r"\u202ad\u202be\u202cf\u202dg"),
    ("a\u200eb\u200fc\u061cd", r"a\u200eb\u200fc\u061cd"),
    ("pay\u200bpal\u200c\u200d\u2060\ufeff\u00ad", r"pay\u200bpal\u200c\u200d\u2060\ufeff\xad"),
    ("a\u115f\u3164\uffa0b\u034f\u180e", r"a\u115f\u3164\uffa0b\u034f\u180e"),
    ("a\ufe0fb\U000e0101", r"a\ufe0fb\U000e0101"),
    ("hi\U000e0041\U000e0042", r"hi\U000e0041\U000e0042"),
    ("a\ud83d\udcffb", r"a\ud83d\udcffb"),
    ("a\ufffe\uffff\ufdd0\U0010ffffb", r"a\ufffe\uffff\ufdd0\U0010ffffb"),
    ("❤\ufe0f\ufe0f", "❤\ufe0f" + r"\ufe0f"),
    ("Z" + "\u0351" * 400, "Z" + "\u0351" * MAX_MARKS + "…"),
]  # fmt: skip

COMMANDS = [
    ("::add-mask::true", r"\::add-mask::true"),
    ("  \t::error file=x::y", None),
    ("\u3000\xa0\u2003::warning::y", "\u3000\xa0\u2003\\::warning::y"),
    ("::", r"\::"),
    ("##[error]x", r"#\#[error]x"),
    ("said ###[command]x", r"said ##\#[command]x"),
    ("a ##vso[task.setvariable variable=x]y", r"a #\#vso[task.setvariable variable=x]y"),
    ("a ##TeamCity[buildStatus text='x']", r"a #\#TeamCity[buildStatus text='x']"),
    ("section_start:1700000000:x\r\x1b[0Kx", r"section_start\:1700000000:x\r\x1b[0Kx"),
    ("travis_fold:start:x\r", r"travis_fold\:start:x\r"),
    ("--- group", r"\--- group"),
    ("+++ group", r"\+++ group"),
    ("~~~ group", r"\~~~ group"),
    ("^^^ +++", r"\^^^ +++"),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """What people write in any script is shown as they wrote it."""
    assert plain_text(text) == text
    assert plain_lines(text) == [text]
    assert plain_characters(text) == text


@pytest.mark.parametrize(("text", "shown"), HIDDEN, ids=[ascii(text)[:30] for text, _ in HIDDEN])
def test_what_hides_or_moves_is_shown(text: str, shown: str) -> None:
    """Characters that act on a terminal or on the reader stand there as escapes."""
    assert plain_text(text) == shown


@pytest.mark.parametrize(("text", "shown"), COMMANDS, ids=[ascii(text)[:30] for text, _ in COMMANDS])
@pytest.mark.parametrize("before", ["", "boom\n", "boom\r\n", "boom\r", "boom\u2028", "boom\x85", "boom\x0b"])
def test_no_line_is_a_command(before: str, text: str, shown: str | None) -> None:
    """A command is broken by a backslash, at the start of the text and after anything that ends a line."""
    if not before and shown is not None:
        assert plain_text(text) == shown
    for lines in ([plain_text(before + text)], plain_lines(before + text), quoted_lines(before + text)):
        for line in "\n".join(lines).splitlines():
            assert not COMMAND.search(line), line


def test_lines_of_a_block_stay_lines() -> None:
    """Line feeds of either kind end lines, tabs and empty lines stay, and the last line feed adds no line."""
    assert plain_lines("a\r\n\n\tb  \r\n") == ["a", "", "\tb  "]
    assert plain_block("a\n\nb") == "a\n\nb"
    assert plain_lines("") == [""]


def test_a_quoted_line_is_behind_a_bar() -> None:
    """Nobody takes a quoted line for one of ours, and a diff needs no escapes there."""
    assert quoted_lines("--- expected\n::error::x\n\n3 passed") == [
        "  | --- expected",
        "  | ::error::x",
        "  |",
        "  | 3 passed",
    ]


@pytest.mark.parametrize("seed", range(200))
def test_nothing_gets_through(seed: int) -> None:
    """Whatever the mixture, the result is safe, can be encoded, and stays when it is made plain again."""
    text = random_text(random.Random(seed))
    for shown in (plain_text(text), *plain_lines(text), *quoted_lines(text)):
        assert not COMMAND.search(shown)
        assert not {unicodedata.category(char) for char in shown.replace("\t", "")} & CONTROLS
        assert len(shown.splitlines()) <= 1
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff]", shown)
        shown.encode("utf-8")
    assert plain_text(plain_text(text)) == plain_text(text)
    assert plain_block(plain_block(text)) == plain_block(text)
    assert max_marks(plain_characters(text)) <= MAX_MARKS


def test_every_character_alone_is_safe() -> None:
    """No single character of Unicode ends a line, controls or directs, wherever it stands."""
    for code in range(0x110000):
        shown = plain_text(f"a{chr(code)}::error::b")
        assert len(shown.splitlines()) == 1
        assert unicodedata.category(chr(code)) not in CONTROLS or chr(code) not in shown


def random_text(random_: random.Random) -> str:
    """Return a mixture of all that the tables have, and of any other characters."""
    parts = [*ORDINARY, *(text for text, _ in HIDDEN), *(text for text, _ in COMMANDS)]
    parts += [
        "\n",
        "\r",
        " ",
        "#",
        ":",
        "::",
        "##",
        "[",
        "\u200d",
        "\ufe0f",
        "\u0301" * 9,
        "\\",
        "---",
        "\x1b",
    ]
    made = [
        random_.choice(parts) if random_.random() < 0.7 else chr(random_.randrange(0x110000))
        for _ in range(random_.randrange(1, 30))
    ]
    return "".join(part[: random_.randrange(1, 40)] for part in made)


def max_marks(text: str) -> int:
    """Return the length of the longest run of combining marks."""
    longest = run = 0
    for char in text:
        run = run + 1 if unicodedata.category(char).startswith("M") else 0
        longest = max(longest, run)
    return longest
