"""The commands ``research-kit push`` and ``research-kit pull``.

Parses, shows progress and prints; what is moved lives in `research_kit.transfer`.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from research_kit.cli.printing import say
from research_kit.masking import masked_text
from research_kit.plain_text import plain_text

if TYPE_CHECKING:
    from research_kit.transfer import Transferred

__all__ = ["add_transfer_commands"]


def add_transfer_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``push`` and ``pull`` to the command line."""
    push = commands.add_parser("push", help="send what the embedded store holds to a Langfuse server")
    push.add_argument("--to", metavar="URL", help="the server; by default LANGFUSE_BASE_URL")
    push.add_argument("--session", action="append", metavar="ID", help="only this session; may be repeated")
    push.add_argument("--since", metavar="TIME", help="only what began then or later, such as 2026-11-20")
    push.set_defaults(run=_push)
    pull = commands.add_parser("pull", help="fetch a session from a Langfuse server into the embedded store")
    pull.add_argument("session", metavar="SESSION")
    pull.add_argument("--from", dest="from_url", metavar="URL", help="by default LANGFUSE_BASE_URL")
    pull.set_defaults(run=_pull)


def _push(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from research_kit.config import load_settings
    from research_kit.store import get_store_status
    from research_kit.transfer import push

    is_everything = not options.session and not options.since
    total = get_store_status(load_settings().data_dir).observation_count if is_everything else None
    with tqdm(total=total, unit=" observations", disable=None, file=sys.__stderr__) as bar:
        moved = push(options.to, session_ids=options.session, since=options.since, on_progress=bar.update)
    return _print_moved(moved)


def _pull(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from research_kit.transfer import pull

    with tqdm(unit=" observations", disable=None, file=sys.__stderr__) as bar:
        moved = pull(options.session, from_url=options.from_url, on_progress=bar.update)
    return _print_moved(moved)


def _print_moved(moved: Transferred) -> int:
    say(f"{moved.observation_count} observations and {moved.score_count} scores are there")
    for line in moved.refused:
        say(f"refused: {plain_text(masked_text(line))}")
    return 1 if moved.refused else 0
