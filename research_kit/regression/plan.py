"""Which notebooks are tests, and how they are run.

Owns the table ``[tool.research_kit.regression]`` of pyproject.toml: reads, validates and turns it into
values. Of notebooks it reads the metadata only, for which remote ones are fetched. Invariant: a `Plan` is
complete and valid, so that no other module looks at the table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from research_kit.errors import ConfigError
from research_kit.regression.expectations import Expectations
from research_kit.regression.notebook_options import (
    NotebookOptions,
    ReplayMode,
    parameter_sets,
    read_metadata,
    read_options,
)
from research_kit.regression.remote import fetch, is_remote, shown
from research_kit.regression.sanitize import Sanitizer
from research_kit.regression.settings import TABLE, Table

__all__ = ["NotebookPlan", "Plan", "find_plan", "load_plan", "redirect"]

_KEYS = (
    "notebooks",
    "expected_dir",
    "output_dir",
    "warm_kernels",
    "preload",
    "cell_timeout_s",
    "notebook_timeout_s",
    "default_sanitizers",
    "sanitize",
    "sanitize_with",
    "tolerance",
    "parameters",
    "parameter_sets",
    "per_notebook",
    "budgets",
    "record",
    "replay_latency",
    "trace_tolerance",
    "latency_tolerance",
    "temporary_cwd",
    "memory_limit_mb",
    "images",
    "image_tolerance",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookPlan:
    """One notebook with one set of parameters: what becomes one run.

    Attributes:
        path: The notebook; of a remote one, where it is kept when it is fetched.
        set_name: The name of the parameter set; None when the notebook has none.
        parameters: What papermill injects.
        baseline_path: Where the accepted outputs are, once there are some.
        options: What this notebook wants otherwise than the plan, and what is expected of its traces.
        address: Where a remote notebook is fetched from; empty for one of this machine.
    """

    path: Path
    set_name: str | None
    parameters: Mapping[str, object]
    baseline_path: Path
    options: NotebookOptions = field(default_factory=NotebookOptions)
    address: str = ""

    @property
    def name(self) -> str:
        """The name of the run, unique within the plan: the stem, and the parameter set when there is one."""
        return self.path.stem if self.set_name is None else f"{self.path.stem}.{self.set_name}"

    def place(self, root: Path | None) -> str:
        """Where the notebook is, as it is shown: an address, or a path, below ``root`` a relative one."""
        if self.address:
            return shown(self.address)
        is_inside = root is not None and self.path.is_relative_to(root)
        return str(self.path.relative_to(root) if is_inside and root is not None else self.path)

    @property
    def cassette_path(self) -> Path:
        """Where recorded answers of language models and tools are."""
        return self.baseline_path.with_name(f"{self.name}.cassette.yaml")

    @property
    def trace_baseline_path(self) -> Path:
        """Where the accepted numbers of its traces are."""
        return self.baseline_path.with_name(f"{self.name}.trace.json")

    @property
    def expectations(self) -> Expectations:
        """What is expected of its traces."""
        return self.options.expectations


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The validated configuration of one project.

    Attributes:
        root: The folder of the pyproject.toml.
        notebooks: One value per notebook and parameter set, ordered by path.
        output_dir: Where executed copies are written unless the caller says otherwise.
        output_address: The remote folder that they are then sent to; empty for none.
        cell_timeout_s: The longest that one cell may take.
        notebook_timeout_s: The longest that one notebook may take.
        is_warm: Whether kernels are forked from a process that has imported ``preload``.
        preload: The modules; None leaves the choice to what the notebooks import.
        sanitizers: What is replaced before outputs are compared, in this order.
        tolerance: The largest relative difference of two numbers in outputs.
        record: Whether answers of language models and tools are replayed: ``auto`` replays a cassette that is
            there, ``off`` none; the others are those of `replaying`.
        replays_latency: Whether replayed answers take as long as the recorded ones.
        trace_tolerance: By which part cost and tokens may exceed the accepted ones.
        latency_tolerance: By which part the latency of repeated runs may exceed the accepted one.
        is_cwd_temporary: Whether notebooks run in a temporary copy of their folder.
        memory_limit_mb: How much memory a kernel may ask for, in megabytes; None sets no limit.
        image_tolerance: The perceptual distance at which two images differ, from 0 to 1; None compares none.
    """

    root: Path
    notebooks: tuple[NotebookPlan, ...]
    output_dir: Path
    cell_timeout_s: float
    notebook_timeout_s: float
    is_warm: bool
    preload: tuple[str, ...] | None
    sanitizers: tuple[Sanitizer, ...]
    tolerance: float
    record: ReplayMode = "auto"
    replays_latency: bool = False
    trace_tolerance: float = 0.1
    latency_tolerance: float = 0.5
    output_address: str = ""
    is_cwd_temporary: bool = False
    image_tolerance: float | None = None
    memory_limit_mb: float | None = None


def find_plan(path: Path) -> Path | None:
    """Return the nearest pyproject.toml at or above ``path`` that configures notebooks as tests."""
    for folder in (path, *path.parents):
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file() and _read_table(pyproject) is not None:
            return pyproject
    return None


def load_plan(pyproject: Path, *, fetches: bool = True) -> Plan:
    """Read the plan from ``pyproject``, a pyproject.toml or the folder that holds it.

    Args:
        pyproject: Where it is.
        fetches: Whether remote notebooks are fetched, which brings their metadata into the plan. One that
            cannot be fetched now is tried again by its run, which says why.

    Raises:
        ConfigError: When the table ``[tool.research_kit.regression]`` is missing or cannot be used.
    """
    pyproject = (pyproject / "pyproject.toml" if pyproject.is_dir() else pyproject).absolute()
    if not pyproject.is_file():
        raise ConfigError(f"Cannot read the plan from {str(pyproject)!r}: there is no such file. {_REMEDY}")
    values = _read_table(pyproject)
    if values is None:
        raise ConfigError(f"{str(pyproject)!r} has no table [{TABLE}], so no notebook is a test. {_REMEDY}")
    table = Table(pyproject=pyproject, values=values)
    table.refuse_unknown_keys(_KEYS)
    root = pyproject.parent
    output = table.text("output_dir", default=_OUTPUT_DIR)
    return Plan(
        root=root,
        notebooks=_plan_notebooks(table, root, fetches=fetches),
        output_dir=root / (_OUTPUT_DIR if is_remote(output) else output),
        output_address=output if is_remote(output) else "",
        cell_timeout_s=table.seconds("cell_timeout_s", default=120.0),
        notebook_timeout_s=table.seconds("notebook_timeout_s", default=600.0),
        is_warm=table.flag("warm_kernels", default=True),
        preload=tuple(table.texts("preload")) if "preload" in values else None,
        sanitizers=table.sanitizers(),
        tolerance=table.fraction("tolerance", default=0.0),
        record=table.choice("record", get_args(ReplayMode), default="auto"),  # type: ignore[arg-type]
        replays_latency=table.flag("replay_latency", default=False),
        trace_tolerance=table.fraction("trace_tolerance", default=0.1),
        latency_tolerance=table.part("latency_tolerance", default=0.5),
        is_cwd_temporary=table.flag("temporary_cwd", default=False),
        image_tolerance=_image_tolerance(table),
        memory_limit_mb=table.amount("memory_limit_mb"),
    )


def redirect(plan: Plan, output_dir: str | None) -> tuple[Plan, Path | None]:
    """Return the plan, and the folder of executed copies that takes the place of its own.

    Args:
        plan: The plan.
        output_dir: What the caller asks for: a folder, or a remote one that copies are sent to; or nothing.
    """
    if output_dir is None:
        return plan, None
    if is_remote(output_dir):
        return replace(plan, output_address=output_dir), None
    return replace(plan, output_address=""), Path(output_dir).absolute()


def _image_tolerance(table: Table) -> float | None:
    tolerance = table.fraction("image_tolerance", default=0.1)
    return tolerance if table.flag("images", default=True) else None


_OUTPUT_DIR = ".research_kit/runs"
_FETCH_TIMEOUT_S = 60.0
_REMEDY = f'Add [{TABLE}] with notebooks = ["notebooks/*.ipynb"].'


def _read_table(pyproject: Path) -> dict[str, Any] | None:
    try:
        document = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"Cannot read {str(pyproject)!r}: {error}. Correct the file.") from error
    tables: Any = document.get("tool", {})
    for name in ("research_kit", "regression"):
        tables = tables.get(name) if isinstance(tables, dict) else None
    if tables is not None and not isinstance(tables, dict):
        raise ConfigError(f"{TABLE} in {str(pyproject)!r} is {tables!r}, which is not a table. {_REMEDY}")
    return tables


def _fetch_all(addresses: Iterable[str], root: Path) -> None:
    def fetch_one(address: str) -> None:
        with suppress(ConfigError):  # its run tries again, and says why
            fetch(address, root, timeout_s=_FETCH_TIMEOUT_S)

    with ThreadPoolExecutor(thread_name_prefix="research-kit-fetch") as pool:
        list(pool.map(fetch_one, addresses))


def _plan_notebooks(table: Table, root: Path, *, fetches: bool) -> tuple[NotebookPlan, ...]:
    places = table.notebook_places()
    stems = {path.stem for path in places}
    expected_dir = table.local_path("expected_dir", default="tests/notebooks")
    common = table.tables("parameters", allowed_names=stems)
    sets = table.tables("parameter_sets", allowed_names=stems)
    own = table.tables("per_notebook", allowed_names=stems)
    budgets = table.tables("budgets", allowed_names={*stems, "*"})
    if fetches:
        _fetch_all(filter(None, places.values()), root)
    planned = []
    for path, address in places.items():
        values = {**read_metadata(path), **own.get(path.stem, {})}
        where = f"the table of the notebook {path.name!r} of {str(table.pyproject)!r}"
        options = read_options(where, values, {**budgets.get("*", {}), **budgets.get(path.stem, {})})
        parameters = {**common.get(path.stem, {}), **values.get("parameters", {})}
        more_sets = [one for one in table.named_sets(sets.get(path.stem)) if one[0] is not None]
        more_sets += parameter_sets(where, values, root)
        for set_name, more in more_sets or [(None, {})]:
            suffix = "" if set_name is None else f".{set_name}"
            planned.append(
                NotebookPlan(
                    path=path,
                    set_name=set_name,
                    parameters={**parameters, **more},
                    baseline_path=expected_dir / f"{path.stem}{suffix}.json",
                    options=options,
                    address=address,
                )
            )
    return tuple(planned)
