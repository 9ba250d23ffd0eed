"""What may differ between two runs of the same notebook, as data.

Owns the sanitizers: patterns whose matches are replaced before outputs are compared. Does not compare and
reads no files. Invariant: sanitizing twice equals sanitizing once, because baselines are stored sanitized
and are sanitized again when they are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from research_kit.masking import masked_text

__all__ = ["DEFAULT_SANITIZERS", "Sanitizer", "sanitize_text", "sanitize_value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanitizer:
    """One pattern that may differ.

    Attributes:
        name: What it is called in the configuration.
        regex: A Python regular expression.
        replace: The replacement; it may refer to groups of ``regex``.
        doc: What it covers, in one sentence.
    """

    name: str
    regex: str
    replace: str
    doc: str = ""


# Each pattern is as narrow as its reason: what a sanitizer hides, no regression test can find.
DEFAULT_SANITIZERS = (
    Sanitizer(
        name="uuids",
        regex=r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b",
        replace="<uuid>",
        doc="UUIDs, and with them session ids such as jupyter-<uuid>.",
    ),
    Sanitizer(
        name="trace_ids",
        regex=(
            r"(?i)((?:trace|observation|span|parent)(?:s/|[_ ]?id\W{1,4}|=))"
            r"(?:[0-9a-f]{32}|[0-9a-f]{16})\b"
        ),
        replace=r"\1<id>",
        doc="Trace and observation ids where they are named as such; a bare hexadecimal digest is compared.",
    ),
    Sanitizer(
        name="timestamps",
        regex=(
            r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
            r"(?: ?(?:Z\b|UTC\b|[+-]\d{2}:?\d{2}\b))?"
        ),
        replace="<timestamp>",
        doc="Date and time together in ISO 8601 order; a date alone is compared.",
    ),
    Sanitizer(
        name="addresses",
        regex=r"\bat 0x[0-9a-fA-F]+",
        replace="at <address>",
        doc="Memory addresses in default representations: <object at 0x7f...>.",
    ),
    Sanitizer(
        name="durations",
        # Whole seconds need the blank: "the 1980s" is no duration. The last two units are micro sign and mu.
        regex=(
            r"(?<![\w.])(?:\d+(?:\.\d+)? ?(?:ns|us|ms|\u00b5s|\u03bcs)|\d+\.\d+ ?s|\d+ s"
            r"|\d+(?:\.\d+)? (?:seconds?|secs?))\b"
        ),
        replace="<duration>",
        doc="Seconds and their fractions: 0.123 s, 45 ms, 3 seconds.",
    ),
    Sanitizer(
        name="timing_loops",
        regex=r"\b[\d,]+ loops? each\b",
        replace="<count> loops each",
        doc="The number of loops that %timeit chose.",
    ),
    Sanitizer(
        name="progress_rates",
        regex=r"\[\d+:\d\d(?::\d\d)?<(?:\d+:\d\d(?::\d\d)?|\?), +[\d.?]+ ?\w*(?:it/s|s/it|/s)\]",
        replace="[<rate>]",
        doc="Elapsed time and rate of a tqdm progress bar.",
    ),
    Sanitizer(
        name="cell_files",
        regex=r"\S*ipykernel_\d+[/\\]\d+\.py",
        replace="<cell>.py",
        doc="The temporary file names that warnings and tracebacks give to cells.",
    ),
    Sanitizer(
        name="paths",
        regex=r"""(?:/home|/Users|/root|/tmp|/private|/var/folders|[A-Za-z]:\\Users)(?:[/\\][^/\\\s'"<>:,;)\]]+)*[/\\]""",
        replace="<dir>/",
        doc="Home and temporary folders; the last part of the path is compared.",
    ),
    Sanitizer(
        name="local_ports",
        regex=r"(//(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])):\d+",
        replace=r"\1:<port>",
        doc="Ports in addresses of this machine.",
    ),
    Sanitizer(
        name="pandas_styles",
        regex=r"\bT_[0-9a-f]{5}(?=\b|_)",
        replace="T_<id>",
        doc="The random element ids of a pandas Styler.",
    ),
)


def sanitize_text(text: str, sanitizers: Iterable[Sanitizer]) -> str:
    """Replace in ``text`` what may differ, in the order of ``sanitizers``."""
    for sanitizer in sanitizers:
        text = re.sub(sanitizer.regex, sanitizer.replace, text)
    return text


def sanitize_value(value: Any, sanitizers: Iterable[Sanitizer]) -> Any:
    """Return an output as it is kept and compared: no secrets, and texts without what may differ."""
    if isinstance(value, str):
        return sanitize_text(masked_text(value), sanitizers)
    text = json.dumps(value)
    masked = masked_text(text)
    return value if masked == text else json.loads(masked)
