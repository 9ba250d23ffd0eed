"""Request bodies, read and unpacked with a limit.

Owns how much a request may carry, and how it may be compressed. Invariant: no body fills the memory, whoever
sends it, whatever length it announces and whatever it unpacks to.
"""

from __future__ import annotations

import zlib

from starlette.requests import Request

from research_kit.store.answers import ApiError

__all__ = ["MAX_EXPORT_BYTES", "MAX_JSON_BYTES", "read_body", "too_large", "unpacked"]

MAX_EXPORT_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
# A client reads its answer when it has sent everything, so what is too much is still taken, and thrown away.
_MAX_DRAINED_BYTES = 1024 * 1024 * 1024
# Several gzip members in a row are one valid file; nobody makes one of thousands.
_MAX_MEMBERS = 64
_GZIP = zlib.MAX_WBITS | 16


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


def unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return a body as it was before it was compressed.

    Args:
        body: The body as it came.
        encoding: The header ``Content-Encoding``.
        max_bytes: How long it may be unpacked.

    Raises:
        ApiError: 413 when it is longer, 415 when the encoding is unknown, 400 when it cannot be unpacked.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip"):
        problem = f"The body is encoded as {name[:40]!r}. Send it as it is, or with gzip."
        raise ApiError(415, {"message": problem, "error": "UnsupportedMediaTypeError"})
    parts: list[bytes] = []
    while body and len(parts) < _MAX_MEMBERS:
        member = zlib.decompressobj(_GZIP)
        try:
            parts.append(member.decompress(body, max_bytes + 1 - sum(map(len, parts))))
        except zlib.error:
            raise _not_unpacked() from None
        if sum(map(len, parts)) > max_bytes:
            raise too_large(max_bytes)
        if not member.eof:
            raise _not_unpacked()
        body = member.unused_data
    if body or not parts:
        raise _not_unpacked()
    return b"".join(parts)


def _not_unpacked() -> ApiError:
    return ApiError(400, {"error": "Failed to decompress request body"})


def too_large(max_bytes: int) -> ApiError:
    """Refuse a body that is longer than ``max_bytes``."""
    return ApiError(
        413,
        {
            "message": f"The body has more than {max_bytes:,} bytes. Send less in one request.",
            "error": "PayloadTooLargeError",
        },
    )
