"""The command line, ``research-kit``."""

from __future__ import annotations

from research_kit.cli.commands import main

__all__ = ["main"]
