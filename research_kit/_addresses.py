"""Passwords in addresses.

Owns where in an address the password stands; knows no other secret. Below the errors, which quote addresses.
"""

from __future__ import annotations

import re

__all__ = ["PASSWORD_IN_ADDRESS", "without_passwords"]

# The last @ before the host ends it. A port is none, nor is a variable or what stands for a password.
PASSWORD_IN_ADDRESS = re.compile(
    r"://[^\s/:@\"'`\\<>{}]{0,100}:(?!\d{1,5}(?:[/?#]|$))(?![$<{%*]|\[|\.\.\.|x{3,}|X{3,})"
    r"(?P<secret>[^\s\"'`\\<>{}]{1,200})@(?=[\w\[.-])"
)


def without_passwords(text: str) -> str:
    """Return ``text`` with ``[masked]`` in the place of passwords in addresses."""
    if "://" not in text or "@" not in text:
        return text
    return PASSWORD_IN_ADDRESS.sub(lambda found: f"{found[0][: -len(found['secret']) - 1]}[masked]@", text)
