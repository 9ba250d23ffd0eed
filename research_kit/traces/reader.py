"""Reads observations and scores from a Langfuse server, page by page, as plain JSON.

Owns paging: cursors, page sizes and limits; makes no DataFrames and no object per row, which is what makes it
fast. Invariant: every row is delivered once, newest first, and a limit that left rows out is reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import httpx

from research_kit.errors import BackendError
from research_kit.traces.paging import DEFAULT_READ_MB, Allowance, Page, PageSize, PageWatch, read_page
from research_kit.traces.query import ObservationQuery, check_limit
from research_kit.traces.transport import Clock, SystemClock, Transport
from research_kit.traces.wire import ObservationRow, ScoreRow

__all__ = ["ObservationRead", "Page", "TraceReader"]

_OBSERVATIONS_PATH = "/api/public/v2/observations"
_METRICS_PATH = "/api/public/v2/metrics"
_PROJECTS_PATH = "/api/public/projects"
_SCORES_PATH = "/api/public/v3/scores"
_OBSERVATIONS_PER_PAGE = 1000
_SCORES_PER_PAGE = 100
_TOO_LARGE = 413
_SERVER_FAILED = 500
_FEWEST_AFTER_500 = 10
_TRACES_PER_REQUEST = 50  # keeps the address below 2,000 characters


class ObservationRead(NamedTuple):
    """The rows of a read, and whether its limit left some out."""

    rows: list[ObservationRow]
    is_truncated: bool


class TraceReader:
    """Reads traces from one project of a Langfuse server or the embedded store.

    Args:
        base_url: Root of the server.
        public_key: Langfuse public key of the project.
        secret_key: Langfuse secret key of the project.
        client: The httpx client to use; the reader makes its own otherwise, closed by `close` or ``with``.
        timeout_s: How long one step of a request may take; the whole of it twice as long.
        clock: Time and waiting between attempts.
        max_read_mb: How many million bytes the server may send for one read; None sets no limit.

    Raises:
        ConfigError: When ``base_url`` is not a web address, or the secret key would get there unencrypted.
    """

    def __init__(
        self,
        base_url: str,
        public_key: str,
        secret_key: str,
        *,
        client: httpx.Client | None = None,
        timeout_s: float = 30.0,
        clock: Clock | None = None,
        max_read_mb: float | None = DEFAULT_READ_MB,
    ) -> None:
        self._max_read_mb = max_read_mb
        self.clock = SystemClock() if clock is None else clock
        self.public_key = public_key
        self._page_size = PageSize(_OBSERVATIONS_PER_PAGE)
        self._transport = Transport(
            base_url, (public_key, secret_key), client=client, timeout_s=timeout_s, clock=self.clock
        )

    def __repr__(self) -> str:
        return f"TraceReader({self.base_url!r}, {self.public_key!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """The server that is read, without a slash at the end."""
        return self._transport.base_url

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, as the embedded store does."""
        return self._transport.is_local

    @property
    def owner(self) -> tuple[str, str, str]:
        """What tells projects apart: address and keys."""
        return self.base_url, *self._transport.auth

    def close(self) -> None:
        """Close the connections that the reader opened."""
        self._transport.close()

    def list_observations(
        self, query: ObservationQuery | None = None, *, limit: int | None = None
    ) -> Iterator[ObservationRow]:
        """Yield observations as the server wrote them, newest first.

        Args:
            query: Which ones; None means all of the project.
            limit: At most so many; `read_observations` also tells whether there are more.

        Raises:
            BackendError: When the server cannot be read.
            ConfigError: When ``limit`` is not a whole number from 1 on.
        """
        for page in self.list_observation_pages(query, limit):
            yield from cast("list[ObservationRow]", page.rows)

    def read_observations(
        self, query: ObservationQuery | None = None, *, limit: int | None = None
    ) -> ObservationRead:
        """Return observations, newest first, and whether ``limit`` left some out.

        Raises:
            BackendError: When the server cannot be read.
            ConfigError: When ``limit`` is not a whole number from 1 on.
        """
        rows: list[ObservationRow] = []
        cursor: str | None = None
        for page in self.list_observation_pages(query, limit):
            rows.extend(cast("list[ObservationRow]", page.rows))
            cursor = page.cursor
        return ObservationRead(rows, is_truncated=cursor is not None)

    def list_scores(
        self, *, session_id: str | None = None, trace_ids: Sequence[str] | None = None
    ) -> Iterator[ScoreRow]:
        """Yield scores, newest first: those of a session itself, those within traces, or all of the project.

        Args:
            session_id: Only scores given to this session as a whole.
            trace_ids: Only scores of these traces and their observations.

        Raises:
            BackendError: When the server cannot be read.
        """
        params: dict[str, str] = {"fields": "details,subject,annotation"}
        if session_id is not None:
            params["sessionId"] = session_id
        if trace_ids is None:
            yield from self._list_scores(params)
            return
        for first in range(0, len(trace_ids), _TRACES_PER_REQUEST):
            some = trace_ids[first : first + _TRACES_PER_REQUEST]
            yield from self._list_scores({**params, "traceId": ",".join(some)})

    def read_project_name(self) -> str:
        """Return the name of the project that the keys belong to, or its id.

        Raises:
            BackendError: When the server cannot be read.
        """
        projects = read_page(self._transport.get_json(_PROJECTS_PATH, {}), self.base_url).rows
        return str(projects[0].get("name") or projects[0].get("id")) if projects else self.public_key

    def read_metrics(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows that the metrics API answers.

        Args:
            query: In the API's own words: view, metrics, dimensions, filters, fromTimestamp, toTimestamp...

        Raises:
            BackendError: When the server cannot be read, or refuses the query.
        """
        body = self._transport.get_json(_METRICS_PATH, {"query": json.dumps(query)})
        return read_page(body, self.base_url).rows

    def _list_scores(self, params: Mapping[str, str]) -> Iterator[ScoreRow]:
        size = PageSize(_SCORES_PER_PAGE)
        for page in self._list_pages(_SCORES_PATH, params, self.new_allowance(), size=size):
            yield from cast("list[ScoreRow]", page.rows)

    def list_observation_pages(
        self,
        query: ObservationQuery | None = None,
        limit: int | None = None,
        *,
        allowance: Allowance | None = None,
    ) -> Iterator[Page]:
        """Yield pages, newest first; the arguments and errors are those of `list_observations`.

        Args:
            query: Which observations.
            limit: At most so many.
            allowance: What the read may cost, when these pages are only a part of it.
        """
        check_limit(limit)
        params = (ObservationQuery() if query is None else query).params()
        allowance = self.new_allowance() if allowance is None else allowance
        return self._list_pages(_OBSERVATIONS_PATH, params, allowance, size=self._page_size, limit=limit)

    def new_allowance(self, *, is_bounded: bool = True) -> Allowance:
        """Return what one read may cost; unbounded where each page is let go before the next."""
        return Allowance(self.base_url, self._max_read_mb if is_bounded else None)

    def _list_pages(
        self,
        path: str,
        params: Mapping[str, str],
        allowance: Allowance,
        *,
        size: PageSize,
        limit: int | None = None,
    ) -> Iterator[Page]:
        asked: dict[str, str | int] = dict(params)
        count, watch = 0, PageWatch(self.base_url)
        while limit is None or count < limit:
            most = size.rows if limit is None else limit - count
            page = self._get_page(path, asked, size, allowance, most=most)
            cursor, row_count = page.cursor, len(page.rows)
            if cursor is not None and (limit is None or count + row_count < limit):
                watch.check(page, cast("str | None", asked.get("cursor")), min(size.rows, most))
            yield page
            del page  # its many objects would stay in memory beside those of the next one
            count += row_count
            if cursor is None:
                return
            asked["cursor"] = cursor

    def _get_page(
        self,
        path: str,
        params: Mapping[str, str | int],
        size: PageSize,
        allowance: Allowance,
        *,
        most: int,
    ) -> Page:
        """Return a page of at most ``most`` rows, and remember how many rows fit.

        Servers limit the bytes of an answer (Langfuse Cloud: 5 MB) and say so with 413 or 500; half as many
        rows may fit then.
        """
        wanted = min(size.rows, most)
        while True:
            can_halve = wanted > _FEWEST_AFTER_500
            attempts = {"attempts_on_500": 2} if can_halve else {}
            try:
                body, body_bytes = self._transport.get_sized(path, {**params, "limit": wanted}, **attempts)
            except BackendError as error:
                is_too_large = error.status_code == _TOO_LARGE and wanted > 1
                if not is_too_large and not (error.status_code == _SERVER_FAILED and can_halve):
                    raise
                wanted = wanted // 2
                size.shrink(wanted)
                continue
            size.note_fit()
            allowance.spend(body_bytes)
            return read_page(body, self.base_url)
