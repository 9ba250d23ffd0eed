"""The Python of README and docs is right for a type checker, as an editor would tell its reader."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
# What the reader of any page has; `await` is allowed in a notebook.
_BEFORE = (
    "import pandas as pd\nimport research_kit as rk\n\ndf = pd.DataFrame()\n\n\nasync def page() -> None:\n"
)


def test_examples_are_typed(tmp_path: Path) -> None:
    """Every example calls what exists, with arguments that it takes."""
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        blocks = "\n".join(_BLOCK.findall(path.read_text()))
        lines = [line for line in blocks.splitlines() if not line.startswith("%")]
        if lines:
            module = tmp_path / f"page_{path.stem.replace('-', '_')}.py"
            module.write_text(_BEFORE + textwrap.indent("\n".join(lines), "    "))
    # With the project's own settings, the check of the package has already read all that is imported.
    command = [sys.executable, "-m", "mypy", *map(str, tmp_path.glob("*.py"))]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
