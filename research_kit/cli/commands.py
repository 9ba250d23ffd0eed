"""The command line: ``research-kit store``, ``status``, ``deliver``, ``test``, ``run``.

Parses and delegates; what the commands do lives in the layers below. Invariant: a mistake of the user ends
with one line on standard error and exit code 2, never with a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from research_kit._slow_formats import defer_slow_formats
from research_kit.cli.doctor import add_doctor_command
from research_kit.cli.init_project import add_init_command
from research_kit.cli.store_commands import add_store_commands, print_store
from research_kit.cli.test_commands import add_test_commands
from research_kit.cli.tool_server_commands import add_tool_server_commands
from research_kit.cli.transfer_commands import add_transfer_commands
from research_kit.cli.trust_commands import add_trust_command
from research_kit.config import load_settings
from research_kit.errors import ResearchKitError
from research_kit.session.environment_file import read_environment_file

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a notebook failed, 2 it could not be done."""
    # Before anything that imports it.
    defer_slow_formats()
    options = build_parser().parse_args(arguments)
    try:
        for problem in read_environment_file().problems:
            print(f"research-kit: {problem}", file=sys.stderr)
        return int(options.run(options))
    except KeyboardInterrupt:
        print("research-kit: interrupted", file=sys.stderr)
        return 130
    except ResearchKitError as error:
        print(f"research-kit: {error}", file=sys.stderr)
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
    status = commands.add_parser("status", help="where traces go, and what waits to be delivered")
    status.set_defaults(run=_show_status)
    deliver = commands.add_parser("deliver", help="send what earlier kernels could not deliver")
    deliver.add_argument(
        "--refused", action="store_true", help="also what the server refused for its content"
    )
    deliver.add_argument(
        "--other-keys", action="store_true", help="also what was meant for other keys, as for a mistyped one"
    )
    deliver.add_argument("--timeout", type=float, default=60.0, help="how long to try, in seconds")
    deliver.set_defaults(run=_deliver)
    add_transfer_commands(commands)
    add_tool_server_commands(commands)
    add_test_commands(commands)
    return parser


def _show_status(_: argparse.Namespace) -> int:
    from research_kit.session import count_waiting
    from research_kit.session.backend import key_refusal

    settings = load_settings()
    if not settings.is_tracing_enabled:
        print("disabled: LANGFUSE_TRACING_ENABLED is false")
    elif refusal := key_refusal(settings):
        print(f"nothing is sent: {refusal}")
    elif settings.public_key:
        print(f"Langfuse at {settings.base_url}, key {settings.public_key}")
    else:
        print_store()
    if settings.data_dir_notice:
        print(settings.data_dir_notice)
    waiting = count_waiting(settings.data_dir)
    print(f"waiting on disk: {waiting.entry_count} entries of {waiting.kernel_count} ended kernels")
    return 0


def _deliver(options: argparse.Namespace) -> int:
    from research_kit.session import count_for_other_keys, deliver_waiting

    state = deliver_waiting(
        timeout_s=options.timeout,
        includes_refused=options.refused,
        includes_other_keys=options.other_keys,
    )
    print(f"{state.delivered_count} delivered, {state.pending_count} waiting, {state.refused_count} refused")
    if state.lost_count:
        print(f"{state.lost_count} were given up before: more waited than RESEARCH_KIT_SPOOL_MAX_MB allows")
    if state.reason:
        print(state.reason)
    if (count := count_for_other_keys()) and not options.other_keys:
        print(f"{count} wait for other keys; research-kit deliver --other-keys sends them with those set now")
    return 0 if not state.pending_count and not state.refused_count else 1
