"""Views and exported pages with hostile texts everywhere: nothing runs, nothing is loaded, nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hostile import hostile_texts
from playwright.async_api import Page
from test_hostile_texts import Watch

import research_kit as rk
from research_kit.traces.frames import build_frame, build_observations
from research_kit.traces.schema import SCORES
from research_kit.views import ComparisonView, CostReport

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
]

TEXTS = hostile_texts()


def hostile_frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return observations and scores with each text in every place: a chat message with a tool and a call."""
    rows, scores = [], []
    for number, text in enumerate(TEXTS):
        common = {
            "traceId": f"{number}", "startTime": "2026-01-01T00:00:00.000Z",
            "endTime": "2026-01-01T00:00:01.000Z", "sessionId": text, "userId": text, "traceName": text,
            "level": "ERROR", "statusMessage": text,
            "model": text, "usageDetails": {"input": 1}, "inputUsage": 1,
            "input": json.dumps({text: text}), "output": json.dumps([text]), "metadata": {text: text},
        }  # fmt: skip
        said = {
            "name": "chat",
            "input": json.dumps(text),
            "output": json.dumps(text),
            "isRootObservation": True,
        }
        rows.append({**common, **said, "id": f"r{number}", "metadata": {"message_number": text}})
        for kind in ("TOOL", "GENERATION", text):
            inner = {"id": f"{kind}{number}", "parentObservationId": f"r{number}", "name": text, "type": kind}
            rows.append({**common, **inner})
        score = {"id": f"{number}", "name": text, "value": text, "comment": text, "dataType": "CATEGORICAL"}
        subject = {"kind": "trace", "id": f"{number}"}
        scores.append({**score, "subject": subject, "timestamp": "2026-01-01T00:00:00.000Z"})
    return build_observations(rows), build_frame(SCORES, scores)


async def test_views_withstand_hostile_texts(page: Page, tmp_path: Path) -> None:
    """Trace, replay, comparison, costs and the exported page show every text as text."""
    observations, scores = hostile_frames()
    metrics = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    numbers = dict.fromkeys(("value_a", "value_b", "difference", "difference_low", "difference_high"), 1.0)
    rest = {"is_paired": True, "count_a": 1, "count_b": 1, "relative_difference": 1.0, "hedges_g": 1.0}
    compared = pd.DataFrame({"metric": metrics}).assign(**numbers, **rest)
    cost = CostReport(metrics[0])
    cost.fill(observations, notes=metrics)
    views = [
        rk.show(observations),
        rk.replay(observations, scores=scores, max_turns=len(TEXTS)),
        *(ComparisonView(compared, (text, text)) for text in metrics[::40]),
        cost,
    ]
    watch = Watch(page)
    body = "".join(view._repr_html_() for view in views)
    # Each view brings its own style sheet, which is the only one that may be there.
    await page.set_content(f"<!doctype html><main>{body}<p id=end>whole</p></main>")
    own = await page.evaluate(
        "() => { const found = [...document.querySelectorAll('main > .rk-view > style')];"
        " found.forEach((node) => document.head.append(node)); return found.length; }"
    )
    assert own == len(views)
    await watch.provoke()
    assert await page.locator("main > #end").inner_text() == "whole"
    assert await page.locator(".rk-turn").count() == len(TEXTS)
    exported = rk.export(observations, tmp_path / "replay.html", scores=scores)
    await page.goto(exported.as_uri())
    assert await page.locator(".rk-turn").count() == len(TEXTS)
    assert await page.evaluate("() => window.hostile") is None
    width = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(width) == 0
