"""A real Jupyter server whose every folder is temporary.

Owns the process and its environment. Invariant: nothing of the machine's own Jupyter configuration is read,
nothing outside the given folder is written, and the server has ended when the block is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 15.0
_POLL_S = 0.1
_TOKEN = "browser-test"
_FOREIGN_PREFIXES = ("JUPYTER", "IPYTHON", "LANGFUSE_", "RESEARCH_KIT_", "OPENAI_", "OTEL_", "COV_CORE")
# News pop-ups and update checks would cover the page, and ask the network.
_QUIET_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    }
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JupyterServer:
    base_url: str
    token: str
    notebook_dir: Path
    kernel_id: str

    def give_kernel(self, notebook_name: str) -> None:
        """Let a notebook use the kernel that all of them share."""
        body = {"path": notebook_name, "name": notebook_name, "type": "notebook"}
        _post(self.base_url, "api/sessions", {**body, "kernel": {"id": self.kernel_id}})

    def page_url(self, front_end: str, notebook_name: str) -> str:
        """Return the address of a notebook in ``lab`` or ``notebook``."""
        if front_end == "lab":
            workspace = notebook_name.partition(".")[0]
            path = f"lab/workspaces/{workspace}/tree/{notebook_name}"
        else:
            path = f"notebooks/{notebook_name}"
        return f"{self.base_url}{path}?token={self.token}"


@contextmanager
def running_jupyter(
    folder: Path, environ: Mapping[str, str], *, python: Path = Path(sys.executable)
) -> Iterator[JupyterServer]:
    """Serve ``folder / "notebooks"`` with ``python``'s JupyterLab and Notebook 7; kernels get ``environ``."""
    notebook_dir = folder / "notebooks"
    notebook_dir.mkdir()
    _write_settings(folder / "config")
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            _command(python, notebook_dir), env=_environment(folder, environ), stdout=output, stderr=output
        )
    try:
        base_url = _wait_for_start(process, folder)["url"]
        kernel_id = _post(base_url, "api/kernels", {"name": "python3", "path": ""})["id"]
        yield JupyterServer(base_url=base_url, token=_TOKEN, notebook_dir=notebook_dir, kernel_id=kernel_id)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}api", timeout=_START_DEADLINE_S):
            return True
    except OSError:
        return False


def _post(base_url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"token {_TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{base_url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=_START_DEADLINE_S) as answer:
        created: dict[str, Any] = json.load(answer)
        return created


def _command(python: Path, notebook_dir: Path) -> list[str]:
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": "0",
        "ServerApp.open_browser": "False",
        "ServerApp.allow_root": "True",
        "ServerApp.root_dir": str(notebook_dir),
        "IdentityProvider.token": _TOKEN,
        "LabApp.expose_app_in_browser": "True",
        "JupyterNotebookApp.expose_app_in_browser": "True",
    }
    return [str(python), "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]


def _environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}
    return {
        **inherited,
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        **environ,
    }


def _write_settings(config_dir: Path) -> None:
    labconfig = config_dir / "labconfig"
    labconfig.mkdir(parents=True)
    (labconfig / "default_setting_overrides.json").write_text(json.dumps(_QUIET_SETTINGS))


def _wait_for_start(process: subprocess.Popen[bytes], folder: Path) -> dict[str, Any]:
    deadline_s = time.monotonic() + _START_DEADLINE_S
    while time.monotonic() < deadline_s:
        for path in (folder / "runtime").glob("jpserver-*.json"):
            text = path.read_text()
            # The file is there before the server listens.
            if text and _answers(json.loads(text)["url"]):
                facts: dict[str, Any] = json.loads(text)
                return facts
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        break
    log = (folder / "server.log").read_text()
    raise RuntimeError(f"The Jupyter server did not start within {_START_DEADLINE_S:.0f} s:\n{log[-4000:]}")
