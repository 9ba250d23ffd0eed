"""What one notebook wants otherwise than the plan: in its table, or in its own metadata.

Owns the keys of ``[tool.research_kit.regression.per_notebook."<name>"]``, which are also those of
``metadata.research_kit`` inside a notebook, and the making of parameter sets. Invariant: the table wins over
the metadata, and a notebook that cannot be read has no metadata here; its run says what is wrong.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args

from research_kit.errors import ConfigError
from research_kit.regression.expectations import Expectations, read_expectations
from research_kit.session.environment_file import PROJECT_NAMES, is_own_name

__all__ = ["NotebookOptions", "ReplayMode", "parameter_sets", "read_metadata", "read_options"]

ReplayMode = Literal["auto", "off", "none", "missing", "all"]
Sets = list[tuple[str | None, dict[str, Any]]]

_KEYS = (
    "budgets",
    "cell_timeout_s",
    "environment",
    "markers",
    "matrix",
    "memory_limit_mb",
    "notebook_timeout_s",
    "parameter_sets",
    "parameters",
    "parameters_file",
    "record",
    "temporary_cwd",
    "tolerance",
)
_LIST_REMEDY = "matrix = { size = [10, 100] }"
_NOT_IN_IDS = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookOptions:
    """What is wanted of one notebook; None leaves it to the plan."""

    cell_timeout_s: float | None = None
    notebook_timeout_s: float | None = None
    tolerance: float | None = None
    temporary_cwd: bool | None = None
    memory_limit_mb: float | None = None
    record: ReplayMode | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    expectations: Expectations = field(default_factory=Expectations)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the table that a notebook carries in its metadata; empty when there is none to be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        values = document["metadata"]["research_kit"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}


def read_options(where: str, values: Mapping[str, Any], budgets: Mapping[str, Any]) -> NotebookOptions:
    """Check the table of one notebook.

    Args:
        where: The table, for messages.
        values: What it says.
        budgets: What is expected of every notebook; its own ``budgets`` win.

    Raises:
        ConfigError: When a key is unknown or a value cannot be used.
    """
    reading = _Reading(where, values)
    for key in values:
        if key not in _KEYS:
            reading.refuse(key, f"is not a setting. Use one of: {', '.join(_KEYS)}")
    try:
        expectations = read_expectations({**budgets, **reading.table("budgets")})
    except ConfigError as error:
        raise ConfigError(f"budgets in {where}: {error}") from error
    return NotebookOptions(
        cell_timeout_s=reading.number("cell_timeout_s"),
        notebook_timeout_s=reading.number("notebook_timeout_s"),
        tolerance=reading.number("tolerance", is_zero_allowed=True),
        temporary_cwd=reading.flag("temporary_cwd"),
        memory_limit_mb=reading.number("memory_limit_mb"),
        record=reading.record(),
        environment=reading.environment(),
        markers=reading.names("markers"),
        expectations=expectations,
    )


def parameter_sets(where: str, values: Mapping[str, Any], root: Path) -> Sets:
    """Return the named parameter sets of a table: ``parameter_sets``, ``matrix`` and ``parameters_file``.

    A matrix gives one set per combination, named by its values. A file is YAML or JSON: a mapping of names to
    parameters, a list of parameters, or a mapping with the one key ``matrix``.

    Raises:
        ConfigError: When one of them cannot be used, or two sets have one name.
    """
    reading = _Reading(where, values)
    sets: Sets = [*_named(reading, "parameter_sets", values.get("parameter_sets", {}))]
    if "matrix" in values:
        sets += _combinations(reading, values["matrix"])
    if "parameters_file" in values:
        sets += _from_file(reading, root / str(values["parameters_file"]))
    names = [name for name, _ in sets]
    for name in names:
        if names.count(name) > 1:
            reading.refuse("parameter_sets", f"has two sets of the name {name!r}. Rename one of them")
    return sets


def _named(reading: _Reading, key: str, sets: Any) -> Iterator[tuple[str | None, dict[str, Any]]]:
    if not isinstance(sets, dict):
        reading.refuse(key, f"is {sets!r}, which is not a table of parameter sets")
    for name, parameters in sets.items():
        if not isinstance(parameters, dict):
            reading.refuse(key, f"has {name} = {parameters!r}, which is not a table of parameters")
        if not re.fullmatch(r"[\w.-]+", str(name)):
            reading.refuse(key, f"has the name {name!r}. Use letters, digits, . - and _")
        yield str(name), parameters


def _combinations(reading: _Reading, matrix: Any) -> Sets:
    is_matrix = isinstance(matrix, dict) and matrix
    if not is_matrix or not all(isinstance(values, list) and values for values in matrix.values()):
        reading.refuse("matrix", f"is {matrix!r}, which is not a table of lists. Write it as {_LIST_REMEDY}")
    return [
        ("-".join(map(_as_id, values)), dict(zip(matrix, values, strict=True)))
        for values in itertools.product(*matrix.values())
    ]


def _as_id(value: object) -> str:
    return _NOT_IN_IDS.sub("_", str(value).lower() if isinstance(value, bool) else str(value))


def _from_file(reading: _Reading, path: Path) -> Sets:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reading.refuse("parameters_file", f"names {str(path)!r}, which cannot be read: {error}")
    if isinstance(document, list):
        document = {str(number): parameters for number, parameters in enumerate(document, start=1)}
    if isinstance(document, dict) and list(document) == ["matrix"]:
        return _combinations(reading, document["matrix"])
    return list(_named(reading, "parameters_file", document))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


@dataclass(frozen=True, slots=True)
class _Reading:
    """The values of one table, with errors that name it."""

    where: str
    values: Mapping[str, Any]

    def refuse(self, key: str, what: str) -> NoReturn:
        raise ConfigError(f"{key} in {self.where} {what}.")

    def table(self, key: str) -> dict[str, Any]:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, f"is {value!r}, which is not a table")
        return value

    def number(self, key: str, *, is_zero_allowed: bool = False) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < 0 or (value == 0 and not is_zero_allowed):
            self.refuse(key, f"is {value!r}, which is not a positive number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, f"is {value!r}. Write true or false")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(
            isinstance(one, str) and one.isidentifier() for one in value
        ):
            self.refuse(key, f"is {value!r}, which is not a list of names")
        return tuple(value)

    def environment(self) -> dict[str, str]:
        value = self.table("environment")
        for name, text in value.items():
            if not isinstance(text, str):
                self.refuse("environment", f"has {name} = {text!r}, which is not a text. Put it in quotes")
            if is_own_name(name.lstrip("_")) and name not in PROJECT_NAMES:
                self.refuse("environment", f"has {name}, which only you can set, in your own environment")
        return value

    def record(self) -> ReplayMode | None:
        value = self.values.get("record")
        if value is not None and value not in get_args(ReplayMode):
            self.refuse("record", f"is {value!r}. Use one of: {', '.join(get_args(ReplayMode))}")
        return cast("ReplayMode | None", value)
