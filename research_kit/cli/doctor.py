"""``research-kit doctor``: what is set up, what would happen, and what to do about what is wrong.

Owns the questions and their order; the answers come from the code that would be used. Invariant: it changes
nothing, starts no server and calls no language model.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.version import Version

from research_kit._optional import DISTRIBUTION
from research_kit.cli.printing import say
from research_kit.config import load_settings
from research_kit.errors import ResearchKitError
from research_kit.masking import masked_text
from research_kit.plain_text import plain_text
from research_kit.session.environment_file import read_environment_file
from research_kit.sources import trust_command
from research_kit.trust import TRUST_VARIABLE, unusable_trust_places

if TYPE_CHECKING:
    from mcp import StdioServerParameters

    from research_kit.agent.mcp_config import ConfiguredServer

__all__ = ["Finding", "add_doctor_command", "examine"]

_SHOWN_PACKAGES = ("langfuse", "dspy-ai", "mcp", "pandas", "jupyterlab", "ipywidgets", "papermill", "nbval")
_OLDEST_LANGFUSE = Version("4")
_LAB_EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "anywidget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer.

    Attributes:
        level: ``ok``, ``note`` for what may surprise, ``problem`` for what will not work.
        topic: What was looked at.
        text: What was found, without secrets.
        remedy: What to do; empty when nothing needs to be done.
    """

    level: Literal["ok", "note", "problem"]
    topic: str
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Take the secrets out: what the doctor says goes into reports of bugs."""
        object.__setattr__(self, "text", masked_text(self.text))

    def __str__(self) -> str:
        """Say it in one or two lines."""
        remedy = f"\n{'':19}-> {self.remedy}" if self.remedy else ""
        return f"{self.level:8} {self.topic:9} {plain_text(self.text)}{remedy}"


def add_doctor_command(commands: Any) -> None:
    """Add ``research-kit doctor`` to the command line."""
    parser = commands.add_parser("doctor", help="what is set up, and the remedy for each problem")
    parser.set_defaults(run=_run)


def examine() -> Iterator[Finding]:
    """Yield what is found, topic by topic."""
    yield from _examine_versions()
    try:
        load_settings()
    except ResearchKitError as error:
        yield Finding(level="problem", topic="settings", text=str(error))
        return
    for topic, look in _TOPICS.items():
        try:
            yield from look()
        except ResearchKitError as error:
            yield Finding(level="problem", topic=topic, text=str(error))


def _run(_: argparse.Namespace) -> int:
    count = 0
    for finding in examine():
        say(str(finding))
        count += finding.level == "problem"
    say("\nno problems" if not count else f"\n{count} problem{'s' if count > 1 else ''}")
    return 1 if count else 0


def _examine_versions() -> Iterator[Finding]:
    text = f"research-kit {metadata.version(DISTRIBUTION)}, Python {platform.python_version()}"
    yield Finding(level="ok", topic="versions", text=f"{text}, {sys.executable}")
    misfits = [text for text in map(_misfit, metadata.requires(DISTRIBUTION) or ()) if text]
    remedy = f"pip install --upgrade {DISTRIBUTION}"
    for text in misfits:
        yield Finding(level="problem", topic="versions", text=text, remedy=remedy)
    if not misfits:
        shown = ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN_PACKAGES)
        yield Finding(level="ok", topic="versions", text=shown)


def _misfit(text: str) -> str | None:
    """Say how what is installed differs from a requirement of this package; None when it fits."""
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found} is installed, but {requirement.specifier} is needed"


def _examine_settings() -> Iterator[Finding]:
    file, sources = read_environment_file(), load_settings().sources
    for problem in file.problems:
        yield Finding(level="note", topic="settings", text=problem)
    if file.is_trusted:
        yield Finding(level="ok", topic="settings", text=f"{file.path} is trusted: it may set everything")
    by_place: dict[str, list[str]] = {}
    for name, place in sources.used.items():
        by_place.setdefault("your environment" if place is None else place, []).append(name)
    for place, names in by_place.items():
        yield Finding(level="ok", topic="settings", text=f"{', '.join(names)} from {place}")
    for name, place in sources.withheld.items():
        text = f"{name} of {place} is not used, because keys and address are not all from there"
        yield Finding(level="note", topic="settings", text=text)


def _examine_traces() -> Iterator[Finding]:
    settings = load_settings()
    if settings.data_dir_notice:
        yield Finding(level="note", topic="traces", text=settings.data_dir_notice)
    if not settings.is_tracing_enabled:
        text = "off: LANGFUSE_TRACING_ENABLED is false"
        yield Finding(level="note", topic="traces", text=text, remedy="Unset it to trace again.")
    elif settings.public_key or settings.mixture:
        yield from _examine_langfuse()
    else:
        yield _examine_store(settings.data_dir)
    from research_kit.session import count_waiting

    waiting = count_waiting(settings.data_dir)
    if waiting.entry_count:
        text = f"{waiting.entry_count} entries of {waiting.kernel_count} ended kernels wait on disk"
        yield Finding(level="note", topic="traces", text=text, remedy="research-kit deliver")


def _examine_store(data_dir: Path) -> Finding:
    from research_kit.store import get_store_status

    status = get_store_status(data_dir)
    if status.is_running:
        text = f"to the embedded store at {status.base_url}, {status.observation_count} observations so far"
        if status.notice:
            return Finding(level="note", topic="traces", text=f"{text}; {status.notice}")
    else:
        text = f"to the embedded store in {data_dir}, which starts with the first trace"
    return Finding(level="ok", topic="traces", text=text)


def _examine_langfuse() -> Iterator[Finding]:
    from research_kit.session.backend import fetch_project_id, resolve_backend

    backend = resolve_backend()
    project = fetch_project_id(backend)
    text = f"to Langfuse at {backend.base_url}, project {project}"
    version = _langfuse_version(backend.base_url)
    if version is not None and version < _OLDEST_LANGFUSE:
        remedy = f"Version {_OLDEST_LANGFUSE} or later is needed to read sessions back."
        yield Finding(level="problem", topic="traces", text=f"{text}, version {version}", remedy=remedy)
        return
    yield Finding(level="ok", topic="traces", text=f"{text}, version {version or 'unknown'}")


def _langfuse_version(base_url: str) -> Version | None:
    import httpx

    from research_kit.wire import BoundedClient, Bounds, open_client, parse_object

    try:
        with open_client(base_url, timeout_s=5.0) as client:
            answer = BoundedClient(client).request(
                "GET", f"{base_url}/api/public/health", bounds=Bounds(total_s=10.0)
            )
        return Version(str(parse_object(answer.content)["version"]))
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return None


def _examine_lm() -> Iterator[Finding]:
    from research_kit.agent import resolve_lm

    choice = resolve_lm()
    yield Finding(level="ok", topic="model", text=f"{choice.name}: {choice.reason}")


def _examine_tools() -> Iterator[Finding]:
    from research_kit.agent.mcp_config import read_mcp_config
    from research_kit.agent.mcp_file import find_mcp_config
    from research_kit.agent.trusting import find_trust_question

    for part in unusable_trust_places():
        text = f"{TRUST_VARIABLE} names {plain_text(part)!r}, which counts for nothing: it is no whole path"
        yield Finding(level="problem", topic="tools", text=text, remedy="Begin it with / or ~.")
    path = find_mcp_config(Path.cwd())
    if path is None:
        yield Finding(level="ok", topic="tools", text="the built-in ones; no mcp.json from here upward")
        return
    question = find_trust_question(Path.cwd())
    if question is not None:
        text = f"{plain_text(str(path))} is not trusted, so nothing of it is started"
        for plan in question.plans:
            yield Finding(level="note", topic="tools", text=f"{plan.name}, not used: it {plan.deed}")
        yield Finding(level="note", topic="tools", text=text, remedy=plain_text(trust_command(path)))
        return
    for server in read_mcp_config(path):
        yield _examine_server(server, path)


def _examine_server(server: ConfiguredServer, path: Path) -> Finding:
    from mcp import StdioServerParameters

    name, target = plain_text(server.name), server.target
    if target is None:
        return Finding(level="problem", topic="tools", text=_printable(server.problem or name))
    if isinstance(target, StdioServerParameters):
        return _examine_program(name, target, path)
    return Finding(level="ok", topic="tools", text=f"{name} at {_printable(target.url)}")


def _examine_program(name: str, target: StdioServerParameters, path: Path) -> Finding:
    found = shutil.which(target.command, path=(target.env or {}).get("PATH"))
    if found is None and not (Path(target.cwd or path.parent) / target.command).is_file():
        text = f"{name} of {path} needs the program {target.command!r}, which is not there"
        remedy = "Install it, or give its whole path as 'command'."
        return Finding(level="problem", topic="tools", text=text, remedy=remedy)
    command = _printable(" ".join([target.command, *target.args]))
    return Finding(level="ok", topic="tools", text=f"{name} runs {command}")


def _printable(text: str) -> str:
    return plain_text(masked_text(text))


def _examine_jupyter() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    from jupyter_core.paths import jupyter_path

    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    for name in _LAB_EXTENSIONS:
        if not any((folder / name / "package.json").is_file() for folder in folders):
            text = f"JupyterLab of this environment has no extension {name}, so the panel stays empty"
            remedy = "pip install --force-reinstall anywidget jupyterlab_widgets"
            yield Finding(level="problem", topic="jupyter", text=text, remedy=remedy)
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        remedy = "python -m ipykernel install --sys-prefix"
        yield Finding(level="problem", topic="jupyter", text="there is no kernel python3", remedy=remedy)
        return
    # Jupyter runs these names with its own Python, whatever is on the path.
    major, minor = sys.version_info[:2]
    if command in ("python", f"python{major}", f"python{major}.{minor}"):
        command = sys.executable
    if shutil.which(command) is None:
        text = f"the kernel python3 runs {command}, which is not there"
        remedy = "python -m ipykernel install --sys-prefix"
        yield Finding(level="problem", topic="jupyter", text=text, remedy=remedy)
    elif Path(command).name != command and not Path(command).samefile(sys.executable):
        text = f"the kernel python3 runs {command}, another Python than this one"
        remedy = "Install research-kit there too, or: python -m ipykernel install --sys-prefix"
        yield Finding(level="note", topic="jupyter", text=text, remedy=remedy)
    else:
        yield Finding(
            level="ok", topic="jupyter", text="JupyterLab, widgets and kernel are of one environment"
        )


def _examine_proxy() -> Iterator[Finding]:
    names = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if _proxy(name)]
    for name in names:
        address = urlsplit(_proxy(name))
        text = f"{name} sends what leaves this machine through {address.hostname}:{address.port}"
        remedy = "Add the host of your Langfuse server to NO_PROXY when it is inside your network."
        yield Finding(level="note", topic="proxy", text=text, remedy=remedy)


def _proxy(name: str) -> str:
    return os.environ.get(name.lower()) or os.environ.get(name) or ""


_TOPICS: dict[str, Callable[[], Iterator[Finding]]] = {
    "settings": _examine_settings,
    "traces": _examine_traces,
    "model": _examine_lm,
    "tools": _examine_tools,
    "jupyter": _examine_jupyter,
    "proxy": _examine_proxy,
}
