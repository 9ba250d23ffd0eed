"""JSON as the wire has it: strict in, compact out.

Owns the differences between Python's and JavaScript's JSON. Invariant: nothing that comes out of here is
invalid JSON, and no input makes it raise.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

__all__ = [
    "ODD_NUMBERS",
    "compact",
    "is_too_much",
    "number_text",
    "parse_or_none",
    "parse_or_text",
    "storable",
]

ODD_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""Numbers that JSON lacks, as Python prints them and as the protocol writes them."""
# What is nested deeper would have to be read and written by functions that call themselves.
_MAX_DEPTH = 200
# Commas in texts count as well; what has more of them is kept as the text that it is.
_MAX_VALUES = 1_000_000
# Possessive, so that no text makes it try again.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def compact(value: Any) -> str:
    """Return ``value`` as JSON without spaces that UTF-8 can carry; numbers that JSON lacks become null."""
    if not value and value.__class__ in _EMPTY:  # most of what a row asks for
        return _EMPTY[value.__class__]
    try:
        return storable(_encoder.encode(value))
    except ValueError:
        return storable(_encoder.encode(_without_odd_numbers(value)))


def storable(text: str) -> str:
    """Return text that SQLite can store: JSON can name halves of surrogate pairs, UTF-8 cannot carry them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def parse_or_none(text: object) -> Any:
    """Return the JSON value in ``text``; None when there is none."""
    if not isinstance(text, str) or is_too_much(text):
        return None
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def parse_or_text(text: str) -> Any:
    """Return the JSON value in ``text``, or the text itself when it is no JSON."""
    # Most stored texts are words: the first character spares the attempt.
    if text[:1] not in _JSON_STARTS or is_too_much(text):
        return text
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return text


def is_too_much(text: str) -> bool:
    """Whether the value in ``text`` would be nested too deeply, or take many times as much memory."""
    bracket_count = text.count("[") + text.count("{")
    if bracket_count + text.count(",") > _MAX_VALUES:
        return True
    if bracket_count <= _MAX_DEPTH:
        return False
    depths = accumulate(1 if mark in "[{" else -1 for mark in _BRACKET.findall(_STRING.sub("", text)))
    return max(depths, default=0) > _MAX_DEPTH


def number_text(number: float) -> str:
    """Return a number as JavaScript prints it: ``1.5e-7``, ``0.0000025``, ``3``."""
    if number == int(number) and abs(number) < 1e21:
        return str(int(number))
    digits, _, exponent_text = f"{number!r}e".partition("e")
    exponent = int(exponent_text.rstrip("e") or 0)
    if exponent < -6 or exponent >= 21:
        return f"{digits}e{exponent:+d}"
    return f"{number:.{max(0, len(digits.partition('.')[2]) - exponent)}f}".rstrip("0").rstrip(".")


_EMPTY: dict[type, str] = {dict: "{}", list: "[]"}
_JSON_STARTS = frozenset('{["-0123456789tfn \t\n\r')


def _without_odd_numbers(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_without_odd_numbers(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_odd_numbers(part) for key, part in value.items()}
    return value
