"""Children of ``multiprocessing``: which session they join, and what happens when they end.

Owns what passes from parent to child: a spawned child is a new interpreter, in which nothing is bound, and no
child runs the exit handlers of its interpreter. Invariant: other processes, such as a kernel that is started
from a cell, begin sessions of their own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

from research_kit.session.identity import Identity

__all__ = ["Inheritance", "call_at_child_exit", "find_inheritance", "pass_on"]

# Read by this module alone: not a setting, which every process would follow.
_VARIABLE = "_RESEARCH_KIT_PARENT"
_FIELDS = tuple(field.name for field in fields(Identity))


class Inheritance(NamedTuple):
    """What a spawned child has from its parent.

    Attributes:
        identity: Who it belongs to; None when it must not record anything before it binds a session itself.
        mask_patterns: What it never records.
    """

    identity: Identity | None
    mask_patterns: tuple[str, ...]


def pass_on(identity: Identity | None, mask_patterns: tuple[str, ...] | None) -> None:
    """Let children that are spawned from now on join the session of ``identity``.

    Args:
        identity: Who they belong to; None for nobody.
        mask_patterns: What they never record; None when a function decides, which cannot be passed on: they
            then record nothing until they bind a session themselves.
    """
    if identity is None:
        os.environ.pop(_VARIABLE, None)
        return
    if mask_patterns is None:
        os.environ[_VARIABLE] = json.dumps([None, []])
        return
    known = {name: getattr(identity, name) for name in _FIELDS}
    os.environ[_VARIABLE] = json.dumps([{**known, "metadata": dict(identity.metadata)}, mask_patterns])


def find_inheritance() -> Inheritance | None:
    """Return what this process has from its parent; None when it is no spawned child of one that is bound."""
    text = os.environ.get(_VARIABLE)
    if not text or not _is_child():
        return None
    known, patterns = json.loads(text)
    identity = None if known is None else Identity(**{**known, "tags": tuple(known["tags"])})
    return Inheritance(identity, tuple(patterns))


def call_at_child_exit(function: Callable[[], object]) -> None:
    """Call ``function`` when this process ends, if it is a child of ``multiprocessing``."""
    if _is_child():
        from multiprocessing.util import Finalize

        Finalize(None, function, exitpriority=0)


def _is_child() -> bool:
    # In a child it is there; nobody else should have to import it.
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # While a spawned child imports the program's modules, it has its name and not yet its parent.
    return process.parent_process() is not None or process.current_process().name != "MainProcess"
