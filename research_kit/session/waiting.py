"""What ended kernels have left on disk, for the command line.

Owns looking at the spools of all destinations and delivering those of the configured one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from research_kit.config import load_settings
from research_kit.session.backend import resolve_backend, spool_folder

if TYPE_CHECKING:
    from research_kit.session.delivery import DeliveryState

__all__ = ["Waiting", "count_waiting", "deliver_waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How much waits on disk, whatever server it is for."""

    entry_count: int
    kernel_count: int


def count_waiting(data_dir: Path) -> Waiting:
    """Count what ended kernels have left; those that still run are not counted."""
    from research_kit.session.spool import Spool
    from research_kit.session.spools import spool_paths

    entry_count = kernel_count = 0
    folders = [path for path in (data_dir / "spool").glob("*") if path.is_dir()]
    for path in [path for folder in folders for path in spool_paths(folder)]:
        with suppress(OSError):  # a file that cannot be read belongs to somebody else
            spool = Spool.adopt(path)
            if spool is None:
                continue
            entry_count += spool.pending_count + len(spool.open_roots)
            kernel_count += 1
            spool.close()
    return Waiting(entry_count=entry_count, kernel_count=kernel_count)


def deliver_waiting(*, timeout_s: float, includes_refused: bool = False) -> DeliveryState:
    """Deliver what ended kernels have left for the server that is configured now.

    Raises:
        StoreError: When the embedded store cannot be started.
        ConfigError: When a setting cannot be used.
    """
    from research_kit.session.delivery import deliver_spools

    settings = load_settings()
    return deliver_spools(
        resolve_backend,
        spool_folder(settings.data_dir, resolve_backend(settings)),
        timeout_s=timeout_s,
        includes_refused=includes_refused,
    )
