"""The commands ``research-kit status`` and ``research-kit deliver``.

Parses and prints; what waits, and how it is sent, lives in `research_kit.session`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from research_kit._addresses import without_passwords
from research_kit.cli.printing import say
from research_kit.cli.store_commands import print_store
from research_kit.config import load_settings
from research_kit.masking import masked_text
from research_kit.plain_text import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from research_kit.session.delivery import DeliveryState

__all__ = ["add_delivery_commands"]


def add_delivery_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``status`` and ``deliver`` to the command line."""
    status = commands.add_parser("status", help="where traces go, and what waits to be delivered")
    status.add_argument(
        "--aside",
        action="store_true",
        help="list what was set aside, because a server did not take it, and why",
    )
    status.set_defaults(run=_show_status)
    deliver = commands.add_parser("deliver", help="send what earlier kernels could not deliver")
    deliver.add_argument("--refused", action="store_true", help="also what was set aside")
    deliver.add_argument(
        "--drop-refused", action="store_true", help="delete what was set aside instead of sending anything"
    )
    deliver.add_argument(
        "--other-keys", action="store_true", help="also what was meant for other keys, as for a mistyped one"
    )
    deliver.add_argument("--timeout", type=float, default=60.0, help="how long to try, in seconds")
    deliver.set_defaults(run=_deliver)


def _show_status(options: argparse.Namespace) -> int:
    if options.aside:
        return _list_aside()
    from research_kit.session import count_waiting
    from research_kit.session.backend import key_refusal

    settings = load_settings()
    if not settings.is_tracing_enabled:
        say("disabled: LANGFUSE_TRACING_ENABLED is false")
    elif refusal := key_refusal(settings):
        say(f"nothing is sent: {refusal}")
    elif settings.public_key:
        say(f"Langfuse at {without_passwords(settings.base_url)}, key {settings.public_key}")
    else:
        print_store()
    if settings.data_dir_notice:
        say(settings.data_dir_notice)
    waiting = count_waiting(settings.data_dir)
    say(f"waiting on disk: {waiting.entry_count} entries of {waiting.kernel_count} ended kernels")
    if waiting.aside_count:
        say(f"set aside: {waiting.aside_count} entries; research-kit status --aside lists them")
    return 0


def _list_aside() -> int:
    from research_kit.session.aside import list_aside
    from research_kit.session.waiting import spool_folders

    entries = list(list_aside(spool_folders(load_settings().data_dir)))
    for found in entries:
        place = f" of trace {found.trace_id}" if found.trace_id else ""
        reason = _quoted(found.reason) or "no reason known"
        say(f"{found.kind} {found.name!r}{place}, {found.body_bytes} bytes: {reason}")
        say(f"  in {plain_text(str(found.path))}")
    if entries:
        say("research-kit deliver --refused tries again, research-kit deliver --drop-refused deletes them")
    else:
        say("nothing is set aside")
    return 0


def _quoted(reason: str) -> str:
    """Return what a server said on one line, without secrets."""
    return plain_text(masked_text(reason))


def _deliver(options: argparse.Namespace) -> int:
    from research_kit.session import count_for_other_keys, count_waiting, deliver_waiting

    if options.drop_refused:
        return _drop_refused()
    waiting = count_waiting(load_settings().data_dir)
    if waiting.entry_count:
        say(f"sending {waiting.entry_count} entries, for at most {options.timeout:g} s")
    state = deliver_waiting(
        timeout_s=options.timeout,
        includes_refused=options.refused,
        includes_other_keys=options.other_keys,
        on_change=_say_once(),
    )
    say(f"{state.delivered_count} delivered, {state.pending_count} waiting, {state.refused_count} refused")
    if state.lost_count:
        say(f"{state.lost_count} were given up before: more waited than RESEARCH_KIT_SPOOL_MAX_MB allows")
    if state.reason:
        say(_quoted(state.reason))
    if state.aside_count:
        say(f"{state.aside_count} are set aside; research-kit status --aside lists them")
    if (count := count_for_other_keys()) and not options.other_keys:
        say(f"{count} wait for other keys; research-kit deliver --other-keys sends them with those set now")
    return 0 if not state.pending_count and not state.refused_count else 1


def _say_once() -> Callable[[DeliveryState], None]:
    """Return what prints each reason once, while it is worked on."""
    said = {""}

    def say_reason(state: DeliveryState) -> None:
        if state.reason not in said:
            said.add(state.reason)
            say(f"{state.outcome}: {_quoted(state.reason)}")

    return say_reason


def _drop_refused() -> int:
    from research_kit.session.aside import drop_aside
    from research_kit.session.waiting import spool_folders

    count = drop_aside(spool_folders(load_settings().data_dir))
    say(f"{count} entries that were set aside are deleted")
    return 0
