"""Replacing secrets in what is recorded, before it reaches disk or network.

Owns what counts as a secret; does not decide when masking happens. Invariants: a masker raises on no text,
its time grows linearly with the text, and masked JSON text is JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from research_kit.errors import ConfigError
from research_kit.masking.environment import secret_values
from research_kit.masking.search import secret_places

__all__ = [
    "MASK",
    "PATTERNS_VARIABLE",
    "build_masker",
]

MASK = "[masked]"
PATTERNS_VARIABLE = "RESEARCH_KIT_MASK"
# Members that name the value of another: {"name": "DB_PASSWORD", "value": ...}.
_LABELS = ("name", "key", "Name", "Key")
_VALUES = ("value", "Value")


def build_masker(
    environ: Mapping[str, str],
    *,
    patterns: Iterable[str] = (),
    function: Callable[[str], str] | None = None,
) -> Callable[[str], str]:
    """Return a function that replaces secrets in a text by ``[masked]``.

    Always replaced are the keys of well-known providers, bearer tokens, authorization headers, private keys,
    passwords in addresses, values that a text itself calls a password, secret, key or token, and the values
    of environment variables whose names say so.

    Args:
        environ: Its secret-looking values are replaced, and ``RESEARCH_KIT_MASK`` adds patterns: regular
            expressions, one per line or separated by ``;;``.
        patterns: More regular expressions; whatever they match is replaced.
        function: Called last with every text; returns what is recorded, and raises nothing. Its result must
            depend on the text alone.

    Returns:
        The masker; safe to call from every thread.

    Raises:
        ConfigError: When a pattern is not a regular expression.
    """
    own = [_compiled(text) for text in (*_split(environ.get(PATTERNS_VARIABLE, "")), *patterns)]
    literals = secret_values(environ)

    def mask(text: str) -> str:
        masked = _replaced(text, literals, own)
        return masked if function is None else function(masked)

    return mask


def _split(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n|;;", text) if part.strip()]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigError(
            f"The masking pattern {pattern!r} is not a regular expression: {error}. Correct it in "
            f"{PATTERNS_VARIABLE} or in bind(mask=...); re.escape() turns a fixed text into a pattern."
        ) from error


def _replaced(text: str, literals: tuple[str, ...], own: list[re.Pattern[str]]) -> str:
    masked = _substituted(text, literals, own)
    if masked is text or text[:1] not in ("{", "[", '"') or _is_json(masked):
        return masked
    # A secret that reaches beyond its JSON string, or is a number: mask value by value instead.
    try:
        return json.dumps(_mask_tree(json.loads(text), literals, own), ensure_ascii=False)
    except (ValueError, RecursionError):
        return masked


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _mask_tree(value: Any, literals: tuple[str, ...], own: list[re.Pattern[str]]) -> Any:
    if isinstance(value, str):
        return _substituted(value, literals, own)
    if isinstance(value, dict):
        # With its key, because the key may be what makes a value a secret; so may a name beside it.
        label = next((value[key] for key in _LABELS if isinstance(value.get(key), str)), "")
        return {
            key: _mask_member(label if label and key in _VALUES else key, item, literals, own)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_mask_tree(item, literals, own) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = json.dumps(value)
        masked = _substituted(text, literals, own)
        return value if masked is text else masked
    return value


def _mask_member(key: str, item: Any, literals: tuple[str, ...], own: list[re.Pattern[str]]) -> Any:
    if isinstance(item, str | int | float) and not isinstance(item, bool):
        pair, alone = json.dumps({key: item}, ensure_ascii=False), json.dumps(item, ensure_ascii=False)
        if _substituted(pair, literals, own) is not pair and _substituted(alone, literals, own) is alone:
            return MASK
    if isinstance(item, list):
        return [_mask_member(key, one, literals, own) for one in item]
    return _mask_tree(item, literals, own)


def _substituted(text: str, literals: tuple[str, ...], own: list[re.Pattern[str]]) -> str:
    """Return ``text`` with every secret replaced; the same object when there is none."""
    places = list(secret_places(text))
    for literal in [literal for literal in literals if literal in text]:
        places.extend((start, start + len(literal)) for start in _positions(text, literal))
    places.extend(match.span() for pattern in own for match in pattern.finditer(text) if match.group())
    if not places:
        return text
    pieces, end = [], 0
    for start, stop in sorted(places):
        if start >= end:
            pieces += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


def _positions(text: str, part: str) -> Iterator[int]:
    position = text.find(part)
    while position >= 0:
        yield position
        position = text.find(part, position + 1)
