"""The command line: ``research-kit store``, ``status``, ``deliver``, ``test``, ``run``.

Parses and delegates; what the commands do lives in the layers below. Invariant: a mistake of the user ends
with one line on standard error and exit code 2, never with a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from research_kit._slow_formats import defer_slow_formats
from research_kit.cli.delivery_commands import add_delivery_commands
from research_kit.cli.doctor import add_doctor_command
from research_kit.cli.init_project import add_init_command
from research_kit.cli.printing import say
from research_kit.cli.store_commands import add_store_commands
from research_kit.cli.test_commands import add_test_commands
from research_kit.cli.tool_server_commands import add_tool_server_commands
from research_kit.cli.transfer_commands import add_transfer_commands
from research_kit.cli.trust_commands import add_trust_command
from research_kit.errors import ResearchKitError
from research_kit.masking import masked_text
from research_kit.plain_stream import guard_terminal
from research_kit.session.environment_file import read_environment_file

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a notebook failed, 2 it could not be done."""
    guard_terminal()
    # Before anything that imports it.
    defer_slow_formats()
    options = build_parser().parse_args(arguments)
    try:
        for problem in read_environment_file().problems:
            say(f"research-kit: {problem}", file=sys.stderr)
        return int(options.run(options))
    except KeyboardInterrupt:
        say("research-kit: interrupted", file=sys.stderr)
        return 130
    except ResearchKitError as error:
        say(f"research-kit: {masked_text(str(error))}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="research-kit", description="Observed research sessions in Jupyter."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    add_init_command(commands)
    add_doctor_command(commands)
    add_trust_command(commands)
    add_store_commands(commands)
    add_delivery_commands(commands)
    add_transfer_commands(commands)
    add_tool_server_commands(commands)
    add_test_commands(commands)
    return parser
