"""The reference of all columns, generated from the schemas.

Owns its form; the columns are in `schema` and in `analysis.columns`. Invariant: a frame that has a schema is
in the reference.
"""

from __future__ import annotations

from research_kit.traces.analysis.columns import RESULTS
from research_kit.traces.schema import SCHEMAS, Schema

__all__ = ["schema_reference"]


def schema_reference() -> str:
    """Return the column tables of all frames as Markdown."""
    return "\n".join(_table(name, schema) for name, schema in {**SCHEMAS, **RESULTS}.items())


def _table(function: str, schema: Schema) -> str:
    rows = (f"| `{column.name}` | `{column.dtype}` | {column.doc} |" for column in schema)
    return "\n".join([f"### `{function}`", "", "| column | dtype | meaning |", "|---|---|---|", *rows, ""])
