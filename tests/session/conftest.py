"""A real store process and real kernels."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Observations, end_kernel, start_kernel

from research_kit.store import ensure_running, stop_store

_AUTHOR = ["-c", "user.name=a", "-c", "user.email=a@b.c"]


@pytest.fixture(scope="session")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in a repository with one commit and a change since."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "file").write_text("one")
    for command in (["init"], ["add", "file"], [*_AUTHOR, "commit", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    (folder / "file").write_text("two")
    return folder / "data"


@pytest.fixture(scope="session")
def shared_store(shared_data_dir: Path) -> Iterator[Observations]:
    yield Observations(ensure_running(shared_data_dir))
    stop_store(shared_data_dir)


@pytest.fixture(scope="session")
def shared_kernel(shared_data_dir: Path, shared_store: Observations) -> Iterator[Kernel]:
    """A kernel with the extension loaded, shared by all tests; each begins a session of its own."""
    environment = {"RESEARCH_KIT_DATA_DIR": str(shared_data_dir), "RESEARCH_KIT_STRICT_TELEMETRY": "true"}
    kernel = start_kernel(environment, shared_data_dir)
    kernel.run("%load_ext research_kit\nimport research_kit as rk\nimport langfuse")
    yield kernel
    end_kernel(kernel)


@pytest.fixture
def new_kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """Start kernels with an environment of their own."""
    kernels: list[Kernel] = []

    def start(**environment: str) -> Kernel:
        kernels.append(start_kernel(environment, tmp_path))
        return kernels[-1]

    yield start
    for kernel in kernels:
        end_kernel(kernel)
    # One that a kernel started, if any did.
    stop_store(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Observations]:
    yield Observations(ensure_running(tmp_path / "data"))
    stop_store(tmp_path / "data")
