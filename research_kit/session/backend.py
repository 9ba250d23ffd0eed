"""Which server the traces of this process go to and are read from.

Owns the choice between a configured Langfuse and the embedded store, and asks a server for its project; sends
no spans. Invariant: without keys the answer is the embedded store, never a remote server.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from research_kit.config import Settings, keep_loopback_direct, load_settings
from research_kit.errors import BackendError, ConfigError
from research_kit.sources import LANGFUSE, Part, find_mixture, withdraw_mixed
from research_kit.store import ensure_running, opening_link, page_address
from research_kit.store.links import session_page_path, trace_page_path
from research_kit.trust import check_transport

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Backend",
    "fetch_project_id",
    "key_refusal",
    "mixture_with",
    "plan_backend",
    "refusal",
    "resolve_backend",
    "spool_folder",
]

_PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A server that speaks Langfuse's API.

    Attributes:
        state: ``local`` for the embedded store, ``connected`` for a Langfuse server.
        base_url: Root of the server, without a slash at the end.
        public_key: Its public key.
        secret_key: Its secret key.
        project_id: The project of the keys; None until the server was asked.
        socket_path: The Unix socket of the embedded store; None where it has none.
        notice: What the user should know of the server; empty when there is nothing.
        refusal: Why the secret key must not be sent there, and is empty here; itself empty when it may.
        file: The file of the project that has given the keys; None when the user has.
        waiting_key: What names the folder of what waits for it; None means the public key.
    """

    state: Literal["local", "connected"]
    base_url: str
    public_key: str
    secret_key: str
    project_id: str | None = None
    socket_path: Path | None = None
    notice: str = ""
    refusal: str = ""
    file: str | None = None
    waiting_key: str | None = None

    def __repr__(self) -> str:
        """Show everything but the secret key."""
        return f"Backend({self.state}, {self.base_url}, {self.public_key}, project {self.project_id})"

    def open_client(self, *, timeout_s: float) -> httpx.Client:
        """Return a client for this server; the embedded store is reached where nobody else can listen."""
        from research_kit.wire import open_client

        return open_client(self.base_url, timeout_s=timeout_s, transport=self.transport())

    def transport(self) -> httpx.BaseTransport | None:
        """Return the way to the embedded store; None for a server elsewhere."""
        if self.state != "local":
            return None
        from research_kit.store.transports import transport_to

        return transport_to(self)

    def session_url(self, session_id: str) -> str | None:
        """Return the address of a session's page; None while the project is not known."""
        return self._address(self._session_path(session_id))

    def trace_url(self, trace_id: str) -> str | None:
        """Return the address of a trace's page; None while the project is not known."""
        return self._address(self._trace_path(trace_id))

    def opening_link(self, *, session_id: str | None = None, trace_id: str | None = None) -> str | None:
        """Return what opens the page of a trace or session now; for the embedded store, a link for once.

        Raises:
            StoreError: When the embedded store does not answer.
        """
        path = self._trace_path(trace_id) if trace_id else self._session_path(session_id or "")
        if self.state == "local" and path is not None:
            return opening_link(self, path)
        return self._address(path)

    def _session_path(self, session_id: str) -> str | None:
        return session_page_path(self.project_id, session_id) if self.project_id else None

    def _trace_path(self, trace_id: str) -> str | None:
        return trace_page_path(self.project_id, trace_id) if self.project_id else None

    def _address(self, path: str | None) -> str | None:
        if path is None:
            return None
        return page_address(self, path) if self.state == "local" else self.base_url + path


def spool_folder(data_dir: Path, backend: Backend) -> Path:
    """Return where what waits for ``backend`` is kept: one folder per project.

    The public key names the project; an address may be mistyped and corrected, or change its port. A file of
    the project gets only what was recorded for its own pair: anybody can know a public key.
    """
    name = backend.waiting_key or backend.public_key
    return data_dir / "spool" / hashlib.sha256(name.encode()).hexdigest()[:16]


def resolve_backend(settings: Settings | None = None) -> Backend:
    """Return the server of this process; without keys, start the embedded store when it is not running.

    Raises:
        StoreError: When the embedded store cannot be started.
        ConfigError: When the settings or the data folder cannot be used, or the keys must not be sent.
    """
    backend = plan_backend(settings)
    if backend.refusal:
        withdraw_mixed(os.environ)
        raise ConfigError(backend.refusal)
    return backend


def key_refusal(settings: Settings) -> str:
    """Say why the secret key must not be sent to the configured server; empty when it may."""
    if settings.mixture or not settings.secret_key:
        return settings.mixture
    try:
        check_transport(settings.base_url, secret="LANGFUSE_SECRET_KEY")
    except ConfigError as error:
        return str(error)
    return ""


def mixture_with(settings: Settings, arguments: Mapping[str, str | None]) -> str:
    """Say why arguments must not be used with what is configured; empty when they may.

    Args:
        settings: What completes the arguments.
        arguments: Address, public key and secret key, in this order, by their names; the user's own word.
    """
    known = (settings.base_url, settings.public_key, settings.secret_key)
    return find_mixture(
        settings.sources.part(role) if argument in (None, value) else Part(name)
        for (name, argument), value, role in zip(arguments.items(), known, LANGFUSE.roles, strict=True)
    )


def plan_backend(settings: Settings | None = None) -> Backend:
    """Return the server that traces are kept for: `resolve_backend`, also while it must not get the keys.

    Raises:
        StoreError: When the embedded store cannot be started.
        ConfigError: When the settings or the data folder cannot be used.
    """
    settings = load_settings() if settings is None else settings
    keep_loopback_direct()
    refusal = key_refusal(settings)
    if settings.public_key and settings.secret_key:
        key = settings.sources.part(LANGFUSE.keys[0])
        file = key.file if key is not None else None
        return Backend(
            state="connected",
            base_url=settings.base_url,
            public_key=settings.public_key,
            secret_key="" if refusal else settings.secret_key,
            refusal=refusal,
            file=file,
            waiting_key=f"{settings.public_key}\n{settings.secret_key}" if file else None,
        )
    if refusal:
        raise ConfigError(refusal)
    address = ensure_running(settings.data_dir)
    return Backend(
        state="local",
        base_url=address.base_url,
        public_key=address.public_key,
        secret_key=address.secret_key,
        project_id=address.project_id,
        socket_path=address.socket_path,
        notice=address.notice,
    )


def fetch_project_id(backend: Backend) -> str:
    """Ask the server which project the keys belong to.

    Raises:
        BackendError: When the server cannot be reached or refuses the keys.
    """
    import httpx

    from research_kit.wire import BoundedClient, Bounds, JsonError, parse_object

    try:
        with backend.open_client(timeout_s=_PROBE_TIMEOUT_S) as client:
            answer = BoundedClient(client).request(
                "GET",
                f"{backend.base_url}/api/public/projects",
                auth=(backend.public_key, backend.secret_key),
                bounds=Bounds(total_s=2 * _PROBE_TIMEOUT_S),
            )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise BackendError(
            f"Cannot reach {backend.base_url}: {error}. Check LANGFUSE_BASE_URL and the network.",
            base_url=backend.base_url,
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise BackendError(
            refusal(backend, answer.status_code), base_url=backend.base_url, status_code=answer.status_code
        )
    try:
        return str(parse_object(answer.content)["data"][0]["id"])
    except (JsonError, LookupError, TypeError) as error:
        raise BackendError(
            f"{backend.base_url} answered something that is not Langfuse's. Check that LANGFUSE_BASE_URL is "
            "the root of a Langfuse server, not a login page or a proxy.",
            base_url=backend.base_url,
            status_code=answer.status_code,
        ) from error


def refusal(backend: Backend, status_code: int) -> str:
    """Say what a refusal with ``status_code`` means and what to do."""
    if status_code in (401, 403):
        return (
            f"{backend.base_url} refused the key {backend.public_key} ({status_code}). "
            "Check LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL: they must belong together."
        )
    return (
        f"{backend.base_url} answered {status_code}. Check that LANGFUSE_BASE_URL is a Langfuse server "
        "of version 4 or later, and its own log."
    )
