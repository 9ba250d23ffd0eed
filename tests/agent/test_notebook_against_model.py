"""The first notebook against the small local model itself, not against its recorded answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research_kit.config import Settings
from research_kit.regression import check_notebook, load_plan
from research_kit.store import stop_store

ROOT = Path(__file__).parents[2]


@pytest.mark.local_lm
@pytest.mark.usefixtures("local_choice")
def test_notebook_passes_with_the_model(local_settings: Settings, tmp_path: Path) -> None:
    """The model that answers today gives the accepted outputs, with the accepted tools and tokens."""
    plan = load_plan(ROOT)
    planned = next(one for one in plan.notebooks if one.path.stem == "01_chat_and_analyse")
    environment = {"RESEARCH_KIT_CACHE_DIR": str(local_settings.cache_dir)}
    live = replace(planned, options=replace(planned.options, environment=environment))
    try:
        check = check_notebook(live, plan, output_dir=tmp_path / "runs", record="off")
    finally:
        stop_store(tmp_path / "data")
    assert check.is_passed, (check.run.message, check.trace_problems, check.differences)
    assert check.run.replay is None
    assert check.run.facts is not None
    assert check.run.facts.lm_call_count > 8
