"""The HTTP application: API and pages together, and what happens around every request.

Owns the middleware and the answers to unknown paths. Invariant: nothing but health, the server's proof,
legacy reads, the way in and the pages' static files is answered without the key pair, a token or a cookie.
"""

from __future__ import annotations

import logging
import sqlite3
import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from research_kit.store.access import LoopbackOnly, UnreadBodies
from research_kit.store.answers import ApiError, answer_api_error, json_answer
from research_kit.store.api import Api, method_not_allowed
from research_kit.store.context import Activity, Store
from research_kit.store.page_access import page_routes

__all__ = ["build_app"]

_logger = logging.getLogger(__name__)
_QUIET_S = 60.0

_UNUSABLE: dict[type[Exception], str] = {
    RecursionError: "A value is nested too deeply",
    OverflowError: "A number is too large to be stored",
    UnicodeEncodeError: "A text holds half of a character, which cannot be stored",
}
_NOT_FOUND = "<!doctype html><title>Not found</title><p>There is no such page.</p>"


def build_app(store: Store) -> Starlette:
    """Put the application together."""
    api = Api(store)
    return Starlette(
        routes=[*api.routes(), *page_routes(store)],
        middleware=[
            Middleware(UnreadBodies),
            Middleware(LoopbackOnly, store=store),
            Middleware(_NoteActivity, activity=store.activity),
        ],
        exception_handlers={
            ApiError: answer_api_error,
            HTTPException: _answer_http_error,
            sqlite3.OperationalError: _StorageProblem(),
            **dict.fromkeys(_UNUSABLE, _answer_unusable),
        },
    )


class _StorageProblem:
    """Answers when the disk is full or fails: clients keep what they have, and try again later."""

    def __init__(self) -> None:
        self._told_s = -_QUIET_S

    async def __call__(self, request: Request, error: Exception) -> Response:
        # A log on the same disk is no help when it repeats itself.
        if time.monotonic() - self._told_s >= _QUIET_S:
            self._told_s = time.monotonic()
            _logger.error("Cannot %s %s: %s.", request.method, request.url.path, error)
        is_full = "full" in str(error)
        remedy = "Make room on the disk" if is_full else "See the log of the store"
        content = {"message": f"The store cannot do this: {error}. {remedy}.", "error": "StorageError"}
        return json_answer(content, status_code=507 if is_full else 503)


class _NoteActivity:
    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._activity.note()
        await self._app(scope, receive, send)


async def _answer_unusable(_request: Request, error: Exception) -> Response:
    """Refuse what no rule has foreseen: a client that gets a failure instead would send it for ever."""
    problem = next(text for kind, text in _UNUSABLE.items() if isinstance(error, kind))
    return json_answer({"message": problem, "error": "InvalidRequestError"}, status_code=400)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status_code = error.status_code if isinstance(error, HTTPException) else 500
    if status_code == 405:
        return await method_not_allowed(request)
    return HTMLResponse(_NOT_FOUND, status_code=status_code)
