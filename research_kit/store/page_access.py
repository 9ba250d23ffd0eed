"""Who sees the pages, and the routes to them.

A link made by `links.opening_link` carries a token. It is exchanged for a cookie that scripts cannot read,
that the browser sends for requests from the store's own pages only, and only below the place in whose paths
the pages are shown. The browser remembers the place for just this host name and port, so that an address
without it finds the pages again. Invariant: without a token or the cookie a page says only how to get in.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from importlib.resources import files
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from research_kit.store import page_frame, page_rows
from research_kit.store.access import LOOPBACK_HOSTS, cookie_age, host_name, proxy_prefix
from research_kit.store.context import Store
from research_kit.store.database import Database
from research_kit.store.links import COOKIE_LIFETIME_S, cookie_name, make_cookie, page_host, page_place
from research_kit.store.markup import Child, element
from research_kit.store.page_sums import summarise
from research_kit.store.session_filter import SessionFilter, list_choices
from research_kit.store.session_page import session_page
from research_kit.store.sessions_page import sessions_page
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
_FOREIGN_ORIGINS = ("cross-site", "same-site")
# A cookie that is used is made anew after this part of its life.
_RENEWED_AFTER_S = COOKIE_LIFETIME_S / 4

PageMaker = Callable[[Request], str | None]
_STATIC = {
    page_frame.STYLE_PATH: "text/css",
    page_frame.SCRIPT_PATH: "text/javascript",
    page_frame.WAY_SCRIPT_PATH: "text/javascript",
}


def page_routes(store: Store) -> list[BaseRoute]:
    """Return the routes of all pages: as addresses name them, and below the place where they are shown."""
    project_id = store.credentials.project_id
    maker, guard, entrance = _PageMaker(store.database, project_id), _Guard(store), _Entrance(store)
    pages = {
        "/": guard.protect(lambda _: None, redirect_to=f"project/{project_id}/sessions"),
        "/project/{project_id}/sessions": guard.protect(maker.sessions),
        "/project/{project_id}/sessions/{session_id:path}": guard.protect(maker.session),
        "/project/{project_id}/traces/{trace_id}": guard.protect(maker.trace),
    }
    return [
        *(Route(path, entrance.answer) for path in pages),
        *(Route(f"/at-{{place}}{path}", answer) for path, answer in pages.items()),
        *(Route(f"{root}{path}", _static) for path in _STATIC for root in ("", "/at-{place}")),
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


class _Entrance:
    """Answers at the addresses without a place: lets in who has a link, and tells others how to get one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._host = page_host(store.credentials.project_id)
        self._place = page_place(store.credentials.secret_key, store.port)

    async def answer(self, request: Request) -> Response:
        """Answer a page without a place."""
        token = request.query_params.get("token", "")
        # What only looks at a link, as previews do, does not use it up.
        ticket = self._store.tickets.find(token) if request.method == "GET" else None
        is_loopback = host_name(request) in LOOPBACK_HOSTS
        is_led_on = is_loopback and not proxy_prefix(request, self._store.port)
        if ticket is None:
            return self._no_access(request, other_name=self._named(request) if is_led_on else None)
        if is_led_on and not ticket.fits_any_host:
            # Its cookie would go to every program that listens on 127.0.0.1.
            return RedirectResponse(self._named(request, token), status_code=303, headers=_HEADERS)
        self._store.tickets.use(token)
        return self._let_in(request)

    def _let_in(self, request: Request) -> Response:
        """Set the cookie and go on to the page in its place; the token stays out of the history."""
        prefix = proxy_prefix(request, self._store.port)
        target = f"{prefix}/{self._place}{_without_token(request)}"
        script = page_frame.way_script(root=prefix, place=self._place)
        link = element("a", "Continue", href=target)
        answer = _page(
            request, prefix, page_frame.message_page("Opening…", link, refresh_to=target, script=script)
        )
        _set_cookie(answer, self._store, f"{prefix}/{self._place}/")
        return answer

    def _no_access(self, request: Request, *, other_name: str | None) -> Response:
        """Say how to get a link; the script goes on by itself when this browser was let in before."""
        prefix = proxy_prefix(request, self._store.port)
        page = _no_access_page(script=page_frame.way_script(root=prefix), other_name=other_name)
        return _page(request, prefix, page, status_code=401)

    def _named(self, request: Request, token: str = "") -> str:
        """Return the address of the same page under the name of this installation."""
        _, colon, port = request.headers["host"].rpartition(":")
        is_port = bool(colon) and port.isdecimal()
        path = _without_token(request)
        proof = f"{'&' if '?' in path else '?'}token={token}" if token else ""
        return f"http://{self._host}{f':{port}' if is_port else ''}{path}{proof}"


class _Guard:
    """Lets requests with a valid cookie through to a page."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._place = page_place(store.credentials.secret_key, store.port)

    def protect(self, make_page: PageMaker, *, redirect_to: str | None = None) -> Callable[[Request], object]:
        """Wrap ``make_page``, or a redirection, into an endpoint that asks for the cookie first."""

        async def answer(request: Request) -> Response:
            root = f"{proxy_prefix(request, self._store.port)}/{self._place}"
            age_s = cookie_age(request, self._store)
            if age_s is None or not self._is_here(request):
                return self._refusal(request)
            if redirect_to is not None:
                # Relative to this page: some proxies put their path in front of all others.
                return RedirectResponse(redirect_to, headers=_HEADERS)
            page = await run_in_threadpool(make_page, request)
            if page is None:
                text = "Nothing with this id is stored here. It may still be on its way, or it was deleted."
                return _page(request, root, page_frame.message_page("Not found", text), status_code=404)
            shown = _page(request, root, page)
            if age_s > _RENEWED_AFTER_S:
                _set_cookie(shown, self._store, f"{root}/")
            return shown

        return answer

    def _is_here(self, request: Request) -> bool:
        asked = f"at-{request.path_params['place']}"
        return hmac.compare_digest(asked.encode(), self._place.encode())

    def _refusal(self, request: Request) -> Response:
        prefix = proxy_prefix(request, self._store.port)
        if request.headers.get("sec-fetch-site") in _FOREIGN_ORIGINS:
            # A link clicked in Jupyter: the browser holds the cookie back until the store itself sends it on.
            target = prefix + _without_token(request)
            return _page(request, prefix, page_frame.message_page("Opening…", refresh_to=target))
        return _page(request, prefix, _no_access_page(), status_code=401)


def _no_access_page(*, script: Child = None, other_name: str | None = None) -> str:
    return page_frame.message_page(
        "This page needs a fresh link",
        "Click the link in the chat panel, or run in a terminal:",
        element("code", "research-kit store open"),
        element("a", "If this browser has opened the store today, go on here.", href=other_name)
        if other_name
        else None,
        script=script,
    )


def _set_cookie(answer: Response, store: Store, path: str) -> None:
    answer.set_cookie(
        cookie_name(store.credentials),
        make_cookie(store.credentials.secret_key, store.port),
        max_age=COOKIE_LIFETIME_S,
        # Other ports of the same host know no such path, nor do other users of the same hub.
        path=path,
        httponly=True,
        samesite="strict",
    )


def _without_token(request: Request) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
    # The encoded path is kept: a session id may hold characters that mean something in an address.
    path = str(request.scope["raw_path"], "ascii")
    # Two slashes in front would name another host.
    return "/" + path.lstrip("/") + (f"?{urlencode(kept)}" if kept else "")


def _page(request: Request, root: str, text: str, *, status_code: int = 200) -> Response:
    text = text.replace(page_frame.ROOT_MARK, element("base", href=f"{root}/"), 1)
    # Halves of surrogate pairs can come from JSON escapes; UTF-8 cannot carry them.
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status_code, headers=_HEADERS)


async def _static(request: Request) -> Response:
    name = request.url.path.rpartition("/")[2]
    text = files("research_kit.store").joinpath(name).read_text(encoding="utf-8")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "max-age=300"}
    return Response(text, media_type=_STATIC[f"/static/{name}"], headers=headers)
