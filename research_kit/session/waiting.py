"""What ended kernels have left on disk, for the command line.

Owns looking at the spools of all destinations and delivering those of the configured one.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit.config import load_settings
from research_kit.errors import ConfigError
from research_kit.session.backend import resolve_backend, spool_folder
from research_kit.sources import trust_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from research_kit.session.delivery import DeliveryState

__all__ = ["Waiting", "count_for_other_keys", "count_waiting", "deliver_waiting", "spool_folders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How much waits on disk, whatever server it is for, and how much was set aside."""

    entry_count: int
    kernel_count: int
    aside_count: int = 0


def count_waiting(data_dir: Path, *, besides: Path | None = None) -> Waiting:
    """Count what ended kernels have left; those that still run are not counted.

    Args:
        data_dir: The folder of everything that waits.
        besides: The folder of one destination, which is left out.
    """
    from research_kit.session.spool import Spool
    from research_kit.session.spool_file import count_entries
    from research_kit.session.spools import REFUSED_SUFFIX, spool_paths

    entry_count = kernel_count = 0
    folders = [folder for folder in spool_folders(data_dir) if folder != besides]
    for path in [path for folder in folders for path in spool_paths(folder)]:
        with suppress(OSError):  # a file that cannot be read belongs to somebody else
            spool = Spool.adopt(path)
            if spool is None:
                continue
            entry_count += spool.pending_count + len(spool.open_roots)
            kernel_count += 1
            spool.close()
    aside = [path for folder in folders for path in spool_paths(folder, REFUSED_SUFFIX)]
    return Waiting(
        entry_count=entry_count, kernel_count=kernel_count, aside_count=sum(map(count_entries, aside))
    )


def spool_folders(data_dir: Path) -> list[Path]:
    """Return the folders of all destinations."""
    return sorted(path for path in (data_dir / "spool").glob("*") if path.is_dir())


def deliver_waiting(
    *,
    timeout_s: float,
    includes_refused: bool = False,
    includes_other_keys: bool = False,
    on_change: Callable[[DeliveryState], None] = lambda state: None,
) -> DeliveryState:
    """Deliver what ended kernels have left to the server that is configured now.

    Args:
        timeout_s: How long to try.
        includes_refused: Try again also what the server had refused for its content.
        includes_other_keys: Also what was meant for other keys, as when a key had been mistyped.
        on_change: Called with how it stands when that has become something else.

    Raises:
        StoreError: When the embedded store cannot be started.
        ConfigError: When a setting cannot be used, or other keys' entries would go where only a file says.
    """
    from research_kit.session.delivery import deliver_spools

    settings = load_settings()
    backend = resolve_backend(settings)
    folders = [spool_folder(settings.data_dir, backend)]
    if includes_other_keys:
        if backend.file is not None:
            raise ConfigError(
                f"What waits for other keys is not sent to {backend.base_url}, which only {backend.file!r} "
                "names. Set keys and address in your environment, or, when you trust the file: "
                f"{trust_command(backend.file)}"
            )
        folders += [folder for folder in spool_folders(settings.data_dir) if folder not in folders]
    deadline_s = time.monotonic() + timeout_s
    states = [
        deliver_spools(
            resolve_backend,
            folder,
            timeout_s=max(deadline_s - time.monotonic(), 0.0),
            includes_refused=includes_refused,
            on_change=on_change,
        )
        for folder in folders
    ]
    return _summed(states)


def count_for_other_keys() -> int:
    """Return how many entries wait for other keys than those that are set now."""
    settings = load_settings()
    own = spool_folder(settings.data_dir, resolve_backend(settings))
    return count_waiting(settings.data_dir, besides=own).entry_count


def _summed(states: list[DeliveryState]) -> DeliveryState:
    return replace(
        next((state for state in states if state.reason), states[0]),
        pending_count=sum(state.pending_count for state in states),
        delivered_count=sum(state.delivered_count for state in states),
        lost_count=sum(state.lost_count for state in states),
        refused_count=sum(state.refused_count for state in states),
        aside_count=sum(state.aside_count for state in states),
    )
