"""JSON and words from somebody who may mean harm.

Owns what counts as JSON that can be used. Invariant: whatever the content is, the functions return a value or
raise `JsonError`, and a value with a million brackets is refused before it is made.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from research_kit.plain_text import plain_text

__all__ = ["JsonError", "TooManyValuesError", "parse_json", "parse_object", "plain_words"]

_MAX_WORDS = 200
# Larger whole numbers than a database can hold; nothing that is counted here comes near.
_MAX_DIGITS = 19
# Possessive, so that no text makes it try again or remember where it was.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class JsonError(ValueError):
    """Content that is no JSON, or none that can be used; the message says why in a few words."""


class TooManyValuesError(JsonError):
    """Content of more values than were allowed; less may be asked for."""


def parse_json(content: bytes, *, max_values: int | None = None, keeps_odd_numbers: bool = False) -> Any:
    """Return the value in ``content``, which is UTF-8.

    Args:
        content: The text of the value.
        max_values: How many values it may hold, inner ones included: an empty list takes two bytes of text
            and sixty of memory.
        keeps_odd_numbers: True lets infinities, what is no number, and whole numbers beyond 64 bits pass.

    Raises:
        JsonError: When it is something else.
    """
    if max_values is not None:
        _check_size(content, max_values)
    try:
        text = content.decode("utf-8")
        return json.loads(text) if keeps_odd_numbers else _STRICT.decode(text)
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except JsonError:
        raise
    except ValueError as error:  # also UnicodeDecodeError, and numbers of thousands of digits
        raise JsonError("it is no JSON in UTF-8") from error


def parse_object(content: bytes) -> dict[str, Any]:
    """Return the object in ``content``.

    Raises:
        JsonError: When it is something else.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise JsonError("it is no JSON object")
    return value


def plain_words(text: str) -> str:
    """Return the beginning of what a server says, on one line and without anything that steers a terminal."""
    return plain_text(" ".join(text[: 5 * _MAX_WORDS].split()))[:_MAX_WORDS]


def _check_size(content: bytes, max_values: int) -> None:
    # Commas in texts count at first, which is quick; few contents need a second look.
    if _marks(content) > max_values and _marks(_STRING.sub(b"", content)) > max_values:
        raise TooManyValuesError(f"it holds more than {max_values:,} values")


def _marks(content: bytes) -> int:
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def _refuse(_: str) -> NoReturn:
    raise JsonError("it holds a number that is none")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _whole(text: str) -> int:
    return int(text) if len(text.lstrip("-")) <= _MAX_DIGITS else _refuse(text)


_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
