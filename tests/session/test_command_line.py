"""The command line looks at the same place as the kernels of its folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_commands_honour_the_folders_environment_file(tmp_path: Path) -> None:
    """`status` names the server that ``.env`` in the current folder names, as a kernel there would use it."""
    (tmp_path / ".env").write_text(
        "LANGFUSE_PUBLIC_KEY=pk-lf-1\nLANGFUSE_SECRET_KEY=sk-lf-1\n"
        "LANGFUSE_BASE_URL=http://127.0.0.1:9\nRESEARCH_KIT_DATA_DIR=data\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "research_kit.cli", "status"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "Langfuse at http://127.0.0.1:9, key pk-lf-1" in run.stdout
    assert "waiting on disk: 0 entries of 0" in run.stdout
