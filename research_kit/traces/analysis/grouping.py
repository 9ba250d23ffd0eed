"""Groups of rows: which there are, and how a frame is asked for them.

Owns the words of ``by`` and the checks of a frame's columns; computes no figures. Invariant: the frame that
comes in is not changed, and an empty one has the same groups with the same dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from research_kit.errors import ConfigError
from research_kit.traces.counting import name_tools
from research_kit.traces.frames import build_frame
from research_kit.traces.schema import Column, Schema, own

__all__ = [
    "GROUPS",
    "build_result",
    "build_rows",
    "group_rows",
    "group_values",
    "key_names",
    "read_keys",
    "require_columns",
    "with_groups",
]


def _day(frame: pd.DataFrame) -> pd.Series[Any]:
    days: pd.Series[Any] = frame["start_time"].dt.floor("D")
    return days


def _cell(frame: pd.DataFrame) -> pd.Series[Any]:
    number = "[" + frame["execution_count"].astype("string") + "]"
    return frame["cell_id"].fillna(number)


def _tool(frame: pd.DataFrame) -> pd.Series[Any]:
    return pd.Series(name_tools(frame), index=frame.index, dtype="string")


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series[Any]]:
    return lambda frame: frame[name]


GROUPS: Mapping[str, tuple[Column, Callable[[pd.DataFrame], pd.Series[Any]]]] = {
    "model": (own("model", "string", "Model."), _column("model")),
    "user": (own("user_id", "string", "User."), _column("user_id")),
    "session": (own("session_id", "string", "Session."), _column("session_id")),
    "trace": (own("trace_id", "string", "Trace."), _column("trace_id")),
    "name": (own("name", "string", "Name of the observation."), _column("name")),
    "type": (own("type", "string", "Type of the observation."), _column("type")),
    "environment": (own("environment", "string", "Environment."), _column("environment")),
    "tag": (own("tag", "string", "Tag; a row with several counts in each."), _column("tags")),
    "tool": (own("tool_name", "string", "Tool call that it happened in."), _tool),
    "cell": (own("cell_id", "string", "Notebook cell; `[n]` where the cell has no id."), _cell),
    "day": (own("day", "datetime64[ns, UTC]", "Day, in UTC."), _day),
}


def read_keys(by: str | Sequence[str]) -> list[str]:
    """Return the groups that ``by`` names, each once.

    Raises:
        ConfigError: When one does not exist, or there is none.
    """
    keys = [by] if isinstance(by, str) else list(by)
    unknown = [key for key in keys if key not in GROUPS]
    if unknown or not keys:
        raise ConfigError(
            f"Cannot group by {unknown[0] if unknown else by!r}. Use one or several of: {', '.join(GROUPS)}."
        )
    return list(dict.fromkeys(keys))


def key_names(keys: Sequence[str]) -> list[str]:
    """Return the columns in which the groups are."""
    return [GROUPS[key][0].name for key in keys]


def group_values(frame: pd.DataFrame, by: str, purpose: str) -> pd.Series[Any]:
    """Return for each row the group that it belongs to.

    Raises:
        ConfigError: When ``by`` is unknown, or the frame lacks the column it needs.
    """
    (values,) = _key_columns(frame, read_keys(by), purpose).values()
    return values


def with_groups(values: pd.DataFrame, frame: pd.DataFrame, keys: Sequence[str], purpose: str) -> pd.DataFrame:
    """Return ``values`` with the columns of the groups; a row with several tags becomes one row for each.

    Args:
        values: Figures of the rows of ``frame``, with the same index.
        frame: Where the groups are read from.
        keys: The groups.
        purpose: The function that groups, for messages.

    Raises:
        ConfigError: When the frame lacks a column.
    """
    grouped = values.assign(**_key_columns(frame, keys, purpose))
    if "tag" not in keys:
        return grouped
    return grouped.assign(tag=grouped["tag"].str.split(", ")).explode("tag").astype({"tag": "string"})


def group_rows(values: pd.DataFrame, keys: Sequence[str]) -> Any:
    """Return the groups of what `with_groups` gave; without keys everything is one group."""
    everything = pd.Series(0, index=values.index)
    return values.groupby(key_names(keys) if keys else everything, dropna=False, sort=True)


def _key_columns(frame: pd.DataFrame, keys: Sequence[str], purpose: str) -> dict[str, pd.Series[Any]]:
    try:
        return {GROUPS[key][0].name: GROUPS[key][1](frame) for key in keys}
    except KeyError as error:
        raise _lacking(frame, str(error.args[0]), purpose) from error


def require_columns(frame: pd.DataFrame, needed: Sequence[str], purpose: str) -> None:
    """Refuse a frame without the columns that ``purpose`` needs.

    Raises:
        ConfigError: When one is missing.
    """
    for name in needed:
        if name not in frame.columns:
            raise _lacking(frame, name, purpose)


def _lacking(frame: pd.DataFrame, name: str, purpose: str) -> ConfigError:
    found = ", ".join(map(str, frame.columns[:8]))
    return ConfigError(
        f"{purpose} needs the column {name!r}, and the frame has none (it begins with: {found}). "
        "Give it a frame from observations_df()."
    )


def build_result(keys: Sequence[str], columns: Schema, groups: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group, with the columns of the groups before all others of ``columns``."""
    own = [GROUPS[key][0] for key in keys]
    names = {column.name for column in own}
    return build_rows((*own, *(column for column in columns if column.name not in names)), groups)


def build_rows(schema: Schema, rows: pd.DataFrame) -> pd.DataFrame:
    """Return ``rows`` with exactly the columns and dtypes of ``schema``."""
    # A group and a figure may have one name, as the session of a table of sessions has.
    names = list(dict.fromkeys(column.name for column in schema))
    return build_frame(schema, rows.loc[:, ~rows.columns.duplicated()][names].to_dict("records"))  # type: ignore[arg-type]
