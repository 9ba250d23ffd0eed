"""Outputs that are too long to be reviewed: kept as their beginning and a hash of the whole.

Invariant: shortening twice equals shortening once, and two texts shortened alike were the same.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["is_shortened", "shorten"]

_LARGE_CHARS = 40_000
_HEAD_CHARS = 2_000
_MARK = re.compile(r"\n<\d+ characters in all, sha256 [0-9a-f]{64}>\Z")


def shorten(text: str) -> str:
    """Return ``text`` as baselines keep it: as it is, or when it is long, its beginning and its hash."""
    if len(text) <= _LARGE_CHARS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_HEAD_CHARS]}\n<{len(text)} characters in all, sha256 {digest}>"


def is_shortened(text: str) -> bool:
    """Whether only the beginning of a text was kept."""
    return bool(_MARK.search(text))
