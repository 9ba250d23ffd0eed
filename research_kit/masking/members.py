"""Values that are kept under a name: attributes of spans, members of maps.

Owns how a name decides with its value when both are apart; `masker` and `names` judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

from research_kit.masking.masker import MASK
from research_kit.masking.names import kind_of_name

__all__ = ["masked_member"]

_HEADERS = ("authorization", "cookie")


def masked_member(mask: Callable[[str], str], name: str, value: str) -> str:
    """Return ``value`` without secrets, also when it is one only because of its name.

    Args:
        mask: Masks a text.
        name: The whole name: ``http.request.header.x-api-key``.
        value: What is kept under it.
    """
    masked = mask(value)
    if masked != value or not _may_be_secret(name):
        return masked
    pair = json.dumps({name: value}, ensure_ascii=False)
    masked_pair = mask(pair)
    if masked_pair == pair:
        return value
    try:
        found = json.loads(masked_pair)[name]
    except (ValueError, LookupError, TypeError):
        return MASK
    return found if isinstance(found, str) else MASK


@lru_cache(maxsize=4096)
def _may_be_secret(name: str) -> bool:
    return kind_of_name(name) is not None or name.lower().endswith(_HEADERS)
