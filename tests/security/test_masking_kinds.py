"""Every kind of secret is masked in every text that may carry it, and ordinary texts stay as they are."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import pkgutil
import random
import re
import uuid
from collections.abc import Iterator
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from masking_corpus import CARRIERS, SecretText, ordinary_texts, secret_texts

import research_kit.masking
from research_kit.masking import MASK, build_masker
from research_kit.masking.formats import load_formats
from research_kit.masking.rules import RULES

SECRETS = secret_texts()
ORDINARY = ordinary_texts()
# How many characters a pattern may look at more than once at one place.
MOST_STEPS = 40_000


def pieces(secret: str) -> list[str]:
    """Return the parts of a secret that every spelling of it has."""
    return re.findall(r"[A-Za-z0-9]{4,}", secret) or [secret]


@pytest.mark.parametrize("secret", SECRETS, ids=[secret.kind for secret in SECRETS])
def test_secret_vanishes_in_every_carrier(secret: SecretText) -> None:
    """No part of a secret is left, plain or in a log, in JSON inside JSON, in a repr, in a traceback."""
    mask = build_masker({})
    rest = secret.text.replace(secret.secret, "§")
    for name, carry in CARRIERS.items():
        if secret.is_cut and name not in ("plain", "log", "traceback"):
            continue
        masked = mask(carry(secret.text))
        left = [part for part in pieces(secret.secret) if part in masked and part not in carry(rest)]
        assert not left, f"{name}: {left} of {masked!r}"
        assert MASK in masked, name
        if "json" in name:
            json.loads(masked)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_in_every_carrier(text: str) -> None:
    """Paths, code, placeholders, hashes, prose and settings are recorded as they are."""
    mask = build_masker({})
    for name, carry in CARRIERS.items():
        carried = carry(text)
        assert mask(carried) == carried, name


def random_texts(count: int) -> Iterator[str]:
    """Yield what looks random and is no secret."""
    source = random.Random(20261201)
    for _ in range(count // 10):
        data = source.randbytes(48)
        yield hashlib.sha256(data).hexdigest()
        yield hashlib.sha1(data).hexdigest()
        yield hashlib.md5(data).hexdigest()
        yield str(uuid.UUID(bytes=data[:16], version=4))
        yield base64.b64encode(data).decode()
        yield base64.urlsafe_b64encode(data).decode()
        yield base64.b32encode(data).decode()
        yield str(int.from_bytes(data, "big"))
        yield "".join(source.choices("ACGT", k=80))
        yield f"10.{source.randrange(1000, 9999)}/{data[:6].hex()}"


def test_random_texts_stay() -> None:
    """Of 20,000 hashes, ids, numbers and encoded bytes none is taken for a secret."""
    mask = build_masker({})
    assert [text for text in random_texts(20_000) if mask(text) != text] == []


def test_pictures_stay() -> None:
    """A picture of some megabytes in a text, in one line or wrapped, loses nothing."""
    data = random.Random(7).randbytes(6_000_000)
    mask = build_masker({})
    for text in (base64.b64encode(data).decode(), base64.encodebytes(data).decode()):
        for carried in (text, json.dumps({"image/png": text})):
            assert mask(carried) == carried


def test_masking_twice_is_masking_once() -> None:
    """What was masked is not taken for a secret again, nor is more of the text around it."""
    mask = build_masker({})
    for secret in SECRETS:
        masked = mask(secret.text)
        assert mask(masked) == masked


@pytest.mark.parametrize(
    "written",
    [
        "'password': 'My P4ss word!'",
        'client_secret = "Mk9 mQ2 vL"',
        "passphrase: correct horse battery staple",
    ],
)
def test_no_beginning_of_a_named_value_is_shown(written: str) -> None:
    """However a text grows, its whole words show nothing of a value of several words."""
    mask = build_masker({})
    begin = max(written.find("M"), written.find("correct"))
    ends = [end for end in range(begin + 2, len(written)) if written[end - 1] == " "]
    assert ends
    for end in ends:
        assert written[begin:end].split()[0] not in mask(written[:end])


def patterns() -> list[re.Pattern[str]]:
    """Return every pattern that masking applies to a text."""
    found = {rule.pattern for rule in RULES} | {known.body for known in load_formats()}
    for module in pkgutil.iter_modules(research_kit.masking.__path__):
        names = vars(importlib.import_module(f"research_kit.masking.{module.name}"))
        found.update(value for value in names.values() if isinstance(value, re.Pattern))
    return sorted(found, key=lambda pattern: pattern.pattern)


def steps(tree: Any) -> float:
    """Return how many characters a pattern may look at when it fails, by the structure of its repetitions.

    What stands in a row is added, for each is tried a bounded number of times; a repetition within another is
    multiplied, unless it gives nothing back.
    """
    total = 1.0
    for kind, value in tree:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            least, most, inner = value
            is_class = len(inner) == 1 and inner[0][0] in (op.IN, op.LITERAL, op.NOT_LITERAL, op.ANY)
            count = 1 if most == op.MAXREPEAT and is_class else float(most)
            total += max(count, least) * steps(inner)
        elif kind is op.POSSESSIVE_REPEAT:
            total += 1 if value[1] == op.MAXREPEAT else steps(value[2])
        elif kind is op.SUBPATTERN:
            total += steps(value[3])
        elif kind is op.BRANCH:
            total += sum(map(steps, value[1]))
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            total += steps(value[1])
        else:
            total += 1
    return total


@pytest.mark.parametrize("pattern", patterns(), ids=lambda pattern: pattern.pattern[:40])
def test_patterns_take_bounded_time(pattern: re.Pattern[str]) -> None:
    """No repetition is without bound inside another, so no text makes a pattern slow."""
    assert steps(parser.parse(pattern.pattern, pattern.flags)) < MOST_STEPS
