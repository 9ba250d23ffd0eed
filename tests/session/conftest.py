"""A real store process and real kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Observations, end_kernel, start_kernel

from research_kit.store import ensure_running, stop_store


@pytest.fixture(scope="module")
def module_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("session") / "data"


@pytest.fixture(scope="module")
def module_store(module_data_dir: Path) -> Iterator[Observations]:
    yield Observations(ensure_running(module_data_dir))
    stop_store(module_data_dir)


@pytest.fixture(scope="module")
def module_kernel(module_data_dir: Path, module_store: Observations) -> Iterator[Kernel]:
    """A kernel with the extension loaded, shared by a module's tests; each begins a session of its own."""
    environment = {"RESEARCH_KIT_DATA_DIR": str(module_data_dir), "RESEARCH_KIT_STRICT_TELEMETRY": "true"}
    kernel = start_kernel(environment, module_data_dir)
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Observations]:
    yield Observations(ensure_running(tmp_path / "data"))
    stop_store(tmp_path / "data")
