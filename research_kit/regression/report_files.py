"""Reports for other programs: JUnit XML, annotations of GitHub, a Markdown summary.

Owns these three forms; the page for people is `report_page`. Invariant: what a notebook printed is data in
them, never markup or a command.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from research_kit._words import cost_text, duration_text
from research_kit.errors import ConfigError
from research_kit.plain_text import plain_block, plain_text
from research_kit.regression.report_text import format_summary
from research_kit.regression.summary import RunSummary

__all__ = ["count_verdicts", "github_annotations", "junit_xml", "markdown_summary", "write_report"]

_FAILED_ROW_COUNT = 50
_CELL_CHARS = 300
# What Markdown in any of its dialects takes for markup or makes a link of; entities are never either.
_SIGN = re.compile(r"[\\`*_{}\[\]<>|#!~&@:$^\"']|(?<=www)\.", re.IGNORECASE)


def junit_xml(summaries: Sequence[RunSummary]) -> str:
    """Return a JUnit report with one case per run."""
    failed = [one for one in summaries if not one.is_passed]
    errors = [one for one in failed if one.verdict == "not_started"]
    suite = ET.Element(
        "testsuite",
        name="research-kit",
        tests=str(len(summaries)),
        failures=str(len(failed) - len(errors)),
        errors=str(len(errors)),
        skipped="0",
        time=f"{sum(one.duration_s for one in summaries):.3f}",
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    for one in summaries:
        case = ET.SubElement(
            suite, "testcase", classname=one.path, name=one.name, time=f"{one.duration_s:.3f}", file=one.path
        )
        properties = ET.SubElement(case, "properties")
        for name, value in (
            ("executed_copy", one.output_path),
            ("sent_to", one.sent_to),
            ("parameters", one.parameters),
        ):
            if value:
                ET.SubElement(properties, "property", name=name, value=value)
        if not one.is_passed:
            kind = "error" if one in errors else "failure"
            told = ET.SubElement(case, kind, message=_first_line(one), type=one.verdict)
            told.text = format_summary(one)
    root = ET.Element("testsuites")
    root.append(suite)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def github_annotations(summaries: Sequence[RunSummary]) -> Iterator[str]:
    """Yield workflow commands of GitHub: an error per notebook that failed, a warning per flaky one."""
    for one in summaries:
        if one.is_passed and one.verdict != "flaky":
            continue
        kind = "warning" if one.is_passed else "error"
        where = one.cells[0].heading if one.cells else ""
        text = "\n".join(filter(None, [_first_line(one), where, *map(plain_block, one.problems)]))
        title = _command_value(f"{one.name}: {one.verdict}")
        yield f"::{kind} file={_command_value(one.path)},title={title}::{_command_text(text)}"


def markdown_summary(summaries: Sequence[RunSummary]) -> str:
    """Return a summary for a pull request or a job: numbers, and a row per notebook that needs a look."""
    lines = [f"### Notebooks: {count_verdicts(summaries)}", ""]
    shown = [one for one in summaries if one.verdict not in ("passed", "accepted")]
    if shown:
        lines += ["| notebook | verdict | where | what |", "| --- | --- | --- | --- |"]
    for one in shown[:_FAILED_ROW_COUNT]:
        where = one.cells[0].heading if one.cells else ""
        what = "; ".join(filter(None, [_first_line(one), *one.problems, one.repeats]))
        lines.append(f"| {_code(one.name)} | {one.verdict} | {_escaped(where)} | {_code(what)} |")
    if len(shown) > _FAILED_ROW_COUNT:
        lines.append(f"\nand {len(shown) - _FAILED_ROW_COUNT} more")
    costs = [one.cost_usd for one in summaries if one.cost_usd is not None]
    calls = sum(one.lm_call_count or 0 for one in summaries)
    took = sum(one.duration_s for one in summaries)
    unpriced_count = sum(one.cost_usd is None and bool(one.lm_call_count) for one in summaries)
    cost = cost_text(sum(costs) if costs else None, unpriced_count)
    figures = f"{duration_text(took)} of notebooks, {calls:,} language model calls, cost {cost}."
    lines += ["", figures, ""]
    return "\n".join(lines)


def count_verdicts(summaries: Sequence[RunSummary]) -> str:
    """Return how many runs ended how, the failures first."""
    counted = Counter(one.verdict for one in summaries)
    is_good = {one.verdict: one.is_passed for one in summaries}
    ordered = sorted(counted, key=lambda verdict: (is_good[verdict], verdict))
    return ", ".join(f"{counted[verdict]} {verdict.replace('_', ' ')}" for verdict in ordered) or "none"


def write_report(path: Path, text: str) -> None:
    """Write a report and make its folder.

    Raises:
        ConfigError: When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Cannot write the report {str(path)!r}: {error.strerror}. Give another path."
        ) from error


def _first_line(one: RunSummary) -> str:
    return plain_text(one.message.partition("\n")[0] or one.repeats)


def _code(text: str) -> str:
    """Return the text of a cell of a table as code, in which nothing is a link, a mention or a reference."""
    shown = _escaped(text)
    return f"<code>{shown}</code>" if shown else ""


def _escaped(text: str) -> str:
    flat = " ".join(text.split())[:_CELL_CHARS]
    return _SIGN.sub(lambda sign: f"&#{ord(sign[0])};", flat)


def _command_text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _command_value(text: str) -> str:
    return _command_text(text).replace(":", "%3A").replace(",", "%2C")
