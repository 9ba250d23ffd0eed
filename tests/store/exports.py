"""Makers of OTLP/JSON exports."""

from __future__ import annotations

from typing import Any

__all__ = ["export_of", "make_span"]

START_NS = 1_795_165_200_000_000_000


def make_span(number: int, *, trace: int = 1, parent: int | None = None, **attributes: Any) -> dict[str, Any]:
    """Make a span in OTLP/JSON that lasts one second and begins ``number`` seconds after the first.

    Attribute names are written with ``__`` for a dot; ``name`` and ``status`` are the span's own.
    """
    span: dict[str, Any] = {
        "traceId": f"{trace:032x}",
        "spanId": f"{number:016x}",
        "name": attributes.pop("name", f"span-{number}"),
        "startTimeUnixNano": str(START_NS + number * 1_000_000_000),
        "endTimeUnixNano": str(START_NS + (number + 1) * 1_000_000_000),
        "status": attributes.pop("status", {}),
        "attributes": [
            {"key": key.replace("__", "."), "value": {"stringValue": value}}
            for key, value in attributes.items()
        ],
    }
    if parent is not None:
        span["parentSpanId"] = f"{parent:016x}"
    return span


def export_of(*spans: dict[str, Any], scope: str = "langfuse-sdk") -> dict[str, Any]:
    """Put spans into one export request."""
    return {"resourceSpans": [{"scopeSpans": [{"scope": {"name": scope}, "spans": list(spans)}]}]}
