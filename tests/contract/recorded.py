"""Recorded requests and answers, and how strictly an answer is compared."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import httpx

from research_kit.store import StoreAddress

__all__ = ["Case", "RecordedServer", "load_exports", "load_models", "load_reads", "load_score_writes"]

Case = dict[str, Any]

_DATA = Path(__file__).parent / "data"
_ANY = "<any>"
_PROJECT = "<project>"
# The recorded server cuts costs to 12 digits, which adds up in sums.
_COST_STEP = 5e-11


def load_exports() -> list[Case]:
    """Return the export requests in their order, each with its body under ``content``."""
    entries = json.loads((_DATA / "ingest" / "index.json").read_text(encoding="utf-8"))
    for entry in entries:
        entry["content"] = (_DATA / "ingest" / entry["file"]).read_bytes() if entry["file"] else b""
    return list(entries)


def load_score_writes() -> list[Case]:
    """Return the score writes in their order."""
    return list(json.loads((_DATA / "scores.json").read_text(encoding="utf-8")))


def load_reads() -> list[Case]:
    """Return the reads, among them deletions (``phase`` 2)."""
    return list(json.loads(gzip.decompress((_DATA / "reads.json.gz").read_bytes())))


def load_models() -> Case:
    """Return the pages of the model list."""
    return dict(json.loads(gzip.decompress((_DATA / "models.json.gz").read_bytes())))


class RecordedServer:
    """The store under test, asked as the recorded server was."""

    def __init__(self, address: StoreAddress) -> None:
        self._client = httpx.Client(base_url=address.base_url, timeout=30)
        self._project_id = address.project_id
        self._auth = {
            "ok": httpx.BasicAuth(address.public_key, address.secret_key),
            "wrong": httpx.BasicAuth(address.public_key, "sk-lf-not-the-secret"),
            "unknown": httpx.BasicAuth("pk-lf-unknown", "sk-lf-unknown"),
        }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def problem_of_export(self, case: Case) -> str | None:
        """Send one recorded export; the answer is the first difference, if any."""
        path = case.get("path", "/api/public/otel/v1/traces")
        return self._compared({"method": "POST", **case, "path": path})

    def rows_of(self, case: Case) -> list[Case]:
        """Send one recorded read and return the rows of the answer."""
        return list(self._send(case).json()["data"])

    def problem_of(self, case: Case) -> str | None:
        """Send one recorded request; the answer is the first difference, if any."""
        if "pages" in case["expect"]:
            return self._compared_pages(case)
        if "body" in case:
            headers = {"content-type": "application/json"}
            case = {"content": json.dumps(case["body"]).encode(), "headers": headers, **case}
        return self._compared(case)

    def _compared_pages(self, case: Case) -> str | None:
        query = dict(case["query"])
        for number, page in enumerate(case["expect"]["pages"], 1):
            answer = self._send({**case, "query": query})
            problem = self._difference({**case, "expect": {"status": 200, "body": page}}, answer)
            if problem:
                return f"page {number}: {problem}"
            query["cursor"] = answer.json()["meta"].get("cursor")
        return "a cursor after the last page" if query["cursor"] else None

    def _compared(self, case: Case) -> str | None:
        return self._difference(case, self._send(case))

    def _send(self, case: Case) -> httpx.Response:
        request = self._client.build_request(
            case["method"],
            case["path"],
            params=case.get("query") or None,
            headers=case.get("headers"),
            content=case.get("content"),
        )
        auth = case.get("auth", "ok")
        if auth == "bearer-junk":
            request.headers["authorization"] = "Bearer junk"
        return self._client.send(request, auth=self._auth.get(auth))

    def _difference(self, case: Case, answer: httpx.Response) -> str | None:
        expect, compare = case["expect"], case.get("compare", "full")
        if answer.status_code != expect["status"]:
            return f"status: expected {expect['status']}, got {answer.status_code} {answer.text[:200]}"
        for name, value in expect.get("headers", {}).items():
            if value not in answer.headers.get(name, ""):
                return f"header {name}: expected {value!r}, got {answer.headers.get(name)!r}"
        if compare == "status":
            return None
        wanted, found = expect["body"], answer.json() if answer.content else None
        if compare == "message":
            wanted = {key: value for key, value in wanted.items() if isinstance(value, str)}
            found = {key: found.get(key) for key in wanted}
        elif compare == "batch":
            wanted, found = _batch(wanted), _batch(found)
        elif compare == "unordered":
            wanted, found = _sorted_rows(wanted), _sorted_rows(found)
        elif compare == "histogram":
            wanted, found = _outlined(wanted), _outlined(found)
        return _first_difference(wanted, found, self._project_id, "body")


def _batch(body: Any) -> dict[str, list[list[str]]]:
    names = ("successes", "errors")
    return {
        name: sorted([str(entry.get("id")), str(entry["status"])] for entry in body[name]) for name in names
    }


def _sorted_rows(body: Any) -> Any:
    return {**body, "data": sorted(body["data"], key=lambda row: json.dumps(row, sort_keys=True))}


def _outlined(body: Any) -> Any:
    """Keep of each histogram what does not depend on where the bins lie: its bounds and its total height."""
    rows = [{name: _outline(value) for name, value in row.items()} for row in body["data"]]
    return _sorted_rows({**body, "data": rows})


def _outline(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(part, list) for part in value):
        return value
    return [value[0][0], value[-1][1], sum(height for _, _, height in value)] if value else value


def _first_difference(wanted: Any, found: Any, project_id: str, where: str) -> str | None:
    if wanted == _ANY:
        return None
    if isinstance(wanted, str):
        wanted = wanted.replace(_PROJECT, project_id)
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.keys() != found.keys():
            return f"{where}: keys differ: {sorted(wanted.keys() ^ found.keys())}"
        pairs = [(wanted[key], found[key], f"{where}.{key}") for key in wanted]
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"{where}: expected {len(wanted)} items, got {len(found)}"
        pairs = [(w, f, f"{where}[{n}]") for n, (w, f) in enumerate(zip(wanted, found, strict=True))]
    else:
        return None if _is_equal(wanted, found) else f"{where}: expected {wanted!r:.120}, got {found!r:.120}"
    return next(filter(None, (_first_difference(w, f, project_id, path) for w, f, path in pairs)), None)


def _is_equal(wanted: Any, found: Any) -> bool:
    if _is_number(wanted) and _is_number(found):
        return wanted == found or math.isclose(wanted, found, rel_tol=1e-9, abs_tol=_COST_STEP)
    return type(wanted) is type(found) and wanted == found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
