"""Typed reading of one configuration table, with errors that name file, key, value and remedy.

Owns the checks of single values of ``[tool.research_kit.regression]``; does not know what they are for.
Invariant: every method returns a usable value or raises `ConfigError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from research_kit.errors import ConfigError
from research_kit.regression.remote import fetched_path, is_remote, shown
from research_kit.regression.sanitize import DEFAULT_SANITIZERS, Sanitizer

__all__ = ["TABLE", "Table"]

TABLE = "tool.research_kit.regression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The values of the table in one pyproject.toml."""

    pyproject: Path
    values: Mapping[str, Any]

    def refuse_unknown_keys(self, known: Collection[str]) -> None:
        """Raise for the first key that is not in ``known``."""
        for key in self.values:
            if key not in known:
                self._refuse(key, f"is not a setting. Use one of: {', '.join(known)}")

    def text(self, key: str, *, default: str) -> str:
        """Return a text that is not empty."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value.strip():
            self._refuse(
                key, f"is {value!r}, which is not a text. Give a path relative to the pyproject.toml"
            )
        return value

    def local_path(self, key: str, *, default: str) -> Path:
        """Return a path of this machine, below the folder of the pyproject.toml unless it is absolute."""
        value = self.text(key, default=default)
        if is_remote(value):
            self._refuse(key, f"is {shown(value)!r}; it has to be a folder of this machine")
        return self.pyproject.parent / value

    def seconds(self, key: str, *, default: float) -> float:
        """Return a positive, finite number of seconds."""
        value = self.values.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (value > 0 and math.isfinite(value)):
            self._refuse(
                key, f"is {value!r}, which is not a positive number of seconds. Give one, such as 120"
            )
        return float(value)

    def amount(self, key: str) -> float | None:
        """Return a positive number; None when the key is missing."""
        value = self.values.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value < math.inf):
            self._refuse(key, f"is {value!r}, which is not a positive number")
        return None if value is None else float(value)

    def fraction(self, key: str, *, default: float) -> float:
        """Return a number from 0 to 1."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self._refuse(key, f"is {value!r}, which is not a number from 0 to 1. Give one, such as 1e-6")
        return float(value)

    def part(self, key: str, *, default: float) -> float:
        """Return a finite number of at least 0."""
        value = self.values.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            self._refuse(key, f"is {value!r}, which is not a number of at least 0. Give one, such as 0.5")
        return float(value)

    def choice(self, key: str, choices: Sequence[str], *, default: str) -> str:
        """Return one of ``choices``."""
        value = self.values.get(key, default)
        if value not in choices:
            self._refuse(key, f"is {value!r}. Use one of: {', '.join(choices)}")
        return str(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self._refuse(key, f"is {value!r}. Write true or false")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; empty when the key is missing."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self._refuse(key, f'is {value!r}, which is not a list of texts. Write it as ["..."]')
        return value

    def notebook_places(self) -> dict[Path, str]:
        """Return the notebooks that are named, ordered, each once, remote ones last.

        The value is the address of a remote notebook, whose key is where it is kept when it is fetched; else
        it is empty. Checkpoints are left out.
        """
        patterns = self.texts("notebooks")
        if not patterns:
            self._refuse("notebooks", 'names no notebook. Write it as notebooks = ["notebooks/*.ipynb"]')
        found: dict[Path, str] = {}
        for pattern in patterns:
            found.update(
                self._remote(pattern) if is_remote(pattern) else dict.fromkeys(self._match(pattern), "")
            )
        by_stem: dict[str, Path] = {}
        for path in sorted(found, key=lambda one: (found[one], one)):
            other = by_stem.setdefault(path.stem, path)
            if other is not path:
                names = [shown(found[one]) or str(one) for one in (other, path)]
                self._refuse(
                    "notebooks",
                    f"matches {names[0]!r} and {names[1]!r}, whose baselines and parameters would have "
                    "the same name. Rename one of them",
                )
        return {path: found[path] for path in by_stem.values()}

    def _remote(self, address: str) -> dict[Path, str]:
        if "*" in address:
            self._refuse(
                "notebooks",
                f"has the pattern {shown(address)!r}; a storage cannot be searched. Name each notebook there",
            )
        return {fetched_path(address, self.pyproject.parent): address}

    def _match(self, pattern: str) -> list[Path]:
        try:
            matches = list(self.pyproject.parent.glob(pattern))
        except (ValueError, NotImplementedError) as error:
            self._refuse(
                "notebooks",
                f"has the pattern {pattern!r}: {error}. Give a path relative to the pyproject.toml",
            )
        paths = [p for p in matches if p.suffix == ".ipynb" and ".ipynb_checkpoints" not in p.parts]
        if not paths:
            self._refuse(
                "notebooks",
                f"has the pattern {pattern!r}, which matches no .ipynb file. Correct or remove it",
            )
        return paths

    def tables(self, key: str, *, allowed_names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return a table of tables whose names are all in ``allowed_names``."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self._refuse(key, f'is {value!r}, which is not a table. Write [{TABLE}.{key}."notebook-name"]')
        for name, inner in value.items():
            if name not in allowed_names:
                known = ", ".join(sorted(allowed_names))
                self._refuse(
                    key,
                    f"has {name!r}, which is no notebook of the plan. Use a name without .ipynb: {known}",
                )
            if not isinstance(inner, dict):
                self._refuse(
                    key, f'has {name} = {inner!r}, which is not a table. Write [{TABLE}.{key}."{name}"]'
                )
        return value

    def named_sets(self, sets: dict[str, Any] | None) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Yield name and parameters of each set; one set without a name when there are none."""
        if not sets:
            yield None, {}
            return
        for name, parameters in sets.items():
            if not isinstance(parameters, dict):
                self._refuse(
                    "parameter_sets", f"has {name} = {parameters!r}, which is not a table of parameters"
                )
            if not re.fullmatch(r"[\w-]+", name):
                self._refuse("parameter_sets", f"has the name {name!r}. Use letters, digits, - and _")
            yield name, parameters

    def sanitizers(self) -> tuple[Sanitizer, ...]:
        """Return the project's own sanitizers, then nbval's file, then the chosen defaults."""
        return (*self._own_sanitizers(), *self._file_sanitizers(), *self._default_sanitizers())

    def _default_sanitizers(self) -> list[Sanitizer]:
        by_name = {sanitizer.name: sanitizer for sanitizer in DEFAULT_SANITIZERS}
        if "default_sanitizers" not in self.values:
            return list(by_name.values())
        chosen = self.texts("default_sanitizers")
        for name in chosen:
            if name not in by_name:
                self._refuse(
                    "default_sanitizers", f"has {name!r}, which does not exist. Use: {', '.join(by_name)}"
                )
        return [by_name[name] for name in by_name if name in chosen]

    def _own_sanitizers(self) -> Iterator[Sanitizer]:
        value = self.values.get("sanitize", [])
        if not isinstance(value, list):
            self._refuse("sanitize", f"is {value!r}, which is not a list. {_SANITIZE_REMEDY}")
        for number, pair in enumerate(value, start=1):
            is_pair = isinstance(pair, dict) and set(pair) == {"regex", "replace"}
            if not is_pair or not all(isinstance(text, str) for text in pair.values()):
                self._refuse("sanitize", f"has {pair!r}, which is not a pair of texts. {_SANITIZE_REMEDY}")
            yield self._sanitizer(f"sanitize[{number}]", pair["regex"], pair["replace"])

    def _file_sanitizers(self) -> Iterator[Sanitizer]:
        if "sanitize_with" not in self.values:
            return
        path = self.pyproject.parent / self.text("sanitize_with", default="")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"sanitize_with in [{TABLE}] of {str(self.pyproject)!r} names {str(path)!r}, which cannot be "
                f"read: {error}. Give the path of a sanitize file of nbval, relative to the pyproject.toml."
            ) from error
        from nbval.plugin import get_sanitize_patterns  # nbval is heavy, and few plans have such a file

        pairs = get_sanitize_patterns(text)
        if not pairs:
            self._refuse(
                "sanitize_with", f"names {str(path)!r}, which has no lines 'regex: ...' and 'replace: ...'"
            )
        for number, (regex, replace) in enumerate(pairs, start=1):
            yield self._sanitizer(f"{path.name}[{number}]", regex, replace)

    def _sanitizer(self, name: str, regex: str, replace: str) -> Sanitizer:
        try:
            re.compile(regex).sub(replace, "")
        except re.error as error:
            raise ConfigError(
                f"{name} in [{TABLE}] of {str(self.pyproject)!r} has regex {regex!r} and replace "
                f"{replace!r}: {error}. Correct the regular expression."
            ) from error
        return Sanitizer(name=name, regex=regex, replace=replace)

    def _refuse(self, key: str, what: str) -> NoReturn:
        raise ConfigError(f"{key} in [{TABLE}] of {str(self.pyproject)!r} {what}.")


_SANITIZE_REMEDY = 'Write it as sanitize = [{regex = "...", replace = "..."}]'
