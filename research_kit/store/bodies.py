"""Request bodies, read with a limit.

Owns how much a request may carry. Invariant: no body fills the memory, whoever sends it and whatever length
it announces.
"""

from __future__ import annotations

from starlette.requests import Request

from research_kit.store.answers import ApiError

__all__ = ["MAX_EXPORT_BYTES", "MAX_JSON_BYTES", "read_body", "too_large"]

MAX_EXPORT_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
# A client reads its answer when it has sent everything, so what is too much is still taken, and thrown away.
_MAX_DRAINED_BYTES = 1024 * 1024 * 1024


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: 413 when it is longer than ``max_bytes``.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= max_bytes:
            parts.append(part)
        else:
            parts.clear()
        if size > _MAX_DRAINED_BYTES:
            break
    if size > max_bytes:
        raise too_large(max_bytes)
    return b"".join(parts)


def too_large(max_bytes: int) -> ApiError:
    """Refuse a body that is longer than ``max_bytes``."""
    return ApiError(
        413,
        {
            "message": f"The body has more than {max_bytes:,} bytes. Send less in one request.",
            "error": "PayloadTooLargeError",
        },
    )
