"""The server process: ``python -m research_kit.store.server --data-dir FOLDER``.

Owns the process: its lock, its socket, its note for clients, its end. Invariant: while the server lock is
held exactly this process serves the data directory, and when it ends nothing but the files stays behind.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import uvicorn
from filelock import FileLock, Timeout

from research_kit._optional import DISTRIBUTION
from research_kit.config import load_settings
from research_kit.errors import ResearchKitError, StoreError
from research_kit.masking import MaskedFormatter
from research_kit.store.app import build_app
from research_kit.store.context import Store
from research_kit.store.listening import Listeners, PatientProtocol, open_listeners
from research_kit.store.recovery import open_or_recover
from research_kit.store.retention import Limits, apply_limits
from research_kit.store.rollup import refresh_quiet_hours
from research_kit.store.state import (
    Listening,
    StorePaths,
    load_or_create_credentials,
    open_data_dir,
    read_listening,
    write_listening,
)
from research_kit.store.word_search import has_words

__all__ = ["main", "serve"]

_logger = logging.getLogger("research_kit.store")

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOCK_TIMEOUT_S = 5.0
_WATCH_INTERVAL_S = 2.0
_ROLL_UP_INTERVAL_S = 2.0
_RETENTION_INTERVAL_S = 3600.0
_SHUTDOWN_TIMEOUT_S = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end; the exit code is 0 after an orderly end."""
    parser = argparse.ArgumentParser(
        prog="python -m research_kit.store.server", description="Serve the embedded store."
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--port", type=int, help="port on the loopback interface; by default the last one, or a free one"
    )
    parser.add_argument(
        "--idle-timeout-s",
        type=float,
        help="end after so many seconds without a request (default: RESEARCH_KIT_STORE_IDLE_MINUTES)",
    )
    options = parser.parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(MaskedFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _logger.setLevel(logging.INFO)
    try:
        serve(options.data_dir, port=options.port, idle_timeout_s=options.idle_timeout_s or _idle_timeout_s())
    except ResearchKitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def serve(data_dir: Path, *, port: int | None = None, idle_timeout_s: float | None = None) -> None:
    """Serve the store of ``data_dir`` on the loopback interface until SIGTERM, SIGINT or the idle time-out.

    Raises:
        ConfigError: When the folder cannot be used.
        StoreError: When another server holds it, or its database cannot be opened.
    """
    # What SQLite and others create here is nobody else's either.
    os.umask(0o077)
    paths = open_data_dir(data_dir)
    lock = FileLock(paths.server_lock, mode=0o600)
    try:
        # Clients try this lock for an instant to see whether a server is alive, so one failure means nothing.
        lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout as error:
        raise StoreError(
            f"Another server already serves {str(data_dir)!r}. Stop it first, or use it."
        ) from error
    try:
        _serve_locked(paths, port, idle_timeout_s)
    finally:
        lock.release()


def _serve_locked(paths: StorePaths, port: int | None, idle_timeout_s: float | None) -> None:
    last = read_listening(paths)
    database = open_or_recover(
        paths.database,
        functions={"has_words": has_words},
        was_ended=last is not None and last.is_stopped,
    )
    listeners = open_listeners(paths, port if port is not None else (last.port if last else 0))
    store = Store(
        database=database,
        credentials=load_or_create_credentials(paths),
        version=version(DISTRIBUTION),
        port=listeners.port,
    )
    note = Listening(
        pid=os.getpid(),
        port=listeners.port,
        version=store.version,
        socket_path=listeners.socket_path,
        former_port=listeners.refused_port,
    )
    try:
        asyncio.run(_run(store, listeners, paths, note, idle_timeout_s))
    finally:
        listeners.close()
        database.close()
        _logger.info("Ended.")
        if paths.data_dir.is_dir():
            _leave_note(paths, replace(note, is_stopped=True))


async def _run(
    store: Store, listeners: Listeners, paths: StorePaths, note: Listening, idle_timeout_s: float | None
) -> None:
    config = uvicorn.Config(
        build_app(store),
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        # Headers of a proxy are looked at where they are believed.
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        server_header=False,
    )
    server = _Server(config)
    # They listen from here on: who reads the note now and connects waits a moment, and is served.
    listeners.listen(config.backlog)
    write_listening(paths, note)
    _logger.info("research-kit %s serves %s at %s.", note.version, paths.database, note.base_url)
    tasks = [
        asyncio.create_task(_watch(server, store, paths, note, idle_timeout_s)),
        asyncio.create_task(_roll_up(store)),
        asyncio.create_task(_keep_within(store, _read_limits())),
    ]
    await server.serve(sockets=listeners.sockets)
    for task in tasks:
        task.cancel()


class _Server(uvicorn.Server):
    """A server that ends when it is told to, and leaves the rest of the process to end in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals as the wish to end.

        The original raises them again when the server has ended, and so ends the process before it has closed
        the database and left its note.
        """
        before = {number: signal.signal(number, self._note_end) for number in _END_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_end(self, number: int, _: FrameType | None) -> None:
        _logger.info("Asked to end by %s.", signal.Signals(number).name)
        self.should_exit = True


async def _roll_up(store: Store) -> None:
    """Sum up the hours in which nothing happens any more."""
    stale: dict[int, int] = {}
    while True:
        await asyncio.sleep(_ROLL_UP_INTERVAL_S)
        stale = await asyncio.to_thread(refresh_quiet_hours, store.database, stale)


async def _keep_within(store: Store, limits: Limits) -> None:
    """Delete what is beyond the limits, at the start and every hour."""
    while limits != Limits():
        await asyncio.to_thread(apply_limits, store.database, limits)
        await asyncio.sleep(_RETENTION_INTERVAL_S)


def _idle_timeout_s() -> float | None:
    minutes = load_settings().store_idle_minutes
    return None if minutes is None else minutes * 60


def _read_limits() -> Limits:
    settings = load_settings()
    max_mb = settings.store_max_mb
    return Limits(
        max_age_days=settings.store_max_age_days, max_bytes=None if max_mb is None else int(max_mb * 1e6)
    )


async def _watch(
    server: uvicorn.Server, store: Store, paths: StorePaths, note: Listening, idle_timeout_s: float | None
) -> None:
    """End the server when nobody has asked for long or its folder is gone; keep its note in place."""
    while not server.should_exit:
        await asyncio.sleep(min(_WATCH_INTERVAL_S, idle_timeout_s or _WATCH_INTERVAL_S))
        reason = _reason_to_end(store, paths, note, idle_timeout_s)
        if reason:
            _logger.info("%s", reason)
            server.should_exit = True
        elif read_listening(paths) != note:
            _leave_note(paths, note)


def _reason_to_end(
    store: Store, paths: StorePaths, note: Listening, idle_timeout_s: float | None
) -> str | None:
    if idle_timeout_s is not None and store.activity.idle_s > idle_timeout_s:
        return "Nobody has asked for long."
    if not paths.database.exists():
        return "The database is gone."
    if note.socket_path is not None and not Path(note.socket_path).is_socket():
        # Clients come by it only; the next start makes another.
        return "The socket is gone."
    return None


def _leave_note(paths: StorePaths, note: Listening) -> None:
    try:
        write_listening(paths, note)
    except OSError as error:
        # It only saves the next start some work.
        _logger.error("Cannot write %s: %s.", paths.listening, error)


if __name__ == "__main__":
    sys.exit(main())
