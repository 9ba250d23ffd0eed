"""The HTTP application: API and pages together, and what happens around every request.

Owns the middleware and the answers to unknown paths. Invariant: nothing but health, legacy reads and the
style sheet is answered without the key pair or a link proof.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from research_kit.store.access import LoopbackOnly
from research_kit.store.answers import ApiError, answer_api_error
from research_kit.store.api import Api, method_not_allowed
from research_kit.store.context import Activity, Store
from research_kit.store.page_access import page_routes

__all__ = ["build_app"]

_NOT_FOUND = "<!doctype html><title>Not found</title><p>There is no such page.</p>"


def build_app(store: Store) -> Starlette:
    """Put the application together."""
    api = Api(store)
    return Starlette(
        routes=[*api.routes(), *page_routes(store.database, store.credentials)],
        middleware=[
            Middleware(LoopbackOnly, credentials=store.credentials),
            Middleware(_NoteActivity, activity=store.activity),
        ],
        exception_handlers={ApiError: answer_api_error, HTTPException: _answer_http_error},
    )


class _NoteActivity:
    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._activity.note()
        await self._app(scope, receive, send)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status_code = error.status_code if isinstance(error, HTTPException) else 500
    if status_code == 405:
        return await method_not_allowed(request)
    return HTMLResponse(_NOT_FOUND, status_code=status_code)
