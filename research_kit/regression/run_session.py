"""The session of one regression run, and the cassette that belongs to it.

Owns which runs are bound to a session, what the session carries, and which cassette is used. Invariant: a
notebook that calls nothing observed costs nothing: its kernel is told nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path

from research_kit.regression.kernel_side import CassetteOrder, RunOrder
from research_kit.regression.notebook_options import ReplayMode
from research_kit.regression.plan import NotebookPlan, Plan
from research_kit.session.facts import find_git_facts
from research_kit.session.identity import MAX_ID_LENGTH, new_session_id

__all__ = ["TAG", "git_place", "order_run", "uses_observed"]

TAG = "regression"
_OBSERVED = re.compile(r"\b(?:research_kit|dspy|langfuse|mcp|openai|anthropic|litellm)\b")
_GIT_TIMEOUT_S = 5.0


def order_run(planned: NotebookPlan, plan: Plan, record: ReplayMode | None = None) -> RunOrder | None:
    """Return what the kernel of a run is bound to; None when the notebook observes nothing.

    Args:
        planned: The notebook and its parameters.
        plan: Its project.
        record: What the caller wants of cassettes; None leaves it to the notebook and the plan.
    """
    cassette = _order_cassette(planned, plan, record or planned.options.record or plan.record)
    if cassette is None and planned.expectations.is_empty and not uses_observed(planned.path):
        return None
    commit, branch = git_place(plan.root)
    parameters = json.dumps(dict(planned.parameters), default=str, ensure_ascii=True)
    metadata = {
        "regression_notebook": planned.name,
        "regression_parameters": parameters if planned.parameters else "",
        "git_commit": commit,
        "git_branch": branch,
    }
    return RunOrder(
        session_id=new_session_id(),
        tags=(TAG,),
        metadata={key: value[:MAX_ID_LENGTH] for key, value in metadata.items() if value},
        cassette=cassette,
    )


def uses_observed(path: Path) -> bool:
    """Whether the text of a notebook names a library whose calls are observed."""
    try:
        return bool(_OBSERVED.search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


@lru_cache(maxsize=32)
def git_place(folder: Path) -> tuple[str, str]:
    """Return commit and branch of the repository around ``folder``; empty outside of one."""
    commit = find_git_facts(folder).get("git_commit", "")
    # Runners of CI check out a commit, not a branch, and say in the environment which it was.
    named = os.environ.get("GITHUB_HEAD_REF") or os.environ.get("GITHUB_REF_NAME")
    branch = named or os.environ.get("CI_COMMIT_REF_NAME") or _branch(folder)
    return commit, branch if commit else ""


def _branch(folder: Path) -> str:
    command = ["git", "-C", str(folder), "branch", "--show-current"]
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ""
    return answer.stdout.strip()


def _order_cassette(planned: NotebookPlan, plan: Plan, mode: ReplayMode) -> CassetteOrder | None:
    path = planned.cassette_path
    if mode == "off" or (mode == "auto" and not path.exists()):
        return None
    return CassetteOrder(
        path=str(path.absolute()),
        record="none" if mode == "auto" else mode,
        replays_latency=plan.replays_latency,
    )
