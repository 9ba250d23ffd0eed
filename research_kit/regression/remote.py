"""Notebooks and executed copies beyond this machine.

Owns what an address is, the local copies of fetched notebooks, and the errors; the reading and writing is
done by papermill's handlers, those that others have registered included. Invariant: nothing that an address
holds after a question mark, or before an ``@``, is shown, because keys stand there.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import unquote

from research_kit.errors import ConfigError

__all__ = ["fetch", "fetched_path", "is_remote", "join_address", "make_local_folder", "send", "shown"]

# papermill's handlers have no limit of their own.
TRANSFER_TIMEOUT_S = 300.0
_ASK_TIMEOUT_S = 10.0
_CAUSE_CHARS = 300
# Two letters at least: C:/ is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_USER = re.compile(r"//[^/@\s]+@")
_QUERY = re.compile(r"\?[^\s'\"<>)]*")
_CHECK = "Check the address, and the credentials of its storage."


def is_remote(place: str | Path) -> bool:
    """Whether ``place`` is an address such as ``s3://bucket/a.ipynb``; a `Path` never is."""
    return isinstance(place, str) and _SCHEME.match(place) is not None


def shown(address: str) -> str:
    """Return an address as it may be shown: without user and query."""
    return _QUERY.sub("", _USER.sub("//", address))


def join_address(folder: str, name: str) -> str:
    """Return the address of ``name`` in a remote folder, whose query may be a signature and stays last."""
    place, mark, query = folder.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


def fetched_path(address: str, folder: Path) -> Path:
    """Return where the notebook at ``address`` is kept below ``folder``, under its own name."""
    last = PurePosixPath(unquote(address.partition("?")[0])).stem
    stem = re.sub(r"[^\w. -]", "_", last).strip(". ") or "notebook"
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    return folder.absolute() / ".research_kit" / "remote" / digest / f"{stem}.ipynb"


def fetch(address: str, folder: Path, *, timeout_s: float = TRANSFER_TIMEOUT_S) -> Path:
    """Fetch a notebook and return the file that it was written to.

    Args:
        address: Where papermill reads it from.
        folder: The project; the file is below its ``.research_kit/remote``.
        timeout_s: How long the transfer may take.

    Raises:
        ConfigError: When it cannot be read or is no notebook, or the file cannot be written. Then an older
            file is gone too, so that it cannot be taken for this one.
    """
    path = fetched_path(address, folder)
    try:
        _fetch_to(path, address, timeout_s)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 -- a handler is somebody else's and may raise anything
        _refuse("read the notebook", address, error)
    return path


def _fetch_to(path: Path, address: str, timeout_s: float) -> None:
    make_local_folder(path)
    try:
        text = _within(timeout_s, lambda: _read(address))
        _require_notebook(text, address)
        # Others may be reading it: the file is there as a whole or not at all.
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def send(path: Path, address: str, *, timeout_s: float = TRANSFER_TIMEOUT_S) -> None:
    """Send a file to ``address``.

    Raises:
        ConfigError: When it cannot be written there.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _within(timeout_s, lambda: _write(text, address))
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 -- a handler is somebody else's and may raise anything
        _refuse("send the executed copy to", address, error)


def make_local_folder(path: Path) -> None:
    """Make the folder of a `fetched_path`, out of version control."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ignore = path.parent.parent / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _read(address: str) -> str:
    return str(_handler(address).read(address, extensions=None))


def _write(text: str, address: str) -> None:
    _handler(address).write(text, address, extensions=None)


def _handler(address: str) -> Any:
    """Return papermill's choice of handlers, once it has one for ``address``."""
    from papermill.iorw import papermill_io

    # papermill takes what nobody has registered for a local path.
    if papermill_io.get_handler(address) is papermill_io.get_handler(""):
        raise ConfigError(
            f"{shown(address)!r} cannot be reached: papermill has no handler for such addresses. Correct the "
            "address, or add a handler (entry point papermill.io, or papermill.iorw.papermill_io.register)."
        )
    return papermill_io


def _require_notebook(text: str, address: str) -> None:
    from research_kit.regression.documents import parse_notebook

    try:
        parse_notebook(text, shown(address))
    except ConfigError as error:
        if answer := _http_answer(address):
            message = f"Cannot read the notebook {shown(address)!r}: {answer}. {_CHECK}"
            raise ConfigError(message) from error
        raise


def _within(timeout_s: float, transfer: Callable[[], Any]) -> Any:
    """Return what ``transfer`` returns, or raise what it raises or `TimeoutError`."""
    ended: dict[str, Any] = {}

    def run() -> None:
        try:
            ended["value"] = transfer()
        except BaseException as error:  # noqa: BLE001 -- raised in the caller's thread
            ended["error"] = error

    thread = threading.Thread(target=run, name="research-kit-transfer", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not ended:
        raise TimeoutError(f"it did not answer within {timeout_s:g} s")
    if "error" in ended:
        raise ended["error"]
    return ended["value"]


def _http_answer(address: str) -> str:
    """Return what an HTTP server says of a page that is no notebook: papermill reads error pages as well."""
    import httpx
    from papermill.iorw import HttpHandler, papermill_io

    if papermill_io.get_handler(address) is not HttpHandler:
        return ""
    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=_ASK_TIMEOUT_S) as answer:
            is_error, status = answer.is_error, f"{answer.status_code} {answer.reason_phrase}"
    except (httpx.HTTPError, httpx.InvalidURL):
        return ""
    return f"the server answered {status.rstrip()}" if is_error else ""


def _refuse(what: str, address: str, error: Exception) -> NoReturn:
    text = " ".join(str(error).split())
    # Libraries quote the address, with the key in it, in their own words.
    text = shown(text) if address != shown(address) else text
    text = text if len(text) <= _CAUSE_CHARS else f"{text[:_CAUSE_CHARS]}..."
    name = type(error).__name__
    # papermill's own errors are sentences, and the one about a missing library says how to install it.
    is_sentence = isinstance(error, TimeoutError) or type(error).__module__.startswith("papermill")
    cause = text if is_sentence and text else f"{name}: {text}"
    remedy = "" if name == "PapermillOptionalDependencyException" else f" {_CHECK}"
    raise ConfigError(f"Cannot {what} {shown(address)!r}: {cause.rstrip('.: ')}.{remedy}") from error
