"""The command line: ``research-kit store``, ``status``, ``deliver``, ``run``.

Parses and delegates; what the commands do lives in the layers below. Invariant: a mistake of the user ends
with one line on standard error and exit code 2, never with a traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from research_kit.config import load_settings
from research_kit.errors import ResearchKitError
from research_kit.store import ensure_running, get_store_status, page_url, stop_store

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a notebook failed, 2 it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ResearchKitError as error:
        print(f"research-kit: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="research-kit", description="Observed research sessions in Jupyter."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_store(commands)
    status = commands.add_parser("status", help="where traces go, and what waits to be delivered")
    status.set_defaults(run=_show_status)
    deliver = commands.add_parser("deliver", help="send what earlier kernels could not deliver")
    deliver.add_argument(
        "--refused", action="store_true", help="also what the server refused for its content"
    )
    deliver.add_argument("--timeout", type=float, default=60.0, help="how long to try, in seconds")
    deliver.set_defaults(run=_deliver)
    run = commands.add_parser("run", help="execute one notebook and say how it ended")
    run.add_argument("notebook", type=Path)
    run.add_argument("--output", type=Path, help="where the executed copy goes")
    run.set_defaults(run=_run_notebook)
    return parser


def _add_store(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    store = commands.add_parser("store", help="the embedded store of this machine")
    actions = store.add_subparsers(required=True, metavar="action")
    start = actions.add_parser("start", help="start the server when it is not running")
    start.set_defaults(run=_start_store)
    stop = actions.add_parser("stop", help="stop the server")
    stop.set_defaults(run=_stop_store)
    status = actions.add_parser("status", help="say where it is and whether it runs")
    status.add_argument("--json", action="store_true", help="everything, with the keys, as JSON")
    status.set_defaults(run=_show_store)
    link = actions.add_parser("open", help="print a link that opens its pages in a browser")
    link.set_defaults(run=_link_store)


def _show_status(_: argparse.Namespace) -> int:
    from research_kit.session import count_waiting

    settings = load_settings()
    if not settings.is_tracing_enabled:
        print("disabled: LANGFUSE_TRACING_ENABLED is false")
    elif settings.public_key:
        print(f"Langfuse at {settings.base_url}, key {settings.public_key}")
    else:
        _show_store(argparse.Namespace(json=False))
    waiting = count_waiting(settings.data_dir)
    print(f"waiting on disk: {waiting.entry_count} entries of {waiting.kernel_count} ended kernels")
    return 0


def _deliver(options: argparse.Namespace) -> int:
    from research_kit.session import deliver_waiting

    state = deliver_waiting(timeout_s=options.timeout, includes_refused=options.refused)
    print(f"{state.delivered_count} delivered, {state.pending_count} waiting, {state.refused_count} refused")
    if state.reason:
        print(state.reason)
    return 0 if not state.pending_count and not state.refused_count else 1


def _start_store(_: argparse.Namespace) -> int:
    address = ensure_running(load_settings().data_dir)
    print(f"the store runs at {address.base_url} (process {address.pid})")
    return 0


def _stop_store(_: argparse.Namespace) -> int:
    was_running = stop_store(load_settings().data_dir)
    print("the store was stopped" if was_running else "the store was not running")
    return 0


def _show_store(options: argparse.Namespace) -> int:
    status = get_store_status(load_settings().data_dir)
    if options.json:
        fields = ("is_running", "base_url", "public_key", "secret_key", "project_id", "pid", "version")
        shown = {name: getattr(status, name) for name in fields}
        print(json.dumps({**shown, "path": str(status.path), "observation_count": status.observation_count}))
    elif status.is_running:
        print(f"running at {status.base_url} (process {status.pid}), {status.observation_count} observations")
        print(f"database: {status.path}")
    else:
        print(f"not running; database: {status.path}")
    return 0


def _link_store(_: argparse.Namespace) -> int:
    print(page_url(ensure_running(load_settings().data_dir), "/"))
    return 0


def _run_notebook(options: argparse.Namespace) -> int:
    from research_kit.regression import run_notebook

    output = options.output or options.notebook.with_suffix(".executed.ipynb")
    result = run_notebook(options.notebook, output_path=output)
    print(f"{result.outcome} after {result.duration_s:.1f} s: {result.output_path}")
    if result.message:
        print(result.message)
    return 0 if result.outcome == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
