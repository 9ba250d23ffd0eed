"""The question whether the servers of a project's file may be used.

Owns when it is asked and what a yes means; shows nothing. Invariant: a yes is about the content that was
shown, whatever the file says by then.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from research_kit._words import visible_text
from research_kit.agent.mcp_file import McpFile, find_mcp_config, load_mcp_file
from research_kit.agent.server_plans import ServerPlan, plan_servers
from research_kit.errors import ConfigError
from research_kit.sources import trust_command
from research_kit.trust import trust_file

__all__ = ["TrustQuestion", "find_trust_question", "read_config_state"]

_MAX_NOTICE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustQuestion:
    """A file that the user has not trusted.

    Attributes:
        file: The file as it was read.
        plans: What its servers would do.
    """

    file: McpFile
    plans: tuple[ServerPlan, ...]

    @property
    def question_id(self) -> str:
        """What an answer names, so that it is never taken for one about another content."""
        return _state_of(self.file)

    @property
    def notice(self) -> str:
        """What somebody is told in one line who cannot be asked."""
        names = ", ".join(plan.name for plan in self.plans)
        return visible_text(
            f"The tool servers of {self.file.path} are not used, because you have not trusted it: {names}. "
            f"To look at it and allow it: {trust_command(self.file.path)}",
            limit=_MAX_NOTICE,
        )

    def accept(self) -> None:
        """Trust what was shown.

        Raises:
            ConfigError: When that cannot be noted.
        """
        trust_file(self.file.path, self.file.content)


def find_trust_question(directory: Path) -> TrustQuestion | None:
    """Return the question about the nearest file; None when there is nothing to ask, or it cannot be read."""
    path = find_mcp_config(directory)
    try:
        file = None if path is None else load_mcp_file(path)
    except ConfigError:
        return None  # `configured_servers` says why
    if file is None or file.is_trusted():
        return None
    return TrustQuestion(file=file, plans=plan_servers(file))


def read_config_state(directory: Path) -> str:
    """Return what changes when other servers may be used: the file, its content or its trust changed."""
    path = find_mcp_config(directory)
    if path is None:
        return ""
    try:
        file = load_mcp_file(path)
    except ConfigError as error:
        return str(error)
    return f"{_state_of(file)} {file.is_trusted()}"


def _state_of(file: McpFile) -> str:
    return hashlib.sha256(os.fsencode(file.path) + b"\0" + file.content).hexdigest()
