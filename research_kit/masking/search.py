"""Finding secrets: one pass over a text for everything that a secret can begin with.

Owns the automaton of all triggers and what is tried at each. Invariant: what a text costs grows linearly with
its length, for a trigger is found in one pass and what is tried there is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeAlias

from ahocorasick_rs import AhoCorasick

from research_kit.masking.formats import Format, load_formats
from research_kit.masking.named import NAME_TRIGGERS, find_named_value
from research_kit.masking.rules import BOT_TOKEN, RULES, Rule
from research_kit.masking.values import is_random

__all__ = ["secret_places"]

Span: TypeAlias = tuple[int, int]
# Takes the text and where the trigger begins and ends; an empty place says that nothing begins before it.
_Finder: TypeAlias = Callable[[str, int, int], Span | None]

# How far from its name an option of a command may stand.
_LONGEST_COMMAND = 300
_BASE64_END = re.compile(r"[A-Za-z0-9+/]{16}$")
_BASE64_LINE = re.compile(r"[A-Za-z0-9+/]{60}(?:\n|\\n)$")


def secret_places(text: str) -> Iterator[Span]:
    """Yield where the secrets of ``text`` stand; places may touch or overlap."""
    automaton, finders = _search()
    # By way of trying: what was found there is not looked into again.
    ends: dict[_Finder, int] = {}
    for trigger, start, end in automaton.find_matches_as_indexes(_lowered(text), overlapping=True):
        for find in finders[trigger]:
            if start < ends.get(find, 0):
                continue
            span = find(text, start, end)
            if span is not None:
                ends[find] = span[1]
                if span[0] < span[1]:
                    yield span
    if "." in text:
        yield from (found.span() for found in BOT_TOKEN.finditer(text) if is_random(found.group()))


@cache
def _search() -> tuple[AhoCorasick, list[tuple[_Finder, ...]]]:
    finders: dict[str, list[_Finder]] = {}
    for trigger in NAME_TRIGGERS:
        finders.setdefault(trigger, []).append(find_named_value)
    for rule in RULES:
        for trigger in rule.triggers:
            finders.setdefault(trigger, []).append(_finder_of_rule(rule))
    by_start: dict[str, list[Format]] = {}
    for known in load_formats():
        by_start.setdefault(known.prefix.lower(), []).append(known)
    for trigger, formats in by_start.items():
        finders.setdefault(trigger, []).append(_finder_of_formats(formats))
    return AhoCorasick(list(finders)), [tuple(found) for found in finders.values()]


def _finder_of_rule(rule: Rule) -> _Finder:
    group = "secret" if "secret" in rule.pattern.groupindex else 0

    def find(text: str, start: int, _: int) -> Span | None:
        if start < rule.lead or (not group and not _begins_word(text, start - rule.lead)):
            return None
        if rule.after and not _follows(text, start, rule.after):
            return None
        match = rule.pattern.match(text, start - rule.lead)
        if match is None or (rule.is_random and not is_random(match[group])):
            return None
        return match.span(group)

    return find


def _follows(text: str, start: int, commands: tuple[str, ...]) -> bool:
    line = text[max(0, start - _LONGEST_COMMAND) : start].rpartition("\n")[2]
    return any(command in line for command in commands)


def _finder_of_formats(formats: list[Format]) -> _Finder:
    # Letters and digits in a row are in every picture.
    is_plain = formats[0].prefix.isalnum()

    def find(text: str, start: int, _: int) -> Span | None:
        if not _begins_word(text, start) or (is_plain and _is_inside_base64(text, start)):
            return None
        return next((place for known in formats if (place := known.place_of(text, start))), None)

    return find


def _begins_word(text: str, start: int) -> bool:
    r"""Whether no word goes on at ``start``; behind JSON's ``\n`` the letter n is no part of a word."""
    if not start or not (text[start - 1].isalnum() or text[start - 1] == "_"):
        return True
    if text[start - 1] in "nrtbf" and text[start - 2 : start - 1] == "\\":
        return True
    return text[start - 6 : start - 4] == "\\u" or text[start - 3 : start - 2] == "%"


def _is_inside_base64(text: str, start: int) -> bool:
    """Whether what begins at ``start`` is within a long text in base64, after one of its signs or lines."""
    before = text[max(0, start - 68) : start]
    if before.endswith(("+", "/")):
        return _BASE64_END.search(before[:-1]) is not None and is_random(before[-33:-1])
    return before.endswith("\n") and _BASE64_LINE.search(before) is not None


def _lowered(text: str) -> str:
    lower = text.lower()
    if len(lower) != len(text):
        # A few letters become two in lower case, which would move every position behind them.
        lower = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    try:
        lower.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, for which the automaton has no place
        lower = lower.encode("utf-8", "replace").decode()
    return lower
