"""One page for people: every run, filtered by verdict, with the cells to look at.

Owns the HTML, which needs nothing but itself. Invariant: what comes from a notebook is escaped, and no
address with a token is in the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from research_kit._words import cost_text, duration_text
from research_kit.regression.report_files import count_verdicts
from research_kit.regression.shown_text import shown_line
from research_kit.regression.summary import RunSummary

__all__ = ["report_page"]

# How much of one difference is in the page; the executed copy has the rest.
_DETAIL_CHARS = 20_000
_STYLE = """
:root { --ok: #1a7f37; --bad: #cf222e; --odd: #9a6700; --line: #d0d7de; --soft: #f6f8fa; --text: #1f2328;
  --muted: #59636e; --back: #fff; --minus: #ffebe9; --plus: #dafbe1; }
@media (prefers-color-scheme: dark) { :root { --ok: #3fb950; --bad: #f85149; --odd: #d29922; --line: #3d444d;
  --soft: #161b22; --text: #e6edf3; --muted: #9198a1; --back: #0d1117; --minus: #5d1f24; --plus: #1c4428; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 72rem; padding: 1.5rem; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
p.facts { color: var(--muted); margin: 0 0 1rem; }
form { display: flex; flex-wrap: wrap; gap: .4rem; position: sticky; top: 0; background: var(--back);
  padding: .5rem 0; z-index: 1; }
form label { border: 1px solid var(--line); border-radius: 2rem; padding: .15rem .7rem; cursor: pointer; }
form input[type=search] { flex: 1 1 12rem; font: inherit; color: inherit; background: var(--soft);
  border: 1px solid var(--line); border-radius: .4rem; padding: .2rem .6rem; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; color: var(--muted); font-weight: 600; }
th, td { padding: .3rem .5rem; border-top: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { font-weight: 600; white-space: nowrap; }
.passed, .accepted { color: var(--ok); } .flaky { color: var(--odd); }
.differs, .failed, .timeout, .crashed, .not_started { color: var(--bad); }
details { margin: .2rem 0; } summary { cursor: pointer; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem;
  overflow-x: auto; margin: .3rem 0; font: 13px/1.45 ui-monospace, monospace; white-space: pre; }
pre span.minus { background: var(--minus); } pre span.plus { background: var(--plus); }
pre span { display: block; }
img { max-width: 100%; border: 1px solid var(--line); background: #fff; }
.where { color: var(--muted); margin: .5rem 0 0; }
[hidden] { display: none; }
"""
_SCRIPT = """
const rows = [...document.querySelectorAll('tbody tr')];
const form = document.querySelector('form');
const show = () => {
  const on = new Set([...form.querySelectorAll('[type=checkbox]')].filter(b => b.checked).map(b => b.value));
  const words = form.querySelector('[type=search]').value.toLowerCase();
  let count = 0;
  for (const row of rows) {
    row.hidden = !(on.has(row.dataset.verdict) && row.dataset.name.includes(words));
    count += row.hidden ? 0 : 1;
  }
  document.querySelector('output').value = count + ' of ' + rows.length + ' shown';
};
form.addEventListener('input', show);
form.addEventListener('submit', event => event.preventDefault());
show();
"""


def report_page(summaries: Sequence[RunSummary], *, commit: str = "", branch: str = "") -> str:
    """Return the page.

    Args:
        summaries: The runs; those that need a look come first.
        commit: The commit that was tested; empty when unknown.
        branch: Its branch.
    """
    ordered = sorted(summaries, key=lambda one: (one.is_passed, one.verdict == "passed"))
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    took = sum(one.duration_s for one in summaries)
    place = shown_line(" ".join(filter(None, [branch, commit[:12]])))
    facts = ", ".join(filter(None, [when, place, f"{duration_text(took)} of notebooks"]))
    body = "".join(_row(one) for one in ordered)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Notebooks: {escape(count_verdicts(summaries))}</title><style>{_STYLE}</style></head><body>"
        f'<h1>Notebooks: {escape(count_verdicts(summaries))}</h1><p class="facts">{escape(facts)}</p>'
        f"<form>{''.join(_filters(ordered))}"
        '<input type="search" placeholder="name" aria-label="name"><output></output></form>'
        "<table><thead><tr><th>notebook</th><th>verdict</th>"
        '<th class="number">time</th><th class="number">LM calls</th><th class="number">cost</th></tr>'
        f"</thead><tbody>{body}</tbody></table><script>{_SCRIPT}</script></body></html>\n"
    )


def _filters(summaries: Sequence[RunSummary]) -> Iterator[str]:
    for verdict, count in Counter(one.verdict for one in summaries).items():
        yield (
            f'<label class="{verdict}"><input type="checkbox" value="{verdict}" checked> '
            f"{count} {verdict.replace('_', ' ')}</label>"
        )


def _row(one: RunSummary) -> str:
    name = escape(one.name)
    content = "".join(_content(one))
    is_open = " open" if not one.is_passed else ""
    shown = f"<details{is_open}><summary>{name}</summary>{content}</details>" if content else name
    calls = f"{one.lm_call_count:,}" if one.lm_call_count else ""
    cost = cost_text(one.cost_usd) if one.lm_call_count else ""
    return (
        f'<tr data-verdict="{one.verdict}" data-name="{escape(one.name.lower())}"><td>{shown}</td>'
        f'<td class="verdict {one.verdict}">{one.verdict.replace("_", " ")}</td>'
        f'<td class="number">{duration_text(one.duration_s)}</td><td class="number">{calls}</td>'
        f'<td class="number">{cost}</td></tr>'
    )


def _content(one: RunSummary) -> Iterator[str]:
    for line in filter(None, [one.message, *one.problems, one.repeats]):
        yield f"<pre>{escape(line)}</pre>" if "\n" in line else f"<div>{escape(line)}</div>"
    for cell in one.cells:
        yield f'<div class="where">{escape(cell.heading)}</div><pre>{escape(cell.source)}</pre>'
        for title, text in cell.details:
            yield f"<div>{escape(title)}</div><pre>{_diff(text)}</pre>"
        if cell.image:
            yield f'<img alt="expected, actual, difference" src="data:image/png;base64,{escape(cell.image)}">'
    links = [("parameters", one.parameters), ("executed copy", "" if one.is_passed else one.output_path)]
    links.append(("sent to", one.sent_to))
    for title, text in links:
        if text:
            yield f'<div class="where">{title}: <code>{escape(text)}</code></div>'
    if one.session_url.startswith(("http://", "https://")):
        address = escape(one.session_url.partition("?")[0])
        yield f'<div class="where"><a href="{address}">traces</a></div>'


def _diff(text: str) -> str:
    if len(text) > _DETAIL_CHARS:
        text = f"{text[:_DETAIL_CHARS]}\n... {len(text) - _DETAIL_CHARS} more characters"
    if not text.startswith("--- expected"):
        return escape(text)
    kinds = {"-": "minus", "+": "plus"}
    lines = text.splitlines()
    return "".join(f'<span class="{kinds.get(line[:1], "")}">{escape(line) or " "}</span>' for line in lines)
