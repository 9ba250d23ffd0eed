"""Runs 01_chat_and_analyse.ipynb headless and prints what it found: ``make demo``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat

from research_kit.config import load_settings
from research_kit.regression import run_notebook
from research_kit.session import resolve_backend

NOTEBOOK = Path(__file__).with_name("01_chat_and_analyse.ipynb")
OUTPUT = Path(__file__).parents[1] / ".research_kit" / "demo" / NOTEBOOK.name


def main() -> int:
    """Run the demo and return its exit code."""
    backend = resolve_backend(load_settings())
    say(f"traces go to {backend.base_url} ({backend.state}); the notebook is running ...")
    started_s = time.monotonic()
    result = run_notebook(NOTEBOOK, output_path=OUTPUT, cell_timeout_s=600, notebook_timeout_s=900)
    if result.output_path.exists():
        show_outputs(result.output_path)
    if result.outcome != "passed":
        print(f"the notebook ended as {result.outcome}: {result.message}", file=sys.stderr)
        return 1
    say(f"executed notebook: {result.output_path}")
    say(f"the notebook took {time.monotonic() - started_s:.0f} s")
    return 0


def show_outputs(path: Path) -> None:
    """Print the text of the cells tagged ``show``, with the heading above each."""
    heading = ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            heading = cell.source.partition("\n")[0].lstrip("# ")
        elif "show" in cell.metadata.get("tags", []):
            if heading:
                say(f"\n--- {heading} ---")
                heading = ""
            for output in cell.outputs:
                say(str(output.get("text") or output.get("data", {}).get("text/plain", "")).rstrip())


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
