"""Which values of an environment are secrets.

Owns the judgement by name and value; does not replace anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

__all__ = ["secret_values"]

_MIN_LENGTH = 8
_SECRET_NAME = re.compile(
    r"KEY(?!BOARD|RING|MAP|STROKE|WORD)|TOKEN(?!IZER)|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE
)
# Such variables say something about a secret, not the secret.
_ABOUT = re.compile(
    r"_(?:TYPE|NAME|FILE|PATH|DIR|URL|URI|HOST|ENDPOINT|PROVIDER|HELPER|ALGORITHM|LIMIT|COUNT|TIMEOUT)$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?[\d.,_]+(?:[eE][+-]?\d+)?")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^@\s]*", re.IGNORECASE)
_WORDS = frozenset({"disabled", "enabled", "required", "optional", "password", "undefined", "unlimited"})
# Langfuse's public key is shown in page addresses; it gives no access.
_PUBLIC_PREFIX = "pk-lf-"


def secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secret values of ``environ`` in every spelling of a recorded text, longest first."""
    spellings: set[str] = set()
    for name, value in environ.items():
        value = value.strip()
        if _is_secret(name, value):
            spellings.update(_spellings(value))
    return tuple(sorted(spellings, key=lambda text: (-len(text), text)))


def _is_secret(name: str, value: str) -> bool:
    if _SECRET_NAME.search(name) is None or _ABOUT.search(name) is not None or len(value) < _MIN_LENGTH:
        return False
    if value.startswith(_PUBLIC_PREFIX) or value.lower() in _WORDS:
        return False
    return not (_NUMBER.fullmatch(value) or _ADDRESS.fullmatch(value) or _is_path(value))


def _is_path(value: str) -> bool:
    if value.startswith(("~/", "./", "../")) or re.match(r"[A-Za-z]:\\", value):
        return True
    if not value.startswith("/"):
        return False
    # Random text may begin with a slash too; a path begins in a folder that is there.
    first = value.split("/")[1]
    return bool(first) and len(first) < 64 and Path("/", first).exists()


def _spellings(value: str) -> set[str]:
    in_json = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    in_nested_json = {json.dumps(text)[1:-1] for text in in_json}
    return {value, *in_json, *in_nested_json, quote(value, safe=""), quote(value)}
