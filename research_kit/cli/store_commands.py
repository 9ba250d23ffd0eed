"""The commands ``research-kit store ...``: the embedded store of this machine.

Parses and prints; what the commands do lives in `research_kit.store`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from research_kit.cli.printing import say, say_secret
from research_kit.config import load_settings
from research_kit.store import ensure_running, get_store_status, opening_link, stop_store
from research_kit.store.links import session_page_path

__all__ = ["add_store_commands", "print_store"]


def add_store_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``store`` with its actions to the command line."""
    store = commands.add_parser("store", help="the embedded store of this machine")
    actions = store.add_subparsers(required=True, metavar="action")
    start = actions.add_parser("start", help="start the server when it is not running")
    start.set_defaults(run=_start)
    stop = actions.add_parser("stop", help="stop the server")
    stop.set_defaults(run=_stop)
    status = actions.add_parser("status", help="say where it is and whether it runs")
    status.add_argument("--json", action="store_true", help="everything, with the keys, as JSON")
    status.set_defaults(run=_show)
    path = actions.add_parser("path", help="print the path of the database")
    path.set_defaults(run=_show_path)
    link = actions.add_parser("open", help="print a link that opens its pages once, in the next five minutes")
    link.add_argument("session", nargs="?", help="a session id; without it, the list of sessions")
    link.add_argument(
        "--plain-host",
        action="store_true",
        help="lead to 127.0.0.1, for browsers that do not know names below .localhost (Safari)",
    )
    link.set_defaults(run=_link)
    vacuum = actions.add_parser("vacuum", help="give back the space of what was deleted")
    vacuum.set_defaults(run=_vacuum)
    backup = actions.add_parser("backup", help="copy the database, also while it is written")
    backup.add_argument("file", type=Path, help="a file that does not exist yet")
    backup.set_defaults(run=_backup)


def print_store() -> None:
    """Say where the store is and whether it runs."""
    status = get_store_status(load_settings().data_dir)
    if status.is_running:
        say(f"running at {status.base_url} (process {status.pid}), {status.observation_count} observations")
        say(f"database: {status.path}")
        if status.notice:
            say(f"note: {status.notice}")
    else:
        say(f"not running; database: {status.path}")


def _start(_: argparse.Namespace) -> int:
    address = ensure_running(load_settings().data_dir)
    say(f"the store runs at {address.base_url} (process {address.pid})")
    return 0


def _stop(_: argparse.Namespace) -> int:
    was_running = stop_store(load_settings().data_dir)
    say("the store was stopped" if was_running else "the store was not running")
    return 0


def _show(options: argparse.Namespace) -> int:
    if not options.json:
        print_store()
        return 0
    status = get_store_status(load_settings().data_dir)
    fields = ("is_running", "base_url", "public_key", "secret_key", "project_id", "pid", "version")
    shown = {name: getattr(status, name) for name in fields}
    text = json.dumps({**shown, "path": str(status.path), "observation_count": status.observation_count})
    say_secret(text.replace("##", r"#\u0023"))  # JSON's own escape, which a program reads back
    return 0


def _show_path(_: argparse.Namespace) -> int:
    say(str(get_store_status(load_settings().data_dir).path))
    return 0


def _link(options: argparse.Namespace) -> int:
    address = ensure_running(load_settings().data_dir)
    path = session_page_path(address.project_id, options.session) if options.session else "/"
    # Printed and not opened: the arguments of a browser's process can be read by other users.
    say_secret(opening_link(address, path, fits_any_host=options.plain_host))
    return 0


def _vacuum(_: argparse.Namespace) -> int:
    from research_kit.store.maintenance import vacuum_store

    sizes = vacuum_store(load_settings().data_dir)
    before_mb, after_mb = (size / 1e6 for size in sizes)
    say(f"the database has {after_mb:.1f} MB; it had {before_mb:.1f} MB")
    return 0


def _backup(options: argparse.Namespace) -> int:
    from research_kit.store.maintenance import backup_store

    say(f"written: {backup_store(load_settings().data_dir, options.file)}")
    return 0
