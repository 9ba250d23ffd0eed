"""Speed of masking: texts as traces have them, and texts made to be slow.

CPU time of this process. The slowest text is also masked at four times its length, which says whether masking
is linear.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping

from benchmarks.measuring import ROOT, Options, Row, median
from research_kit.masking import build_masker

_GOAL_LINEAR = 1.5
_LONGER = 4
# Beginnings of what could be a secret, one after the other.
_HOSTILE = (
    *(
        "sk-",
        "sk-a_",
        "eyJaaaaaaaa.",
        "-----BEGIN PRIVATE KEY-----",
        "://a:",
        "curl -u ",
        "Bearer ",
        "cookie=",
    ),
    *(
        "password=",
        'password = "',
        "token: ",
        "key: ",
        "key ",
        'key" , ',
        "passphrase: a-",
        "<password>",
        "\\",
        "[",
    ),
)


def measure(options: Options) -> list[Row]:
    """Return megabytes a second of each kind of text, and how linear the slowest is."""
    size = 100_000 if options.is_quick else 400_000
    mask = build_masker({})
    mask("token=")  # prepares what is made once
    rows = [
        Row(name=f"{name} ({len(text):,} characters)", value=_speed(mask, text, options), unit="MB/s")
        for name, text in _texts(size).items()
    ]
    return [*rows, *_hostile_rows(mask, size, options)]


def _texts(size: int) -> Mapping[str, str]:
    question = {"question": "Which species has the longest bill in island 12?", "columns": ["species", "n"]}
    content = (
        "The encoder maps each token to a key and a value of 64 dimensions; see section 3 of the paper at "
        "https://arxiv.org/abs/1706.03762. With max_tokens=512 and temperature 0.2 the answer was cut. "
    )
    messages = json.dumps([{"role": "user", "content": content * 3, "tokens": 123}] * (size // 600))
    return {
        "input of a small call": json.dumps(question),
        "prose": (content * (size // len(content) + 1))[:size],
        "messages in JSON": messages,
        "Python code": (ROOT / "research_kit" / "session" / "delivery.py").read_text(encoding="utf-8") * 10,
        "a picture in base64": "".join(chr(65 + number * number % 26) for number in range(size)),
    }


def _hostile_rows(mask: Callable[[str], str], size: int, options: Options) -> Iterator[Row]:
    speeds = {unit: _speed(mask, unit * (size // len(unit)), options) for unit in _HOSTILE}
    slowest = min(speeds, key=lambda unit: speeds[unit])
    yield Row(
        name=f"the slowest of {len(_HOSTILE)} hostile texts: {slowest!r}", value=speeds[slowest], unit="MB/s"
    )
    short = slowest * (size // len(slowest))
    ratio = speeds[slowest] / _speed(mask, short * _LONGER, options)
    yield Row(
        name=f"the same, {_LONGER} times as long",
        value=speeds[slowest] / ratio,
        unit="MB/s",
        against="a text of the first length",
        ratio=ratio,
        goal=_GOAL_LINEAR,
        goal_of="ratio",
    )


def _speed(mask: Callable[[str], str], text: str, options: Options) -> float:
    count = max(1, 400_000 // len(text))
    return median(_once(mask, text, count) for _ in range(options.repeat_count))


def _once(mask: Callable[[str], str], text: str, count: int) -> float:
    begin_s = time.process_time()
    for _ in range(count):
        mask(text)
    return count * len(text) / max(time.process_time() - begin_s, 1e-9) / 1e6
