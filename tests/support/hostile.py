"""Texts that try to run code, to reach the network or to break a page.

Owns the corpus in ``hostile.txt`` beside this file. Invariant: what runs sets ``window.hostile``, and every
address is under ``http://evil.example``, so that a browser can tell.
"""

from __future__ import annotations

from pathlib import Path

ADDRESS = "http://evil.example"
FLAG = "window.hostile"
# What no list on one line can hold: control characters, depth, length, half characters.
_MADE = [
    "<scr\0ipt>RUN</scr\0ipt>",
    "[x](\0javascript:RUN)",
    "[x](\x01javascript:RUN)",
    "java\rscript:RUN <img src=x\ronerror=RUN>",
    "\x1b]8;;javascript:RUN\x07x\x1b]8;;\x07",
    "a \ud83d <script>\udfffRUN</script>",
    ">" * 3000 + "<script>RUN</script>",
    "* " * 3000 + "<script>RUN</script>",
    "W" * 3000,
    "\u0627" * 1500 + "\u202e\u2066x",
    "Z\u0351\u035b\u0348\u0316" * 400,
    "$" + "{" * 900 + "}" * 900 + "$",
    "|" * 500 + "\n" + "|-" * 500,
]


def hostile_texts() -> list[str]:
    """Return every text, ready to be shown somewhere."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()[1:]
    listed = [line.replace("\\n", "\n") for line in lines]
    return [text.replace("RUN", f"{FLAG}=1").replace("NET", ADDRESS) for text in [*listed, *_MADE]]
