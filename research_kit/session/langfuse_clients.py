"""The Langfuse clients that user code makes, itself or through ``get_client``, ``@observe`` and their kind.

Owns the place where all of them are made, the class `langfuse.Langfuse`, and the decision which of them are
for the session of this process: those get the client whose observations are masked and kept until they are
delivered. A client for other keys is left alone. Invariant: watching imports nothing and starts nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from research_kit._notices import warn_user
from research_kit.config import Settings, is_tracing_enabled, load_settings
from research_kit.errors import ConfigError
from research_kit.session.backend import key_refusal, mixture_with
from research_kit.session.guard import guarded
from research_kit.sources import withdraw_mixed
from research_kit.store import get_store_status
from research_kit.trust import check_transport

if TYPE_CHECKING:
    from research_kit.session.telemetry import ClientPlan

__all__ = ["LangfuseClients"]

Arguments: TypeAlias = Mapping[str, Any]

_MODULE = "langfuse"
# What makes a client export in a way that this package's delivery cannot; user code's word counts.
_OWN_EXPORT = frozenset({"span_exporter", "mask_otel_spans", "additional_headers"})
# What decides about what leaves, and is lost when the client is not the first of its keys.
_DECIDING = frozenset({"mask", "should_export_span", *_OWN_EXPORT})
# With no key the client would take the one of the environment.
_SENDING_NOTHING = {"secret_key": "not-sent", "tracing_enabled": False}
# What the one client of the process takes over from the client that user code makes first.
_TAKEN_OVER = frozenset(
    {
        "debug",
        "environment",
        "httpx_client",
        "id_generator",
        "mask",
        "media_upload_thread_count",
        "release",
        "sample_rate",
        "should_export_span",
        "timeout",
        "tracer_provider",
    }
)


class _Session(Protocol):
    """What the session of the process does for the clients."""

    @property
    def plan(self) -> ClientPlan | None:
        """How the client is made; None before the first one."""

    def prepare_client(self, given: Arguments) -> ClientPlan | None:
        """Switch tracing on with what user code says about its client; None when that cannot be done."""


class LangfuseClients:
    """Watches over the making of Langfuse clients, once in each process.

    Args:
        session: Switches tracing on when the first client is made.
    """

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._is_watching = False
        self._foreign_keys: set[str] = set()
        self.exports_itself = False

    @property
    def notice(self) -> str:
        """What goes past the session or its mask; empty when nothing does."""
        if self.exports_itself:
            return (
                "Langfuse's SDK sends the observations of this process itself, because a Langfuse client was "
                "made before research_kit.bind(), or one that exports in a way of its own: they are in the "
                "session, but research-kit neither masks them nor keeps them on disk until they are delivered"
            )
        if self._foreign_keys:
            keys = ", ".join(sorted(self._foreign_keys))
            return (
                f"the Langfuse client with the key {keys} is of another project: what it records is not in "
                "this session and not masked. With clients of several keys Langfuse's get_client() and "
                "@observe need to be told the key"
            )
        return ""

    def warn_of_own_export(self) -> None:
        """Say, when this is found out, that Langfuse's SDK sends the observations itself."""
        self.exports_itself = True
        warn_user(
            f"{self.notice}. Bind the session before Langfuse's first client is made, by Langfuse(), "
            "get_client() or a call of a function with @observe; masks of your own go to "
            "research_kit.bind(mask=...)."
        )

    def watch(self) -> None:
        """Have a say in each Langfuse client that is made from now on; Langfuse may be imported later."""
        if self._is_watching:
            return
        self._is_watching = True
        if _MODULE in sys.modules:
            _on_import(self._wrap)
        else:
            sys.meta_path.insert(0, _Finder(self._wrap))

    def _wrap(self, module: ModuleType) -> None:
        from wrapt import wrap_function_wrapper

        with guarded("import of Langfuse"):  # else the import fails
            wrap_function_wrapper(module, "Langfuse.__init__", self._make)

    def _make(
        self, make: Callable[..., None], _: object, args: tuple[object, ...], given: dict[str, Any]
    ) -> None:
        plan = self._session.plan
        # Also what get_client() makes of the client that there is.
        is_planned = plan is not None and given.get("span_exporter") is plan.arguments["span_exporter"]
        if is_planned:
            make(*args, **given)
            return
        withdraw_mixed(os.environ)
        is_enabled = is_tracing_enabled()
        arguments: Arguments = {**given, **_SENDING_NOTHING}  # when the next line fails
        with guarded("Langfuse client"):
            arguments = self._arguments(given) if is_enabled else _allowed(given, load_settings())
        make(*args, **arguments)
        if is_enabled and self.exports_itself and plan is None:
            self._session.prepare_client({})

    def _arguments(self, given: Arguments) -> Arguments:
        """Return what a client is made with that user code has described as ``given``."""
        earlier, settings = self._session.plan, load_settings()
        public_key = given.get("public_key") or os.environ.get("LANGFUSE_PUBLIC_KEY")
        if public_key and public_key != self._own_key(settings):
            if given.get("tracing_enabled", True):
                self._foreign_keys.add(public_key)
            return _allowed(given, settings)
        is_apart = earlier is None and settings.public_key and _exports_itself(given, settings)
        # One that may not send what it was given is the session's own client instead.
        if is_apart and _allowed(given, settings) is given:
            self.exports_itself = True
            return given
        plan = self._session.prepare_client({name: given[name] for name in _TAKEN_OVER & given.keys()})
        if self.exports_itself:
            return given
        if plan is None:
            # Without keys Langfuse makes a client that does nothing, and says so.
            return {**given, "tracing_enabled": False}
        _warn_of(given.keys() & (_DECIDING if plan is earlier else _OWN_EXPORT), given)
        return {**plan.arguments, "tracing_enabled": given.get("tracing_enabled", True)}

    def _own_key(self, settings: Settings) -> str | None:
        if self._session.plan is not None:
            return self._session.plan.backend.public_key
        return settings.public_key or get_store_status(settings.data_dir).public_key


class _Finder(MetaPathFinder):
    """Waits for the first import of Langfuse; so much lighter than what it then leaves the rest to."""

    def __init__(self, wrap: Callable[[ModuleType], None]) -> None:
        self._wrap = wrap

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        with suppress(ValueError):
            sys.meta_path.remove(self)
            _on_import(self._wrap)
        return find_spec(fullname)


def _on_import(wrap: Callable[[ModuleType], None]) -> None:
    from wrapt import register_post_import_hook

    register_post_import_hook(wrap, _MODULE)


def _allowed(given: Arguments, settings: Settings) -> Arguments:
    """Return what such a client is made with: without the key, and with a warning, when that must not go."""
    # In the order of Langfuse's SDK, for which the environment's new name wins over the old argument.
    address = given.get("base_url") or (not os.environ.get("LANGFUSE_BASE_URL") and given.get("host")) or None
    arguments = {
        "base_url": address.rstrip("/") if address else None,
        "public_key": given.get("public_key"),
        "secret_key": given.get("secret_key"),
    }
    refusal = mixture_with(settings, arguments)
    if not refusal:
        try:
            check_transport(address or settings.base_url, secret="The secret key of this Langfuse client")
            return given
        except ConfigError as error:
            refusal = str(error)
    warn_user(refusal)
    return {**given, **_SENDING_NOTHING}


def _exports_itself(given: Arguments, settings: Settings) -> bool:
    """Say whether a client of the session's key sends to another place, or in another way, than we would."""
    url = given.get("base_url") or given.get("host") or settings.base_url
    is_elsewhere = url.rstrip("/") != settings.base_url
    is_other_secret = given.get("secret_key") not in (None, settings.secret_key)
    if given.get("secret_key") is None and key_refusal(settings):
        return False  # the key in the environment must not be sent
    return is_elsewhere or is_other_secret or any(given.get(name) is not None for name in _OWN_EXPORT)


def _warn_of(ignored: Iterable[str], given: Arguments) -> None:
    names = sorted(name for name in ignored if given[name] is not None)
    if names:
        warn_user(
            f"{', '.join(names)} of this Langfuse client has no effect, because Langfuse keeps the first "
            "client of each key. Make the client before anything is observed; a mask can also be given to "
            "research_kit.bind(mask=...)."
        )
