"""``rk.show_comparison()``: what `compare` found, to look at.

Owns the report; the statistics are `compare`'s. Invariant: a difference is called one only when its interval
leaves out zero, and an interval that is not known is shown as a dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import pandas as pd

from research_kit._words import UNKNOWN, cost_text, duration_text
from research_kit.errors import ConfigError
from research_kit.store.markup import Markup, element
from research_kit.traces.analysis import compare, require_columns
from research_kit.traces.analysis.comparing import CompareOptions
from research_kit.views.style import styled
from research_kit.views.texts import known, plain_line
from research_kit.views.view import View

__all__ = ["ComparisonView", "show_comparison"]

_NEEDS = (
    "metric", "is_paired", "count_a", "count_b", "value_a", "value_b", "difference", "difference_low",
    "difference_high", "relative_difference", "hedges_g", "is_rate",
)  # fmt: skip
_LOWER_IS_BETTER = ("latency_s", "time_to_first_token_s", "cost_usd", "error_count", "is_error")
_NAME_LENGTH = 40
_WIDTHS = (24, 12, 12, 30, 9, 8)


class ComparisonView(View):
    """Two sessions side by side: one line per metric, with the interval of its difference.

    Attributes:
        frame: What `compare` found.
    """

    def __init__(self, frame: pd.DataFrame, names: tuple[str, str]) -> None:
        self.frame = frame
        self._names = tuple(plain_line(name, _NAME_LENGTH) for name in names)
        records = frame.to_dict("records")
        self._rows = [{str(key): known(value) for key, value in row.items()} for row in records]

    def to_html(self) -> str:
        """Return the comparison as one element of HTML."""
        title = element(
            "div",
            f"{self._names[0]} → {self._names[1]}",
            " ",
            element("span", self._count()),
            class_="rk-title",
        )
        heads = ("metric", *self._names, "difference", "interval", "relative", "effect size")
        head = element("thead", element("tr", *(element("th", name) for name in heads)))
        body = element("tbody", *map(_line, self._rows))
        table = element("table", head, body, class_="rk-table rk-compared")
        return styled(
            title,
            element("p", self._finding(), class_="rk-finding"),
            table,
            element("p", self._reading(), class_="rk-note"),
        )

    def compose_text(self) -> str:
        """Return the comparison as lines of text."""
        heads = ("metric", *self._names, "difference", "relative", "effect")
        lines = [_columns(heads), *(_columns(_texts(row)) for row in self._rows)]
        title = f"{self._names[0]} → {self._names[1]} ({self._count()})"
        return "\n".join([title, self._finding(), "", *lines, "", self._reading()])

    def _count(self) -> str:
        pairs = max((row["count_a"] for row in self._rows if row["is_paired"]), default=0)
        if pairs:
            return f"{pairs} pairs"
        counts = [max((row[name] for row in self._rows), default=0) for name in ("count_a", "count_b")]
        return f"{counts[0]} and {counts[1]} rows"

    def _finding(self) -> str:
        """Say in a sentence what differs."""
        sure = [row for row in self._rows if _is_sure(row)]
        if not sure:
            return "No metric differs for sure."
        said = []
        for row in sure:
            direction = "higher" if row["difference"] > 0 else "lower"
            share = _relative(row).lstrip("+\N{MINUS SIGN}")
            said.append(f"{_metric(row)} {direction}" + (f" by {share}" if share != UNKNOWN else ""))
        return f"{len(sure)} of {len(self._rows)} metrics differ: {'; '.join(said)}."

    def _reading(self) -> str:
        statistic = self.frame.attrs.get("statistic", "mean")
        share = self.frame.attrs.get("confidence", 0.95)
        return (
            f"{statistic.capitalize()}s; differences are {self._names[1]} minus {self._names[0]}, with their "
            f"{share:.0%} intervals. Effect size: Hedges' g."
        )


def show_comparison(
    a: pd.DataFrame | str,
    b: pd.DataFrame | str | None = None,
    metrics: Sequence[str] | None = None,
    *,
    on: str | Sequence[str] | None = None,
    paired: bool | None = None,
    names: tuple[str, str] | None = None,
    **options: Unpack[CompareOptions],
) -> ComparisonView:
    """Compare two sessions or frames, and return a report of it.

    Args:
        a: A frame or a session id, as for `compare`; or, without ``b``, the frame that `compare` returned.
        b: The other frame or session id.
        metrics: Columns to compare; None means the usual ones.
        on: Columns whose values make a pair, as in `compare`.
        paired: Whether rows are paired, as in `compare`.
        names: What to call the two; by default their session ids.
        **options: `CompareOptions`, as in `compare`.

    Raises:
        ConfigError: When an argument cannot be used, or a frame lacks a column.
        BackendError: When a session cannot be read.
        MissingExtraError: When scipy is not installed.
    """
    if names is not None and len(names) != 2:
        raise ConfigError(f"names is {names!r}. Give two names, one for each side.")
    if b is not None:
        found = compare(a, b, metrics, on=on, paired=paired, **options)
        return ComparisonView(found, names or (_name_of(a, "a"), _name_of(b, "b")))
    if not isinstance(a, pd.DataFrame):
        raise ConfigError(
            f"show_comparison was given {a!r} alone. Give two session ids, or what compare() returned."
        )
    require_columns(a, _NEEDS, "show_comparison")
    return ComparisonView(a, names or ("a", "b"))


def _name_of(side: pd.DataFrame | str, otherwise: str) -> str:
    if isinstance(side, str):
        return side
    ids = side["session_id"].dropna().unique().tolist() if "session_id" in side.columns else []
    return str(ids[0]) if len(ids) == 1 else otherwise


def _line(row: dict[str, Any]) -> Markup:
    name, value_a, value_b, difference, relative, effect = _texts(row)
    difference = _value(row, "difference", is_signed=True)
    cells = [name, value_a, value_b, element("b", difference), _interval(row), relative, effect]
    return element("tr", *(element("td", cell) for cell in cells), class_=_tone(row))


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = (_value(row, name, is_signed=True) for name in ("difference_low", "difference_high"))
    difference = _value(row, "difference", is_signed=True)
    effect = row["hedges_g"]
    return (
        _metric(row),
        _value(row, "value_a"),
        _value(row, "value_b"),
        f"{difference} [{low}, {high}]" if row["difference_low"] is not None else difference,
        _relative(row),
        UNKNOWN if effect is None else _signed(f"{abs(effect):.2f}", effect),
    )


def _columns(cells: Sequence[str]) -> str:
    first, *others = (plain_line(cell, width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return "  ".join([first.ljust(_WIDTHS[0]), *map(str.rjust, others, _WIDTHS[1:])]).rstrip()


def _interval(row: dict[str, Any]) -> Markup:
    """Draw the interval around zero, which is in the middle."""
    low, high, middle = row["difference_low"], row["difference_high"], row["difference"]
    if low is None or high is None or middle is None:
        return element("span", UNKNOWN)
    reach = 1.1 * max(abs(low), abs(high), abs(middle)) or 1.0
    left, right, dot = (50 + 50 * value / reach for value in (low, high, middle))
    title = f"from {_value(row, 'difference_low', is_signed=True)} to "
    return element(
        "span",
        element("span", class_="rk-zero"),
        element("span", class_="rk-range", style=f"left: {left:.2f}%; width: {max(right - left, 0.5):.2f}%"),
        element("span", class_="rk-middle", style=f"left: {dot:.2f}%"),
        class_="rk-interval",
        title=title + _value(row, "difference_high", is_signed=True),
    )


def _is_sure(row: dict[str, Any]) -> bool:
    low, high = row["difference_low"], row["difference_high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def _tone(row: dict[str, Any]) -> str:
    if not _is_sure(row):
        return "rk-unsure"
    if row["metric"] not in _LOWER_IS_BETTER:
        return "rk-sure"
    return "rk-worse" if row["difference"] > 0 else "rk-better"


def _metric(row: dict[str, Any]) -> str:
    return plain_line(row["metric"] or "", _NAME_LENGTH)


def _relative(row: dict[str, Any]) -> str:
    if row.get("is_rate") and (points := row["difference"]) is not None:
        return _signed(f"{abs(100 * points):.1f} points", points)
    share = row["relative_difference"]
    return UNKNOWN if share is None else _signed(f"{abs(share):.1%}".replace("%", " %"), share)


def _value(row: dict[str, Any], name: str, *, is_signed: bool = False) -> str:
    value, metric = row[name], row["metric"] or ""
    if value is None:
        return UNKNOWN
    size = abs(value)
    if metric.endswith("_s"):
        text = duration_text(size)
    elif metric.endswith("_usd"):
        text = cost_text(size)
    elif row.get("is_rate"):
        text = f"{size:.1%}".replace("%", " %")
    else:
        text = f"{size:,.0f}" if size >= 1000 else f"{size:.3g}"
    return _signed(text, value) if is_signed or value < 0 else text


def _signed(text: str, value: float) -> str:
    return text if value == 0 else f"{'+' if value > 0 else chr(0x2212)}{text}"
