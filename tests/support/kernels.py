"""Real kernels, and reading back from the store what arrived of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from research_kit.store import StoreAddress

DEADLINE_S = 30.0


@dataclass
class Observations:
    """Reads back what arrived in the store."""

    address: StoreAddress

    def read(self, **query: str) -> list[dict[str, Any]]:
        answer = httpx.get(
            f"{self.address.base_url}/api/public/v2/observations",
            params={"fields": "core,basic,io,metadata,trace_context", "limit": "1000", **query},
            auth=(self.address.public_key, self.address.secret_key),
        )
        answer.raise_for_status()
        return answer.json()["data"]

    def wait(self, count: int, **query: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            rows = self.read(**query)
            if len(rows) >= count:
                return rows
            names = [row["name"] for row in rows]
            assert time.monotonic() < deadline, f"only {len(rows)} of {count} observations arrived: {names}"
            time.sleep(0.1)


@dataclass
class Kernel:
    """One running kernel; `run` fails the test when the cell fails."""

    manager: KernelManager
    client: BlockingKernelClient
    printed: list[str] = field(default_factory=list)

    def run(self, code: str) -> str:
        printed: list[str] = []
        answer = self.client.execute_interactive(
            code,
            timeout=120,
            output_hook=lambda message: printed.append(text_of(message)),
            allow_stdin=False,
        )
        content = answer["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", [])) or content
        self.printed = printed
        return "".join(printed)


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content.get("text") or content.get("data", {}).get("text/plain", "")


def start_kernel(environment: dict[str, str], cwd: Path, **options: Any) -> Kernel:
    """Start a kernel; ``options`` are those of its process, such as ``stderr``."""
    # Sockets, not ports: free ports are looked up before they are opened, and workers start side by side.
    sockets = Path(tempfile.mkdtemp(prefix="rk-"))
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(sockets / "kernel"))
    manager.start_kernel(env={**os.environ, **environment}, cwd=str(cwd), **options)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return Kernel(manager=manager, client=client)


def end_kernel(kernel: Kernel) -> None:
    kernel.client.stop_channels()
    if kernel.manager.is_alive():
        kernel.manager.shutdown_kernel()
    kernel.manager.cleanup_resources()
    shutil.rmtree(Path(kernel.manager.ip).parent)
