"""The masker of the process, kept in step with its environment.

Owns when a masker is built anew: a notebook may put a key into ``os.environ`` at any time, and it must be
masked from then on. What a secret is, `masker` decides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from research_kit.errors import ConfigError
from research_kit.masking.environment import secret_values
from research_kit.masking.masker import PATTERNS_VARIABLE, build_masker

__all__ = ["CurrentMask", "Mask", "masked_text", "process_mask"]

Mask = Callable[[str], str] | Iterable[str]
# How long a new secret in the environment may go unnoticed.
_CHECK_INTERVAL_S = 0.5


class CurrentMask:
    """Knows the masker for what counts as secret now."""

    def __init__(self) -> None:
        self._own: Mask = ()
        self._basis: tuple[object, ...] = ()
        self._check_at_s = 0.0
        self._masker: Callable[[str], str] = str

    def add(self, mask: Mask) -> None:
        """Use a function, or regular expressions, besides the built-in rules.

        Raises:
            ConfigError: When an expression cannot be used.
        """
        if not callable(mask) and not isinstance(mask, Iterable):
            raise ConfigError(
                f"The mask {mask!r} is of type {type(mask).__name__}. Give a list of regular expressions, or "
                "a function from text to text."
            )
        own = mask if callable(mask) else ([mask] if isinstance(mask, str) else list(mask))
        self._build(own)  # refuses before anything is changed
        self._own, self._basis, self._check_at_s = own, (), 0.0

    @property
    def patterns(self) -> tuple[str, ...] | None:
        """The regular expressions in use besides the built-in rules; None when a function is."""
        return None if callable(self._own) else tuple(self._own)

    def masker(self) -> Callable[[str], str]:
        """Return what replaces the secrets of this moment in a text; JSON text stays JSON text."""
        now_s = time.monotonic()
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + _CHECK_INTERVAL_S
            basis = (secret_values(os.environ), os.environ.get(PATTERNS_VARIABLE))
            if basis != self._basis:
                self._basis, self._masker = basis, self._build(self._own)
        return self._masker

    def _build(self, own: Mask) -> Callable[[str], str]:
        if callable(own):
            return build_masker(os.environ, function=own)
        return build_masker(os.environ, patterns=own)


# What a person says is secret holds for all that this process writes, whichever room writes it.
_process_mask = CurrentMask()


def process_mask() -> CurrentMask:
    """Return the mask of this process, to which `research_kit.bind` adds the user's own."""
    return _process_mask


def masked_text(text: str) -> str:
    """Return ``text`` with ``[masked]`` in the place of secrets; JSON text stays JSON text."""
    return _process_mask.masker()(text)
