"""Derive `research_kit/masking/formats.json` from a maintained set of rules.

Owns how a rule of Kingfisher (its catalogue is that of Betterleaks, and Veles of OSV-SCALIBR) becomes a fixed
beginning, the characters that follow and how many there must be. Only rules with such a beginning are taken;
what a text itself names is not a matter of formats. Not run by the tests: to follow a newer version, install
``kingfisher-secret-scanner`` beside Python and run ``python tests/security/derive_formats.py``.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

TARGET = Path(__file__).parents[2] / "research_kit" / "masking" / "formats.json"
ALPHANUMERIC = frozenset(string.ascii_letters + string.digits)
# These give no access, are an address or a name beside a secret, or have a rule of their own.
SKIPPED_RULES = re.compile(
    r"-id\b|client-id|app-id|public|project-api-key$|-url|-host|domain|curl|mongodb|generic|freemius|"
    r"gcp-(?:app|serv)|nuget|jwt$|kubernetes|azure|aiven|credentials|bitwarden|salesforce|gitlab-incoming|"
    r"session-cookie|private-key|-repository|canadian|temporal|workato|aws-access-token|devcycle-client"
)
# Beginnings that hashes, versions, identifiers or addresses have as well, or that `formats` says better.
SKIPPED_STARTS = re.compile(r"https://|mux|4b1d|ext_|sc_|v1\.0-|[Ss][Kk]-$|eyJ|API-|glrt-t|HRKU-AA|ZXlK")
KEPT_WHOLE = 20
SHORT_PREFIX = 4


class Part(NamedTuple):
    """Some characters of a pattern in a row: which may stand there, and how many at least."""

    characters: frozenset[str]
    least: int
    branches: tuple[list[Part], ...] = ()


def parts_of(tree: Any) -> Iterator[Part]:
    """Yield the parts of a parsed pattern; one without characters ends what is understood."""
    for kind, value in tree:
        if kind is op.LITERAL:
            yield Part(frozenset(chr(value)), 1)
        elif kind is op.IN:
            yield Part(_class(value), 1)
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            inner = list(parts_of(value[2]))
            yield Part(frozenset().union(*(part.characters for part in inner)), value[0] * length_of(inner))
        elif kind is op.SUBPATTERN:
            yield from parts_of(value[3])
        elif kind is op.BRANCH:
            yield Part(frozenset(), 0, tuple(list(parts_of(branch)) for branch in value[1]))
        elif kind not in (op.AT, op.ASSERT, op.ASSERT_NOT):
            yield Part(frozenset(), 0)


def length_of(parts: Sequence[Part]) -> int:
    return sum(
        min(map(length_of, part.branches), default=part.least) if part.branches else part.least
        for part in parts
    )


def _class(items: Any) -> frozenset[str]:
    found: set[str] = set()
    for kind, value in items:
        if kind is op.NEGATE:
            return frozenset()
        if kind is op.LITERAL:
            found.add(chr(value))
        elif kind is op.RANGE:
            found.update(map(chr, range(value[0], min(value[1], 126) + 1)))
        elif value is op.CATEGORY_WORD:
            found.update(ALPHANUMERIC | {"_"})
        elif value is op.CATEGORY_DIGIT:
            found.update(string.digits)
    return frozenset(found)


def beginnings(parts: list[Part]) -> list[tuple[str, list[Part]]]:
    """Return every fixed beginning of a pattern with what comes after it."""
    fixed = [""]
    for index, part in enumerate(parts):
        if part.branches:
            return [
                (start + inner, rest)
                for start in fixed
                for branch in part.branches
                for inner, rest in beginnings(branch + parts[index + 1 :])
            ]
        if not (
            part.least == 1 and 0 < len(part.characters) <= 4 and len(fixed) * len(part.characters) <= 16
        ):
            return [(start, parts[index:]) for start in fixed]
        fixed = [start + letter for start in fixed for letter in sorted(part.characters)]
    return [(start, []) for start in fixed]


def body_of(parts: list[Part]) -> tuple[int, frozenset[str]]:
    """Return how long a secret is at least after its beginning, and of which characters."""
    least, characters = 0, frozenset[str]()
    for part in parts:
        if part.branches:
            inner = [body_of(branch) for branch in part.branches]
            if min(number for number, _ in inner) <= 2:  # what may follow a secret, not a part of it
                break
            least += min(number for number, _ in inner)
            characters |= frozenset().union(*(letters for _, letters in inner))
        elif not part.characters:
            break
        else:
            least, characters = least + part.least, characters | part.characters
    return least, characters


def python_pattern(pattern: str) -> str:
    """Return a pattern of Rust's syntax in Python's, without what may stand before the secret."""
    for rust, python in (("[[:alnum:]]", "[A-Za-z0-9]"), (r"\z", r"\Z"), ("(?s)", ""), ("(?i)", "")):
        pattern = pattern.replace(rust, python)
    pattern = re.sub(r"\(\?-?[is]:", "(?:", pattern)
    return re.sub(r"^\(\?:\^\|\[[^\]]*\]\)", "", pattern)


def derive(rules: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return by beginning: how many characters follow at least, and which besides letters and digits."""
    formats: dict[str, list[Any]] = {}
    for rule in rules:
        pattern = rule["pattern"]
        is_named = r"[\x60'\"\s=]" in pattern or "(?:.|" in pattern or "(?x)" in pattern
        if is_named or SKIPPED_RULES.search(rule["id"]):
            continue
        for start, rest in beginnings(list(parts_of(parser.parse(python_pattern(pattern))))):
            least, characters = body_of(rest)
            if len(start) < 3 or least < 8 or " " in start or SKIPPED_STARTS.match(start):
                continue
            is_short = len(start) < SHORT_PREFIX or (
                len(start) == SHORT_PREFIX and not (start[-1] in "_-." and characters <= ALPHANUMERIC)
            )
            least = least if is_short else min(least, KEPT_WHOLE)
            extra = "".join(sorted(characters - ALPHANUMERIC))
            before = formats.get(start, [least, extra])
            formats[start] = [min(least, before[0]), "".join(sorted({*extra, *before[1]}))]
    return dict(sorted(formats.items()))


def main() -> None:
    """Write the file."""
    import kingfisher_sdk  # type: ignore[import-not-found]

    native = kingfisher_sdk.Rules()._native
    formats = derive([native.detail(rule["id"]) for rule in native.metadata()])
    source = (
        f"Betterleaks and Veles, as kingfisher-secret-scanner {version('kingfisher-secret-scanner')} has them"
    )
    lines = ",\n".join(f"  {json.dumps(start)}: {json.dumps(body)}" for start, body in formats.items())
    TARGET.write_text(f'{{\n "source": {json.dumps(source)},\n "formats": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
