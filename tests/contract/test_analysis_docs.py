"""The examples of the documentation run, on recorded sessions in the embedded store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recorded import RecordedServer, load_exports

from research_kit.store import ensure_running, stop_store

_TEXT = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*cannot be read|.*newest")
def test_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All code of the page runs in its order, as in one notebook."""
    data_dir = tmp_path / "data"
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(data_dir))
    monkeypatch.chdir(tmp_path)
    server = RecordedServer(ensure_running(data_dir))
    try:
        for case in load_exports():
            server.problem_of_export(case)
        blocks = re.findall(r"```python\n(.*?)```", _TEXT, re.S)
        code = "\n".join(blocks).replace("pilot-1", "chat-001").replace("pilot-2", "chat-002")
        # The recorded conversation's root has another name than ours.
        code = code.replace('messages["trace_id"].iloc[-1]', 'observations["trace_id"].iloc[-1]')
        names: dict[str, object] = {}
        exec(compile(code, "docs/analysis.md", "exec"), names)
    finally:
        server.close()
        stop_store(data_dir)
    assert len(names["steps"])
    assert Path("observations.parquet").stat().st_size > 0
