"""What earlier runs of the notebooks did: one line per run, kept beside the executed copies.

Owns the file ``history.jsonl`` and the frames made from it. Invariant: lines are only added, each with one
write, so that runs side by side do not disturb each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_kit.errors import ConfigError
from research_kit.masking import masked_text
from research_kit.regression.check import Check
from research_kit.regression.run_session import git_place
from research_kit.regression.shown_text import shown_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HISTORY_COLUMNS", "compare_runs", "last_outcomes", "record_run", "runs_df"]

_FILE = "history.jsonl"
HISTORY_COLUMNS: Mapping[str, tuple[str, str]] = {
    "start_time": ("datetime64[ns, UTC]", "When the run began."),
    "notebook": ("string", "The notebook and its parameter set."),
    "outcome": ("string", "`passed`, `differs`, `failed`, `timeout`, `crashed` or `not_started`."),
    "message": ("string", "What happened, in short."),
    "duration_s": ("float64", "How long it took, the start of the kernel included."),
    "difference_count": ("Int64", "Outputs that were not as expected."),
    "trace_problem_count": ("Int64", "What its traces said against it."),
    "cost_usd": ("float64", "What its language model calls cost; NA when unknown or not traced."),
    "total_tokens": ("Int64", "The tokens that they used; NA when not traced."),
    "lm_call_count": ("Int64", "How many there were."),
    "tool_call_count": ("Int64", "How many tool calls there were."),
    "error_count": ("Int64", "Observations that failed."),
    "latency_p50_s": ("float64", "Median latency of the language model calls."),
    "latency_p95_s": ("float64", "Their 95th percentile."),
    "is_replayed": ("boolean", "Whether all answers came from a cassette."),
    "commit": ("string", "Commit of the repository."),
    "branch": ("string", "Its branch."),
    "session_id": ("string", "The Langfuse session of the run; `observations_df(session_id)` reads it."),
    "parameters": ("string", "The parameters, as JSON."),
}
_MEASURES = ("duration_s", "cost_usd", "total_tokens", "lm_call_count", "tool_call_count", "latency_p50_s")


def record_run(check: Check, folder: Path, root: Path) -> None:
    """Add a line for ``check`` to the history in ``folder``; one that cannot be written is left out."""
    line = json.dumps(_line(check, root), default=str)
    try:
        handle = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, f"{line}\n".encode())
        finally:
            os.close(handle)
    except OSError:
        return  # the executed copy has said already that the disk is full or gone


def runs_df(folder: str | Path = ".research_kit/runs") -> pd.DataFrame:
    """Return one row per run of a notebook as a test, the oldest first.

    Args:
        folder: The ``output_dir`` of the plan, which holds ``history.jsonl``; or such a file.

    Raises:
        ConfigError: When the file cannot be read.
    """
    import pandas as pd

    path = Path(folder)
    path = path / _FILE if path.is_dir() or not path.suffix else path
    try:
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        rows = [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the history of runs {str(path)!r}: {error}. Delete it.") from error
    columns = {name: pd.Series([row.get(name) for row in rows], dtype="object") for name in HISTORY_COLUMNS}
    frame = pd.DataFrame(columns)
    frame["start_time"] = pd.to_datetime(frame["start_time"], utc=True).astype("datetime64[ns, UTC]")
    kinds: Any = {name: kind for name, (kind, _) in HISTORY_COLUMNS.items() if name != "start_time"}
    return frame.astype(kinds).sort_values("start_time", ignore_index=True)


def last_outcomes(folder: Path) -> dict[str, str]:
    """Return how each notebook's last run ended; without pandas, which takes a second to import."""
    path = folder / _FILE
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    rows = [json.loads(line) for line in lines if line]
    return {row["notebook"]: row["outcome"] for row in rows}


def compare_runs(
    before: str, after: str, *, by: str = "commit", folder: str | Path = ".research_kit/runs"
) -> pd.DataFrame:
    """Compare the runs of two commits: one row per notebook and measure.

    Args:
        before: A commit (or its first characters), or a branch with ``by="branch"``.
        after: The other one.
        by: ``commit`` or ``branch``.
        folder: As in `runs_df`.

    Returns:
        ``notebook``, ``measure``, ``before`` and ``after`` (means over the runs), ``change`` (a part of
        ``before``; NA when that is 0 or unknown), ``before_count``, ``after_count``.

    Raises:
        ConfigError: When there is no run of one of them.
    """
    if by not in ("commit", "branch"):
        raise ConfigError(f"by is {by!r}. Use 'commit' or 'branch'.")
    frame = runs_df(folder)
    means = [_means(frame, by, name) for name in (before, after)]
    names = {"value": "{}", "count": "{}_count"}
    sides = [
        mean.rename(columns={name: text.format(side) for name, text in names.items()})
        for side, mean in zip(("before", "after"), means, strict=True)
    ]
    joined = sides[0].join(sides[1], how="outer")
    joined["change"] = (joined["after"] / joined["before"] - 1).where(joined["before"] != 0)
    ordered = ["before", "after", "change", "before_count", "after_count"]
    return joined[ordered].reset_index()


def _means(frame: pd.DataFrame, by: str, name: str) -> pd.DataFrame:
    import pandas as pd

    chosen = frame[frame[by].fillna("").str.startswith(name) if by == "commit" else frame[by] == name]
    if chosen.empty:
        known = ", ".join(sorted(frame[by].dropna().unique())) or "none"
        raise ConfigError(f"There is no run of the {by} {name!r}. There are runs of: {known}.")
    long = chosen.melt(id_vars="notebook", value_vars=list(_MEASURES), var_name="measure")
    long["value"] = long["value"].astype("float64")
    grouped = long.groupby(["notebook", "measure"])["value"]
    return pd.DataFrame({"value": grouped.mean(), "count": grouped.count().astype("Int64")})


def _line(check: Check, root: Path) -> dict[str, Any]:
    run, facts = check.run, check.run.facts
    commit, branch = git_place(root)
    traced = (
        {}
        if facts is None
        else {
            "cost_usd": None if facts.unknown_cost_count else facts.cost_usd,
            "total_tokens": facts.total_tokens,
            "lm_call_count": facts.lm_call_count,
            "tool_call_count": len(facts.tools),
            "error_count": len(facts.errors),
            "latency_p50_s": facts.lm_latency_p50_s,
            "latency_p95_s": facts.lm_latency_p95_s,
        }
    )
    return {
        "start_time": datetime.fromtimestamp(run.start_time_s, UTC).isoformat(),
        "notebook": check.planned.name,
        "outcome": check.verdict,
        "message": shown_line(run.message.partition("\n")[0])[:300],
        "duration_s": round(run.duration_s, 3),
        "difference_count": len(check.differences),
        "trace_problem_count": len(check.trace_problems),
        **traced,
        "is_replayed": run.is_replayed,
        "commit": commit,
        "branch": branch,
        "session_id": run.session_id,
        "parameters": masked_text(json.dumps(dict(check.planned.parameters), default=str)),
    }
