"""Frames as files, and files as the frames that they were.

Owns Parquet, CSV and JSON lines. Invariant: what is read back has the columns, dtypes, values and attributes
of what was written; no text in a CSV file begins as a formula, whichever separator a spreadsheet looks for.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from research_kit._notices import warn_user
from research_kit.errors import ConfigError
from research_kit.traces.analysis import RESULTS
from research_kit.traces.jsonarray import JsonArray
from research_kit.traces.schema import SCHEMAS

__all__ = ["TABLE_FORMS", "read_table_file", "write_table_file"]

TABLE_FORMS = (".parquet", ".csv", ".jsonl")
_KEY = b"research_kit"
_TEXTS = ("string", "str", "json")
_NUMBERS = {
    "Int64": pa.int64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "boolean": pa.bool_(),
    "bool": pa.bool_(),
}
_TIME = re.compile(r"datetime64\[(?P<unit>\w+)(, (?P<zone>[^\]]+))?\]")
# What begins a formula, in the forms of East Asian and of small letters too.
_FORMULA = r"[=+\-@|%\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207a-\u207c\u208a-\u208c]"
# Where a cell may begin that is none of ours: a spreadsheet that separates with semicolons, as many countries
# do, or with tabs or bars, does not see our quotes, and then lines are rows.
_BEGIN = r"(?:\A|(?<=[;|\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]))"
# What it may leave out before it looks for a formula: quotation marks, blanks, what has no width.
_SKIPPED = (
    r"['\" \x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\xa0\xad"
    r"\u1680\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000\ufeff]*"
)


def _formulas(mark: str) -> re.Pattern[str]:
    return re.compile(rf"\A{mark}(?='*[\t\r\n])|{_BEGIN}{mark}(?={_SKIPPED}{_FORMULA})")


_UNGUARDED, _GUARDED = _formulas(""), _formulas("'")

Description = Mapping[str, Any]


def write_table_file(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame in the form that the name of the file says.

    Parquet carries the description of its columns; beside the other forms it is a file of its own.

    Raises:
        ConfigError: When the frame has columns that could not be read back as they are.
    """
    described = _describe(frame)
    table = pa.table([_array(frame[name]) for name in frame.columns], names=list(frame.columns))
    if path.suffix == ".parquet":
        meta = {_KEY: json.dumps(described).encode()}
        pa.parquet.write_table(table.replace_schema_metadata(meta), path, compression="zstd")
        return
    if path.suffix == ".csv":
        _write_csv(table, described, path)
    else:
        path.write_text(_json_lines(table, described), encoding="utf-8")
    _beside(path).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def read_table_file(path: Path) -> pd.DataFrame:
    """Read a frame that `write_table_file` wrote, or a table whose columns have the same names.

    Raises:
        ConfigError: When the file is no such table.
    """
    read = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_json_lines}[path.suffix]
    try:
        return read(path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read as {path.suffix[1:]}: {error}. Export the frame again, or name "
            "the file after the form that it has."
        ) from error


def _describe(frame: pd.DataFrame) -> dict[str, Any]:
    index = frame.index
    if not isinstance(index, pd.RangeIndex) and (index.name is not None or index.dtype != "int64"):
        raise ConfigError(
            f"The frame has the index {index.name or str(index.dtype)!r}, and files keep columns only. "
            "Call reset_index() before."
        )
    columns: dict[str, str] = {}
    for name, dtype in frame.dtypes.items():
        if not isinstance(name, str) or name in columns or not _is_kept(str(dtype)):
            raise ConfigError(
                f"The column {name!r} of dtype {dtype} cannot be exported: names are texts that differ, and "
                "dtypes string, json, datetime64, boolean or those of numbers. Convert it, or leave it out."
            )
        columns[name] = str(dtype)
    if not columns:
        raise ConfigError("The frame has no columns. Give one from observations_df() or its siblings.")
    attrs = {key: value for key, value in frame.attrs.items() if isinstance(value, (bool, int, float, str))}
    return {"form": "research-kit frame", "version": 1, "columns": columns, "attrs": attrs}


def _is_kept(dtype: str) -> bool:
    return dtype in _TEXTS or dtype in _NUMBERS or _TIME.fullmatch(dtype) is not None


def _arrow_type(dtype: str) -> pa.DataType:
    time = _TIME.fullmatch(dtype)
    if time is not None:
        return pa.timestamp(time["unit"], tz=time["zone"])
    return _NUMBERS.get(dtype, pa.large_string())


def _array(column: pd.Series[Any]) -> pa.Array:
    dtype = str(column.dtype)
    values = column.array if dtype in _TEXTS else column
    return pa.array(values, type=_arrow_type(dtype), from_pandas=True)


def _to_frame(table: pa.Table, described: Description) -> pd.DataFrame:
    columns = {name: _series(table[name], dtype) for name, dtype in described["columns"].items()}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows))
    frame.attrs.update(described["attrs"])
    return frame


def _series(values: pa.ChunkedArray, dtype: str) -> Any:
    exact = values.cast(_arrow_type(dtype))
    match dtype:
        case "json":
            return JsonArray(exact)
        case "string":
            return pd.StringDtype("pyarrow").__from_arrow__(exact)  # type: ignore[attr-defined] # documented
        case "Int64":
            return pd.Int64Dtype().__from_arrow__(exact)  # type: ignore[attr-defined]
        case "boolean":
            return pd.BooleanDtype().__from_arrow__(exact)  # type: ignore[attr-defined]
    return exact.to_pandas().astype(dtype).array


def _read_parquet(path: Path) -> pd.DataFrame:
    table = pa.parquet.read_table(path)
    meta = (table.schema.metadata or {}).get(_KEY)
    return _to_frame(table, json.loads(meta) if meta else _guess(table.column_names, path))


def _write_csv(table: pa.Table, described: Description, path: Path) -> None:
    dtypes = described["columns"]
    columns = [
        _mapped(column, _guard) if dtypes[name] in _TEXTS else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    with path.open("wb") as file:
        file.write(b"\xef\xbb\xbf")  # tells spreadsheets that the file is UTF-8
        pa.csv.write_csv(pa.table(columns, names=[*map(_guard, table.column_names)]), file)


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    names = [*map(_unguard, header)]
    described = _described(path) or _guess(names, path)
    dtypes = described["columns"]
    convert = pa.csv.ConvertOptions(
        column_types={raw: _arrow_type(dtypes[name]) for raw, name in zip(header, names, strict=True)},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    columns = [
        _mapped(column, _unguard) if dtypes[name] in _TEXTS else column
        for name, column in zip(names, table.columns, strict=True)
    ]
    return _to_frame(pa.table(columns, names=names), described)


def _json_lines(table: pa.Table, described: Description) -> str:
    dtypes = described["columns"]
    columns = [_plain_values(table[name], dtypes[name]) for name in table.column_names]
    rows = (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _read_json_lines(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    described = _described(path) or _guess(list(dict.fromkeys(name for row in rows for name in row)), path)
    columns = {
        name: _from_plain([row.get(name) for row in rows], dtype)
        for name, dtype in described["columns"].items()
    }
    return _to_frame(pa.table(columns), described)


def _plain_values(values: pa.ChunkedArray, dtype: str) -> list[Any]:
    if dtype == "json":
        return list(JsonArray(values))
    plain: list[Any] = (values.cast(pa.string()) if _TIME.fullmatch(dtype) else values).to_pylist()
    return plain


def _from_plain(values: list[Any], dtype: str) -> pa.Array:
    if dtype == "json":
        # Escaped, because a JSON text can name half characters that no encoding can hold.
        return pa.array([None if value is None else json.dumps(value) for value in values], pa.large_string())
    if _TIME.fullmatch(dtype):
        return pc.cast(pa.array(values, pa.large_string()), _arrow_type(dtype))
    return pa.array(values, _arrow_type(dtype))


def _guess(names: list[str], path: Path) -> Description:
    """Describe columns by their names, as the frames of research-kit use them."""
    known = {
        column.name: str(column.dtype)
        for schema in (*RESULTS.values(), *SCHEMAS.values())
        for column in schema
    }
    unknown = [name for name in names if name not in known]
    if unknown:
        warn_user(
            f"{path.name!r} has no description of its columns beside it; {', '.join(map(repr, unknown[:5]))} "
            "are read as texts."
        )
    return {"columns": {name: known.get(name, "string") for name in names}, "attrs": {}}


def _described(path: Path) -> Description | None:
    beside = _beside(path)
    if not beside.exists():
        return None
    found: Description = json.loads(beside.read_text(encoding="utf-8"))
    return found


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-columns.json")


def _guard(text: str) -> str:
    return _UNGUARDED.sub("'", text)


def _unguard(text: str) -> str:
    return _GUARDED.sub("", text)


def _mapped(values: pa.ChunkedArray, change: Callable[[str], str]) -> pa.Array:
    texts = (None if text is None else change(text) for text in values.to_pylist())
    return pa.array(texts, type=pa.large_string())
