"""``rk.export()`` and ``rk.read_export()``: traces as files, and back.

Owns what can be exported in which form. Invariant: the name of the file decides the form, and nothing in an
exported file runs or loads anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.reads import observations_df, scores_df
from research_kit.views.source import SourceOptions, read_options
from research_kit.views.table_files import TABLE_FORMS, read_table_file, write_table_file

__all__ = ["export", "read_export"]

_ALL = 1_000_000
_FORMS = (*TABLE_FORMS, ".html", ".ipynb")


def export(
    what: str | pd.DataFrame | None,
    path: str | os.PathLike[str],
    *,
    scores: pd.DataFrame | None = None,
    **options: Unpack[SourceOptions],
) -> Path:
    """Write a frame or a session to a file, and return its path; an existing file is replaced.

    The end of the name decides the form: ``.parquet``, ``.csv`` and ``.jsonl`` hold a frame (of a session:
    its observations) for `read_export`; ``.html`` is the session as a page that stands alone; ``.ipynb`` is a
    notebook that reads the observations, which are written beside it as Parquet, and analyses them. Beside
    ``.csv`` and ``.jsonl`` the dtypes are kept in ``<name>-columns.json``. In CSV, texts that a spreadsheet
    would take for formulas get an apostrophe, which `read_export` removes.

    Args:
        what: A frame; a session id; None for this kernel's session.
        path: The file.
        scores: A frame of `scores_df` that belongs to a frame of observations; for ``.html`` and ``.ipynb``.
        **options: `SourceOptions`: ``reader``, ``cache``, ``refresh``, ``progress``, when a session is read.

    Raises:
        ConfigError: When the form is not known, the folder does not exist, the frame cannot be kept in that
            form, or the session does not exist.
        BackendError: When the server cannot be read.
    """
    target = _target(path)
    frame = what if isinstance(what, pd.DataFrame) else _observations(what, options)
    if target.suffix in TABLE_FORMS:
        write_table_file(frame, target)
        return target
    if scores is None and not isinstance(what, pd.DataFrame):
        scores = scores_df(what, **read_options(options))
    if target.suffix == ".html":
        from research_kit.views.session_replay import replay
        from research_kit.views.style import page

        shown = replay(frame, scores=scores, max_turns=_ALL)
        target.write_text(page(shown.title, shown.to_html()), encoding="utf-8")
    else:
        # It brings the schema of notebooks, which takes long to load.
        from research_kit.views.notebook_file import write_notebook_file

        write_notebook_file(frame, scores, target)
    return target


def read_export(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the frame that `export` wrote as ``.parquet``, ``.csv`` or ``.jsonl``, with the same dtypes.

    A table from elsewhere is read too: columns named as in docs/frames.md have their dtypes, others are text.

    Raises:
        ConfigError: When there is no such file, or it holds no table.
    """
    source = Path(path)
    if source.suffix not in TABLE_FORMS:
        raise ConfigError(
            f"Cannot read {str(path)!r} back: only {', '.join(TABLE_FORMS)} hold frames; .html and .ipynb "
            "are for reading."
        )
    if not source.is_file():
        raise ConfigError(
            f"There is no file {str(path)!r} in {str(Path.cwd())!r}. Give its path; a notebook that "
            "papermill runs from another folder needs --cwd, or the parameter with the full path."
        )
    return read_table_file(source)


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix not in _FORMS:
        raise ConfigError(f"Cannot export to {str(path)!r}: name a file that ends with {', '.join(_FORMS)}.")
    if not target.absolute().parent.is_dir():
        raise ConfigError(
            f"Cannot export to {str(path)!r}: there is no folder {str(target.parent)!r}. Make it."
        )
    return target


def _observations(session_id: object, options: SourceOptions) -> pd.DataFrame:
    if session_id is not None and not isinstance(session_id, str):
        raise ConfigError(
            f"Cannot export a {type(session_id).__name__}. Give a pandas DataFrame (read with as_='pandas'), "
            "a session id, or None for this kernel's session."
        )
    frame: pd.DataFrame = observations_df(session_id, **read_options(options))
    return frame
