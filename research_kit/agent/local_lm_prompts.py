"""What the small model has read of its prompts' fixed beginnings, kept on disk between runs of its server.

Owns those files, and the slots of the server that they are loaded into; the texts are those of `small_tasks`.
Reading them takes the model half a minute, loading them a tenth of a second. Invariant: a file holds a fixed
text only, and nothing that somebody has asked.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from research_kit.agent.local_lm_process import LocalServer
from research_kit.config import private_directory

__all__ = ["KeptPrompts", "prompt_folder"]

_TIMEOUT_S = 120.0


def prompt_folder(directory: Path) -> Path:
    """Return where the files are, in the folder of the server; it is made when missing."""
    return private_directory(directory / "prompts", purpose="what the small local model has read")


class KeptPrompts:
    """The fixed beginnings of a running server's prompts, one for each slot.

    Args:
        server: The server.
        folder: Its `prompt_folder`.
        texts: The beginnings, at most as many as the server has slots.
    """

    def __init__(self, server: LocalServer, folder: Path, texts: Sequence[str]) -> None:
        self._server = server
        self._folder = folder
        self._texts = texts
        # Another version of the library may lay out its memory in another way.
        made_by = version("xllamacpp")
        self._names = [
            f"{hashlib.sha256(f'{made_by} {text}'.encode()).hexdigest()[:16]}.bin" for text in texts
        ]

    def load(self) -> None:
        """Load what is kept; what cannot be loaded is deleted, and so is what belongs to other texts."""
        for path in self._folder.glob("*.bin"):
            if path.name not in self._names:
                path.unlink(missing_ok=True)
        for slot, name in enumerate(self._names):
            if (self._folder / name).exists() and not self._do(slot, "restore", name):
                (self._folder / name).unlink(missing_ok=True)

    def add_missing(self, stop: threading.Event) -> None:
        """Let the model read what is not kept yet, as long as nobody asks it anything."""
        for slot, name in enumerate(self._names):
            if (self._folder / name).exists():
                continue
            if stop.is_set() or self._is_busy():
                return
            prompt = {"prompt": self._texts[slot], "n_predict": 0, "id_slot": slot, "cache_prompt": True}
            if self._ask("POST", "/completion", prompt) is None or not self._do(slot, "save", name):
                return

    def _do(self, slot: int, action: str, name: str) -> bool:
        return self._ask("POST", f"/slots/{slot}?action={action}", {"filename": name}) is not None

    def _is_busy(self) -> bool:
        slots = self._ask("GET", "/slots")
        return slots is None or any(slot["is_processing"] for slot in slots)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return what the server answers; None when it refuses or cannot: then nothing is kept."""
        headers = {"Authorization": f"Bearer {self._server.api_key}"}
        address = f"{self._server.base_url}{path}"
        try:
            # There is nothing to verify, and certificates take longer than most answers.
            answer = httpx.request(
                method, address, json=body, headers=headers, timeout=_TIMEOUT_S, verify=False
            )
            return answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None
