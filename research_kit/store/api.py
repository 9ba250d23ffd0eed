"""The endpoints below ``/api/public``: which function answers which path.

Owns the routes; the work is done in the modules named after their subject. Invariant: a known path with
another method answers 405, and every other answer but health, the server's proof and the legacy reads needs
the key pair.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from research_kit.store import (
    deletion,
    metrics_query,
    metrics_rows,
    observations,
    prices,
    score_list,
    scores,
)
from research_kit.store.access import check_key
from research_kit.store.answers import ApiError, invalid_data, issue, json_answer, json_text_answer
from research_kit.store.bodies import MAX_EXPORT_BYTES, MAX_JSON_BYTES, read_body, unpacked
from research_kit.store.context import Store
from research_kit.store.ingest import ingest_traces
from research_kit.store.links import LINKS_PATH
from research_kit.store.openapi import describe_api
from research_kit.store.reaching import PROOF_PATH, is_nonce, prove
from research_kit.wire.parsing import JsonError, TooManyValuesError, parse_json

__all__ = ["LANGFUSE_VERSION", "Api", "method_not_allowed"]

LANGFUSE_VERSION = "4.16.0"
"""The Langfuse version whose API the store answers."""

_METHOD_NOT_ALLOWED = {"message": "Method not allowed", "error": "MethodNotAllowedError"}
_LEGACY_READ = {
    "message": (
        "This endpoint is not available on deployments running in Langfuse v4 events_only mode. "
        "Learn more about Langfuse v4 at: https://langfuse.com/docs/v4"
    )
}
_LEGACY_PATHS = (
    "traces",
    "sessions",
    "observations",
    "metrics",
    "metrics/daily",
    "scores",
    "v2/scores",
    "traces/{identity}",
    "sessions/{identity}",
    "observations/{identity}",
    "scores/{identity}",
    "v2/scores/{identity}",
    "datasets/{name}/runs",
)
_ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_MAX_MODELS = 100
_MAX_JSON_VALUES = 1_000_000
_INGESTION_PATH = "/api/public/ingestion"


Answer = Callable[[Request], Awaitable[Response]]


class Api:
    """The endpoints below ``/api/public``, each a short function around one module."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[BaseRoute]:
        """Return all routes; a known path with another method answers 405 before the key is looked at."""
        endpoints: Mapping[str, Mapping[str, Answer]] = {
            "/api/public/otel/v1/traces": {"POST": self._export},
            "/api/public/otel/v1/metrics": {"POST": self._export_metrics},
            "/api/public/v2/observations": {"GET": self._list_observations},
            "/api/public/v2/metrics": {"GET": self._read_metrics},
            "/api/public/v3/scores": {"GET": self._list_scores},
            "/api/public/scores": {"POST": self._create_score},
            "/api/public/scores/{identity}": {"DELETE": self._delete_score},
            _INGESTION_PATH: {"POST": self._ingest},
            "/api/public/traces": {"DELETE": self._delete_traces},
            "/api/public/traces/{identity}": {"DELETE": self._delete_trace},
            "/api/public/projects": {"GET": self._list_projects},
            "/api/public/models": {"GET": self._list_models},
            "/api/public/models/{identity}": {"GET": self._get_model},
            "/api/public/openapi.json": {"GET": self._describe},
            "/internal/status": {"GET": self._status},
            LINKS_PATH: {"POST": self._make_link},
        }
        routes: list[BaseRoute] = []
        for path, answers in endpoints.items():
            routes += [
                Route(path, self._guarded(answer), methods=[method]) for method, answer in answers.items()
            ]
        routes += [Route(f"/api/public/{path}", _legacy_read, methods=["GET"]) for path in _LEGACY_PATHS]
        routes.append(Route(PROOF_PATH, self._prove, methods=["GET"]))
        for path in ("health", "ready"):
            routes.append(Route(f"/api/public/{path}", _health, methods=["GET"]))
        known = (
            *endpoints,
            *(f"/api/public/{name}" for name in ("health", "ready", "generations", "events")),
        )
        routes += [Route(path, method_not_allowed, methods=list(_ALL_METHODS)) for path in known]
        return routes

    def _guarded(self, answer: Answer) -> Answer:
        async def answer_with_key(request: Request) -> Response:
            check_key(request, self._store.credentials, names_error=request.url.path == _INGESTION_PATH)
            return await answer(request)

        return answer_with_key

    async def _export(self, request: Request) -> Response:
        body = await read_body(request, MAX_EXPORT_BYTES)
        await run_in_threadpool(ingest_traces, self._store.database, request.headers, body)
        return json_answer({})

    async def _export_metrics(self, request: Request) -> Response:
        return json_answer({"message": "OK"})

    async def _list_observations(self, request: Request) -> Response:
        query = observations.parse_query(request.query_params)
        return json_text_answer(await run_in_threadpool(self._read_observations, query))

    def _read_observations(self, query: observations.ObservationQuery) -> str:
        with self._store.database.reading() as connection:
            return observations.read_page(connection, query, project_id=self._store.credentials.project_id)

    async def _read_metrics(self, request: Request) -> Response:
        query = metrics_query.parse_metrics_query(request.query_params)
        return json_answer(await run_in_threadpool(self._compute_metrics, query))

    def _compute_metrics(self, query: metrics_query.MetricsQuery) -> dict[str, Any]:
        with self._store.database.reading() as connection:
            return metrics_rows.read_metrics(connection, query)

    async def _list_scores(self, request: Request) -> Response:
        query = score_list.parse_score_query(request.query_params)
        return json_answer(await run_in_threadpool(self._read_scores, query))

    def _read_scores(self, query: score_list.ScoreQuery) -> dict[str, Any]:
        with self._store.database.reading() as connection:
            return score_list.read_scores(connection, query, project_id=self._store.credentials.project_id)

    async def _create_score(self, request: Request) -> Response:
        content = await _json_body(request)
        if not isinstance(content, list):
            return json_answer(await run_in_threadpool(scores.write_score, self._store.database, content))
        result = await run_in_threadpool(scores.write_score_list, self._store.database, content)
        if result["rejected"]:
            return json_answer(result, status_code=207)
        return json_answer({"message": "Accepted"}, status_code=202)

    async def _delete_score(self, request: Request) -> Response:
        await run_in_threadpool(scores.delete_score, self._store.database, request.path_params["identity"])
        return json_answer({"message": "Score deletion queued successfully"}, status_code=202)

    async def _ingest(self, request: Request) -> Response:
        content = await _json_body(request)
        answer = await run_in_threadpool(scores.ingest_batch, self._store.database, content)
        return json_answer(answer, status_code=207)

    async def _delete_trace(self, request: Request) -> Response:
        await run_in_threadpool(
            deletion.delete_traces, self._store.database, [request.path_params["identity"]]
        )
        return json_answer({"message": "Trace deleted successfully"})

    async def _delete_traces(self, request: Request) -> Response:
        trace_ids = deletion.parse_trace_ids(await _json_body(request))
        await run_in_threadpool(deletion.delete_traces, self._store.database, trace_ids)
        return json_answer({"message": "Traces deleted successfully"})

    async def _list_projects(self, request: Request) -> Response:
        project = {
            "id": self._store.credentials.project_id,
            "name": "research-kit",
            "organization": {"id": "local", "name": "research-kit"},
            "metadata": {},
        }
        return json_answer({"data": [project]})

    async def _list_models(self, request: Request) -> Response:
        limit, page = (_positive(request, name, default) for name, default in (("limit", 50), ("page", 1)))
        if limit > _MAX_MODELS:
            raise invalid_data(
                issue(["limit"], f"Too big: expected number to be <={_MAX_MODELS}", code="too_big")
            )
        models = prices.list_models()
        meta = {
            "page": page,
            "limit": limit,
            "totalItems": len(models),
            "totalPages": -(-len(models) // limit),
        }
        shown = models[(page - 1) * limit : page * limit]
        return json_answer({"data": [model.wire for model in shown], "meta": meta})

    async def _get_model(self, request: Request) -> Response:
        identity = request.path_params["identity"]
        found = next((model for model in prices.list_models() if model.model_id == identity), None)
        if found is None:
            raise ApiError(404, {"message": "No model with this id found.", "error": "LangfuseNotFoundError"})
        return json_answer(found.wire)

    async def _describe(self, request: Request) -> Response:
        return json_answer(describe_api(self._store.version))

    async def _status(self, request: Request) -> Response:
        status: dict[str, Any] = {
            "projectId": self._store.credentials.project_id,
            "pid": os.getpid(),
            "version": self._store.version,
        }
        if request.query_params.get("count"):
            status["observationCount"] = await run_in_threadpool(self._count_observations)
        return json_answer(status)

    async def _make_link(self, request: Request) -> Response:
        fits_any_host = request.query_params.get("any_host") == "true"
        return json_answer({"token": self._store.tickets.issue(fits_any_host=fits_any_host)})

    async def _prove(self, request: Request) -> Response:
        """Show that this server knows the key, before the client shows that it does."""
        nonce = request.query_params.get("nonce", "")
        if not is_nonce(nonce):
            raise invalid_data(issue(["nonce"], "Invalid input: expected 64 hexadecimal digits"))
        return json_answer({"proof": prove(self._store.credentials.secret_key, nonce, self._store.port)})

    def _count_observations(self) -> int:
        with self._store.database.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM observations").fetchone()[0])


async def _json_body(request: Request) -> Any:
    body = await read_body(request, MAX_JSON_BYTES)
    body = unpacked(body, request.headers.get("content-encoding", ""), MAX_JSON_BYTES)
    try:
        return parse_json(body, max_values=_MAX_JSON_VALUES, keeps_odd_numbers=True)
    except TooManyValuesError as error:
        raise ApiError(413, {"message": f"{error}", "error": "PayloadTooLargeError"}) from None
    except JsonError:
        raise ApiError(400, {"message": "Invalid JSON", "error": "InvalidRequestError"}) from None


def _positive(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise invalid_data(issue([name], f"Invalid input: expected a positive number, received {text!r}"))
    return int(text)


async def _health(request: Request) -> Response:
    return json_answer({"status": "OK", "version": LANGFUSE_VERSION})


async def _legacy_read(request: Request) -> Response:
    return json_answer(_LEGACY_READ, status_code=404)


async def method_not_allowed(request: Request) -> Response:
    """Answer 405 as the recorded server does."""
    return json_answer(_METHOD_NOT_ALLOWED, status_code=405)
