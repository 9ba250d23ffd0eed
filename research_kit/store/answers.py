"""HTTP answers: the one way to write JSON, and the errors in the words of the recorded server.

Owns status codes and error bodies; decides nothing. Invariant: every refused request raises `ApiError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

__all__ = [
    "ApiError",
    "answer_api_error",
    "bad_request",
    "invalid_data",
    "issue",
    "json_answer",
    "json_text_answer",
]


class ApiError(Exception):
    """A request that is refused, with the answer it gets."""

    def __init__(self, status_code: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("message") or body.get("error")))
        self.status_code = status_code
        self.body = body


def bad_request(message: str) -> ApiError:
    """Refuse a request whose parts are well-formed but do not fit together."""
    return ApiError(400, {"message": message, "error": "InvalidRequestError"})


def invalid_data(*issues: Mapping[str, Any]) -> ApiError:
    """Refuse a request with one issue per wrong value."""
    return ApiError(400, {"message": "Invalid request data", "error": list(issues)})


def issue(path: list[str | int], message: str, *, code: str = "custom") -> dict[str, Any]:
    """Describe what is wrong with the value at ``path``."""
    return {"code": code, "path": path, "message": message}


def json_answer(content: Any, *, status_code: int = 200) -> Response:
    """Answer with a JSON value."""
    return json_text_answer(json.dumps(content, ensure_ascii=False), status_code=status_code)


def json_text_answer(text: str, *, status_code: int = 200) -> Response:
    """Answer with a text that is JSON already."""
    # The text can hold halves of surrogate pairs, which JSON can write but UTF-8 cannot.
    body = text.encode("utf-8", "replace")
    return Response(body, status_code=status_code, media_type="application/json")


async def answer_api_error(_request: Request, error: Exception) -> Response:
    """Turn an `ApiError` into its answer."""
    if not isinstance(error, ApiError):
        raise error
    return json_answer(error.body, status_code=error.status_code)
