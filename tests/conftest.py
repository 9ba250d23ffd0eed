"""What every test gets: an environment without keys, and folders of its own."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import certifi
import pytest

from research_kit._slow_formats import defer_slow_formats

# Before dspy is imported, which takes twice as long otherwise.
defer_slow_formats()
# DSPy reads its cache folder when it is imported, which is before any fixture runs.
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="research-kit-dspy-")

# All certificates of the world take each client a tenth of a second; only a real Langfuse needs them here.
if not os.environ.get("LANGFUSE_BASE_URL", "").startswith("https:"):
    _first, _end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    _certificate = Path(tempfile.mkdtemp(prefix="research-kit-certificate-"), "first.pem")
    _certificate.write_text(_first[_first.index("-----BEGIN") :] + _end)
    os.environ.setdefault("SSL_CERT_FILE", str(_certificate))

_DEMO = "test_notebook_passes_with_the_model"
_FOREIGN_PREFIXES = ("LANGFUSE_", "RESEARCH_KIT_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "OTEL_", "JUPYTERHUB_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove keys and settings of the machine; give every test folders of its own."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RESEARCH_KIT_CACHE_DIR", str(tmp_path / "cache"))
    # What the user trusts, which no RESEARCH_KIT_ variable can move.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("RESEARCH_KIT_STRICT_TELEMETRY", "true")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return tmp_path


@pytest.fixture(autouse=True)
def loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections beyond this machine, so that no test depends on a network but those asked to."""
    if request.node.get_closest_marker("langfuse"):
        return
    connect = socket.socket.connect

    def guarded_connect(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
            host = str(address[0])
            if not (host.startswith("127.") or host in ("localhost", "::1")):
                raise ConnectionRefusedError(f"a test tried to reach {host}; tests stay on this machine")
        connect(self, address)  # type: ignore[arg-type]

    # The seam is the socket class itself: libraries with transports of their own must be caught too.
    monkeypatch.setattr(socket.socket, "connect", guarded_connect)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long the notebook of ``make demo`` took, which is what a newcomer waits for."""
    for report in terminalreporter.getreports("passed"):
        if report.nodeid.endswith(_DEMO):
            terminalreporter.line(f"the notebook of make demo took {report.duration:.0f} s")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["DSPY_CACHEDIR"], ignore_errors=True)
