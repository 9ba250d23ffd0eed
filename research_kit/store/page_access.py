"""Who sees the pages, and the routes to them.

A link made by `links.page_url` carries a token. It is exchanged for a cookie that scripts cannot read and
that the browser sends for requests from the store's own pages only. Invariant: without a valid token or
cookie a page tells nothing but how to get one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from research_kit.store import page_frame, page_rows
from research_kit.store.access import proxy_prefix
from research_kit.store.database import Database
from research_kit.store.links import COOKIE_LIFETIME_S, cookie_name, is_valid_proof, make_proof
from research_kit.store.markup import element
from research_kit.store.page_sums import summarise
from research_kit.store.session_filter import SessionFilter, list_choices
from research_kit.store.session_page import session_page
from research_kit.store.sessions_page import sessions_page
from research_kit.store.state import Credentials
from research_kit.store.trace_page import trace_page

__all__ = ["page_routes"]

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_MAX_USED = 1000
_FOREIGN_ORIGINS = ("cross-site", "same-site")

PageMaker = Callable[[Request], str | None]
_STATIC = {page_frame.STYLE_PATH: "text/css", page_frame.SCRIPT_PATH: "text/javascript"}


def page_routes(database: Database, credentials: Credentials) -> list[BaseRoute]:
    """Return the routes of all pages."""
    project_id = credentials.project_id
    maker = _PageMaker(database, project_id)
    guard = _Guard(credentials)
    return [
        Route("/", guard.protect(lambda _: None, redirect_to=f"/project/{project_id}/sessions")),
        Route("/project/{project_id}/sessions", guard.protect(maker.sessions)),
        Route("/project/{project_id}/sessions/{session_id:path}", guard.protect(maker.session)),
        Route("/project/{project_id}/traces/{trace_id}", guard.protect(maker.trace)),
        *(Route(path, _static) for path in _STATIC),
    ]


class _PageMaker:
    """Reads what a page needs and makes it; None stands for a page that does not exist."""

    def __init__(self, database: Database, project_id: str) -> None:
        self._database = database
        self._project_id = project_id

    def sessions(self, request: Request) -> str | None:
        if request.path_params["project_id"] != self._project_id:
            return None
        wanted = SessionFilter.of(request.query_params)
        offset = _offset(request.query_params.get("offset", ""))
        with self._database.reading() as connection:
            found = page_rows.list_sessions(connection, wanted, offset=offset)
            choices = list_choices(connection)
        return sessions_page(self._project_id, found, wanted, choices)

    def session(self, request: Request) -> str | None:
        session_id = request.path_params["session_id"]
        with self._database.reading() as connection:
            traces = page_rows.list_traces_of_session(connection, session_id)
            subject_ids = [session_id, *(trace.trace_id for trace in traces)]
            scores = page_rows.list_scores(connection, subject_ids=subject_ids)
            summary = summarise(connection, session_id) if traces else None
        if summary is None or request.path_params["project_id"] != self._project_id:
            return None
        return session_page(self._project_id, summary, traces, scores)

    def trace(self, request: Request) -> str | None:
        trace_id = request.path_params["trace_id"]
        with self._database.reading() as connection:
            trace = page_rows.find_trace(connection, trace_id)
            scores = page_rows.list_scores(connection, subject_ids=[trace_id])
        if trace is None or request.path_params["project_id"] != self._project_id:
            return None
        return trace_page(self._project_id, trace, scores)


def _offset(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


class _Guard:
    """Lets requests with a valid token or cookie through to a page."""

    def __init__(self, credentials: Credentials) -> None:
        self._secret_key = credentials.secret_key
        self._cookie_name = cookie_name(credentials)
        # Of this server's life; what is forgotten with it has a day at most.
        self._used: set[str] = set()

    def protect(self, make_page: PageMaker, *, redirect_to: str | None = None) -> Callable[[Request], object]:
        """Wrap ``make_page``, or a redirection, into an endpoint that asks for a proof first."""

        async def answer(request: Request) -> Response:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            if redirect_to is not None:
                # Relative to this page: some proxies put their path in front of all others.
                return RedirectResponse(redirect_to.lstrip("/"), headers=_HEADERS)
            page = await run_in_threadpool(make_page, request)
            if page is None:
                text = "Nothing with this id is stored here. It may still be on its way, or it was deleted."
                return _page(request, page_frame.message_page("Not found", text), status_code=404)
            return _page(request, page)

        return answer

    def _refusal(self, request: Request) -> Response | None:
        """Return what to answer instead of the page; None when the page may be seen."""
        token = request.query_params.get("token", "")
        if is_valid_proof(token, self._secret_key, purpose="link") and self._use(token):
            return self._exchange(request)
        if is_valid_proof(request.cookies.get(self._cookie_name, ""), self._secret_key, purpose="cookie"):
            return None
        if request.headers.get("sec-fetch-site") in _FOREIGN_ORIGINS:
            # A link clicked in Jupyter: the browser holds the cookie back until the store itself sends it on.
            return _page(request, page_frame.message_page("Opening…", refresh_to=_without_token(request)))
        return _page(request, _NO_ACCESS, status_code=401)

    def _use(self, token: str) -> bool:
        """Use up a valid token; False when it was used before."""
        if token in self._used:
            return False
        if len(self._used) >= _MAX_USED:
            self._used = {
                known for known in self._used if is_valid_proof(known, self._secret_key, purpose="link")
            }
        self._used.add(token)
        return True

    def _exchange(self, request: Request) -> Response:
        """Set the cookie and go on to the same page without the token, which stays out of the history."""
        target = _without_token(request)
        page = page_frame.message_page("Opening…", element("a", "Continue", href=target), refresh_to=target)
        answer = _page(request, page)
        answer.set_cookie(
            self._cookie_name,
            make_proof(self._secret_key, purpose="cookie", lifetime_s=COOKIE_LIFETIME_S),
            max_age=COOKIE_LIFETIME_S,
            # On a hub other users' servers have the same host; they must not get it.
            path=f"{proxy_prefix(request.headers)}/",
            httponly=True,
            samesite="strict",
        )
        return answer


_NO_ACCESS = page_frame.message_page(
    "This page needs a fresh link",
    "Open it from the notebook that made the session, or run:",
    element("code", "research-kit store open"),
)


def _without_token(request: Request) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
    # The encoded path is kept: a session id may hold characters that mean something in an address.
    path = str(request.scope["raw_path"], "ascii")
    # Two slashes in front would name another host.
    target = "/" + path.lstrip("/") + (f"?{urlencode(kept)}" if kept else "")
    return proxy_prefix(request.headers) + target


def _page(request: Request, text: str, *, status_code: int = 200) -> Response:
    base = element("base", href=f"{proxy_prefix(request.headers)}/")
    text = text.replace(page_frame.ROOT_MARK, base, 1)
    # Halves of surrogate pairs can come from JSON escapes; UTF-8 cannot carry them.
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status_code, headers=_HEADERS)


async def _static(request: Request) -> Response:
    path = request.url.path
    text = files("research_kit.store").joinpath(path.rpartition("/")[2]).read_text(encoding="utf-8")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "max-age=300"}
    return Response(text, media_type=_STATIC[path], headers=headers)
