"""Settings, read from the environment in one place.

Owns the names of the environment variables and their defaults; does not touch the network. Invariant: a
`Settings` value is complete and validated, so no other module reads `os.environ` for them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from research_kit.errors import ConfigError
from research_kit.private import owner_id, private_directory
from research_kit.sources import LANGFUSE, Sources, langfuse_mixture, read_sources

__all__ = [
    "DEFAULT_LANGFUSE_URL",
    "LOOPBACK_NAMES",
    "REPLAY_VARIABLE",
    "Settings",
    "captures_io",
    "is_replaying",
    "is_telemetry_strict",
    "is_tracing_enabled",
    "keep_loopback_direct",
    "load_settings",
    "owner_id",
    "private_directory",
    "temporary_directory",
    "temporary_path",
]

# Set while recorded answers are replayed, and passed on to child processes; not a setting.
REPLAY_VARIABLE = "RESEARCH_KIT_REPLAYING"
DEFAULT_LANGFUSE_URL = "https://cloud.langfuse.com"
# What is reached past a proxy.
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")

_DEFAULT_REQUEST_TIMEOUT_S = 10.0
_DEFAULT_SPOOL_MB = 512.0
_DEFAULT_READ_MB = 2048.0
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")

_FALSE = frozenset({"0", "false", "no", "off"})
_TRUE = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the environment decides.

    Attributes:
        public_key: Langfuse public key; None selects the embedded store.
        secret_key: Langfuse secret key.
        base_url: The Langfuse server that belongs to the keys.
        is_tracing_enabled: False turns every form of telemetry off.
        session_id: The session that a process joins when it binds none itself; None means a new one.
        user_id: Who the traces belong to; None means the login name.
        environment: Langfuse environment of every trace; None means Langfuse's default.
        release: Release of the researcher's own code, stored with every trace.
        data_dir: Folder of the embedded store.
        data_dir_notice: Why that folder does not last; empty when it does.
        cache_dir: Folder of files that may be deleted at any time, the local model among them.
        request_timeout_s: How long a server may take to answer a delivery.
        spool_max_mb: How much of what waits for a server is kept on disk, per process.
        read_max_mb: How much a server may send for one read.
        store_max_age_days: How long the embedded store keeps traces; None keeps them all.
        store_max_mb: How large the embedded store may become; None sets no limit.
        store_idle_minutes: After how long without a request the store's server ends; None means never.
        lm: Name of the language model, for instance ``openai/gpt-4o-mini``.
        lm_base_url: Base URL of an OpenAI-compatible server for ``lm``.
        lm_api_key: Key for that server, or for the provider of ``lm``.
        captures_io: False records no inputs and outputs.
        strict_telemetry: True lets errors in telemetry reach the cell; meant for tests.
        sources: Where keys, addresses and the model's name come from.
        mixture: Why Langfuse's keys and address must not be used together; empty when they may.
    """

    public_key: str | None
    secret_key: str | None
    base_url: str
    is_tracing_enabled: bool
    session_id: str | None
    user_id: str | None
    environment: str | None
    release: str | None
    data_dir: Path
    data_dir_notice: str
    cache_dir: Path
    request_timeout_s: float
    spool_max_mb: float
    read_max_mb: float
    store_max_age_days: float | None
    store_max_mb: float | None
    store_idle_minutes: float | None
    lm: str | None
    lm_base_url: str | None
    lm_api_key: str | None = field(repr=False)
    captures_io: bool
    strict_telemetry: bool
    sources: Sources
    mixture: str


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``environ`` (by default the process environment).

    Raises:
        ConfigError: When a variable has a value that cannot be used, or one Langfuse key is missing.
    """
    env = os.environ if environ is None else environ
    sources = read_sources(env)
    mixture = langfuse_mixture(sources)
    public_key, secret_key = _text(env, "LANGFUSE_PUBLIC_KEY"), _text(env, "LANGFUSE_SECRET_KEY")
    if (public_key is None) != (secret_key is None) and not mixture:
        missing = "LANGFUSE_PUBLIC_KEY" if public_key is None else "LANGFUSE_SECRET_KEY"
        raise ConfigError(
            f"{missing} is not set, but the other Langfuse key is. A server needs both: set {missing}, "
            "or unset both to use the embedded store."
        )
    data_dir, notice = _data_dir(_text(env, "RESEARCH_KIT_DATA_DIR"))
    base_url = next(filter(None, (_text(env, name) for name in LANGFUSE.address)), DEFAULT_LANGFUSE_URL)
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"LANGFUSE_BASE_URL is {base_url!r}, which is not a web address. "
            f"Give it with its scheme, for instance {DEFAULT_LANGFUSE_URL}."
        )
    return Settings(
        public_key=public_key,
        secret_key=secret_key,
        base_url=base_url.rstrip("/"),
        is_tracing_enabled=_flag(env, "LANGFUSE_TRACING_ENABLED", default=True),
        session_id=_text(env, "RESEARCH_KIT_SESSION_ID"),
        user_id=_text(env, "LANGFUSE_USER_ID"),
        environment=_text(env, "LANGFUSE_TRACING_ENVIRONMENT"),
        release=_text(env, "LANGFUSE_RELEASE"),
        data_dir=data_dir,
        data_dir_notice=notice,
        cache_dir=_cache_dir(_text(env, "RESEARCH_KIT_CACHE_DIR")),
        request_timeout_s=_number(env, "LANGFUSE_TIMEOUT") or _DEFAULT_REQUEST_TIMEOUT_S,
        spool_max_mb=_number(env, "RESEARCH_KIT_SPOOL_MAX_MB") or _DEFAULT_SPOOL_MB,
        read_max_mb=_number(env, "RESEARCH_KIT_READ_MAX_MB") or _DEFAULT_READ_MB,
        store_max_age_days=_number(env, "RESEARCH_KIT_STORE_MAX_AGE_DAYS"),
        store_max_mb=_number(env, "RESEARCH_KIT_STORE_MAX_MB"),
        store_idle_minutes=_number(env, "RESEARCH_KIT_STORE_IDLE_MINUTES"),
        lm=_text(env, "RESEARCH_KIT_LM"),
        lm_base_url=_text(env, "RESEARCH_KIT_LM_BASE_URL"),
        lm_api_key=_text(env, "RESEARCH_KIT_LM_API_KEY"),
        captures_io=_flag(env, "RESEARCH_KIT_CAPTURE_IO", default=True),
        strict_telemetry=_flag(env, "RESEARCH_KIT_STRICT_TELEMETRY", default=False),
        sources=sources,
        mixture=mixture,
    )


def is_tracing_enabled() -> bool:
    """Say whether telemetry is wanted, by Langfuse's variable and OpenTelemetry's."""
    is_otel_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not is_otel_disabled and _flag(os.environ, "LANGFUSE_TRACING_ENABLED", default=True)


def is_replaying() -> bool:
    """Say whether every answer of a language model comes from a recording, so that no key is needed."""
    return _flag(os.environ, REPLAY_VARIABLE, default=False)


def captures_io() -> bool:
    """Say whether inputs and outputs are recorded; asked per observation, so it reads one variable only."""
    return _flag(os.environ, "RESEARCH_KIT_CAPTURE_IO", default=True)


def is_telemetry_strict() -> bool:
    """Say whether errors in telemetry reach the cell; asked where nothing else may fail."""
    return os.environ.get("RESEARCH_KIT_STRICT_TELEMETRY", "").strip().lower() in _TRUE


def keep_loopback_direct() -> None:
    """Let this process and its children reach servers on this machine past a proxy for the outside world.

    Such a proxy cannot reach them, and no library that is used here leaves them out by itself.
    """
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXY_VARIABLES):
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    missing = [host for host in LOOPBACK_NAMES if host not in hosts]
    if missing and "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*hosts, *missing])


def _data_dir(wanted: str | None) -> tuple[Path, str]:
    """Return the folder for data, and why it does not last."""
    if wanted:
        return Path(wanted).expanduser(), ""
    usual = user_data_path("research-kit")
    if _can_write(usual):
        return usual, ""
    path = temporary_directory() / "data"
    notice = (
        f"Traces are kept in {str(path)!r}, which the system may clear, because {str(usual)!r} cannot be "
        "written. Set RESEARCH_KIT_DATA_DIR to a folder that lasts."
    )
    return path, notice


def _cache_dir(wanted: str | None) -> Path:
    if wanted:
        return Path(wanted).expanduser()
    usual = user_cache_path("research-kit")
    return usual if _can_write(usual) else temporary_directory() / "cache"


def _can_write(path: Path) -> bool:
    """Whether ``path`` can be written, or created when it does not exist."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def temporary_directory() -> Path:
    """Return what stands in for a home that cannot be written: the same folder for all of a user's kernels.

    Raises:
        ConfigError: When the folder belongs to somebody else, who could then read the traces.
    """
    path = temporary_path()
    if path.is_symlink():
        raise ConfigError(
            f"Cannot use {str(path)!r} as the folder for data: it belongs to another user, or is a link. "
            "Remove it, or set RESEARCH_KIT_DATA_DIR to a folder that you can write."
        )
    return private_directory(path, purpose="data")


def temporary_path() -> Path:
    """Return where `temporary_directory` is, whether it exists or not."""
    own_id = owner_id()
    # Without numbers of users, each has a temporary folder of his own.
    name = "research-kit" if own_id is None else f"research-kit-{own_id}"
    return Path(tempfile.gettempdir()) / name


def _text(env: Mapping[str, str], name: str) -> str | None:
    return env.get(name, "").strip() or None


def _number(env: Mapping[str, str], name: str) -> float | None:
    text = _text(env, name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{name} is {text!r}, which is no positive number. Give one, or unset it.")
    return number


def _flag(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "").strip().lower()
    if not text:
        return default
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"{name} is {env[name]!r}, which is neither true nor false. Use true or false.")
