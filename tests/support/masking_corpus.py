"""Texts with and without secrets, made from templates so that no key stands in this repository.

A template holds generators in braces (``{an:24}`` are 24 letters and digits) and, when it has a secret, the
secret between ⟦ and ⟧. What is generated is the same in every run.
"""

from __future__ import annotations

import json
import random
import re
import string
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parents[1] / "security"
_ALPHABETS = {
    "an": string.ascii_letters + string.digits,
    "an36": string.ascii_lowercase + string.digits,
    "UP": string.ascii_uppercase + string.digits,
    "B32": string.ascii_uppercase + "234567",
    "hex": string.digits + "abcdef",
    "b64": string.ascii_letters + string.digits + "+/",
    "b64u": string.ascii_letters + string.digits,
    "digits": string.digits,
}
_PASSWORDS = ("hunter2!x", "Tr0ub4dor&3"[:9], "s3cretPassw0rd", "Xk9!mQ2#vL", "zebra77Crossing")
_GENERATOR = re.compile(r"\{(an36|an|UP|B32|hex|b64u|b64|digits|uuid|pw|lit)(?::(\w*))?\}")


class SecretText(NamedTuple):
    """A text, and what of it must be gone."""

    kind: str
    text: str
    secret: str

    @property
    def is_cut(self) -> bool:
        """Whether the text ends within the secret, so that nothing may come behind it."""
        return "unclosed" in self.kind


def filled(template: str, seed: str) -> str:
    """Return ``template`` with its generators replaced, always by the same for one seed."""
    source = random.Random(seed)
    return _GENERATOR.sub(lambda match: _generated(source, match[1], match[2] or ""), template)


def _generated(source: random.Random, name: str, argument: str) -> str:
    if name == "lit":
        return argument
    if name == "pw":
        return source.choice(_PASSWORDS)
    if name == "uuid":
        return str(uuid.UUID(int=source.getrandbits(128), version=4))
    return "".join(source.choices(_ALPHABETS[name], k=int(argument)))


def secret_texts() -> list[SecretText]:
    """Return every text with a secret."""
    found = []
    for kind, template in json.loads((_FOLDER / "masking_secrets.json").read_text(encoding="utf-8")):
        text = filled(template, kind)
        before, secret, after = re.split("[⟦⟧]", text)
        found.append(SecretText(kind, before + secret + after, secret))
    return found


def ordinary_texts() -> list[str]:
    """Return every text without one."""
    lines = (_FOLDER / "masking_ordinary.txt").read_text(encoding="utf-8").splitlines()
    return [filled(line.replace("\\n", "\n"), line) for line in lines]


# Ways in which a text reaches a trace or a log.
CARRIERS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "log": lambda text: f"2026-01-02 03:04:05,678 INFO client: {text}",
    "lines": lambda text: f"first line\n{text}\nlast line",
    "json": lambda text: json.dumps({"content": text, "n": 1}),
    "json list": lambda text: json.dumps([f"line\n{text}\tend"], ensure_ascii=False),
    "nested json": lambda text: json.dumps({"arguments": json.dumps({"content": text})}),
    "thrice nested json": lambda text: json.dumps([json.dumps([json.dumps([text])])]),
    "repr": lambda text: repr({"content": text}),
    "repr in repr": lambda text: repr(f"Config(text={text!r})"),
    "traceback": lambda text: f'  File "x.py", line 3, in f\n    raise ValueError\nValueError: {text}',
}
