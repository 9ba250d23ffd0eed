"""Programs of users in processes of their own, and what of them arrived at a server."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import Observations
from recording_server import RecordingServer

SECRET = "hunter2"
_BIND = """
import research_kit as rk
rk.bind({session_id!r}, user_id="ann", tags=["tagged"], metadata={{"part": "ten"}}, mask=["hunter2"])
"""


@dataclass(frozen=True)
class Arrived:
    """An observation as it arrived, wherever that was."""

    name: str
    session_id: str
    user_id: str
    tags: tuple[str, ...]
    part: str
    text: str


@dataclass
class Destination:
    """Where the observations of a script go to, and a look at what is there.

    Attributes:
        session_id: The session that the script binds, which no other script has.
        environment: The variables that the script has besides those of the test.
    """

    session_id: str
    environment: dict[str, str]
    server: RecordingServer | None = None
    store: Observations | None = None

    @property
    def bind(self) -> str:
        """The code that binds the session."""
        return _BIND.format(session_id=self.session_id)

    def arrived(self, count: int) -> list[Arrived]:
        """Return what has arrived, sorted by name; the store is given time until it shows ``count``."""
        if self.store is not None:
            rows = self.store.wait(count, sessionId=self.session_id)
            found = [_of_row(row) for row in rows]
        else:
            assert self.server is not None
            found = [_of_span(span) for span in self.server.spans]
        return sorted(found, key=lambda one: (one.name, one.text))

    def assert_arrived(self, names: list[str]) -> None:
        """Each observation once, in the session with everything that belongs to it, the secret nowhere."""
        arrived = self.arrived(len(names))
        assert [one.name for one in arrived] == sorted(names)
        for one in arrived:
            belongs = (one.session_id, one.user_id, one.tags, one.part)
            assert belongs == (self.session_id, "ann", ("tagged",), "ten"), one
            assert SECRET not in one.text
        assert self.server is None or SECRET not in self.server.text


def _of_span(span: dict[str, Any]) -> Arrived:
    return Arrived(
        name=span["name"],
        session_id=span.get("session.id", ""),
        user_id=span.get("user.id", ""),
        tags=tuple(span.get("langfuse.trace.tags", ())),
        part=str(span.get("langfuse.trace.metadata.part", "")).strip('"'),
        text=repr(sorted(span.items())),
    )


def _of_row(row: dict[str, Any]) -> Arrived:
    return Arrived(
        name=row["name"],
        session_id=row["sessionId"] or "",
        user_id=row["userId"] or "",
        tags=tuple(row["tags"] or ()),
        part=str((row["metadata"] or {}).get("part", "")).strip('"'),
        text=repr(row),
    )


def run_script(
    code: str, folder: Path, environment: dict[str, str], *, launcher: str = "file", returns: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a user would, and return what it printed; it must end by itself."""
    path = folder / ("test_script.py" if launcher == "pytest" else "script.py")
    path.write_text(code)
    arguments = {
        "file": [str(path)],
        "command": ["-c", code],
        "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(path)],
    }[launcher]
    run = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == returns, run.stdout + run.stderr
    return run
