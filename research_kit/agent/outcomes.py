"""What a tool answered, and how far it is, as plain values.

Owns the reading of MCP's content blocks; calls nothing. Invariant: the text says of every block at least what
it was, and an image is kept only when it is one that a browser shows and that runs nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock

__all__ = ["ToolImage", "ToolOutcome", "ToolProgress", "read_outcome"]

_SIGNATURES = {
    "image/png": b"\x89PNG",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
# Images are part of the saved notebook.
_MAX_IMAGE_CHARACTERS = 1_500_000
_MAX_IMAGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolImage:
    """A picture of a tool's answer.

    Attributes:
        mime_type: ``image/png``, ``image/jpeg``, ``image/gif`` or ``image/webp``.
        base64_text: Its bytes.
    """

    mime_type: str
    base64_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """What a tool answered.

    Attributes:
        text: The text content, blocks joined by line breaks.
        structured: The structured content; None when the tool gave none.
        is_error: True when the tool ran and reported a failure.
        images: The pictures of the answer.
    """

    text: str
    structured: dict[str, Any] | None
    is_error: bool
    images: tuple[ToolImage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress:
    """How far a running call is.

    Attributes:
        done: How much is done, in the server's own unit.
        total: How much there is to do; None when the server does not know.
        message: What it is doing.
    """

    done: float
    total: float | None = None
    message: str = ""


def read_outcome(result: CallToolResult) -> ToolOutcome:
    """Return the blocks of an MCP answer as text and images."""
    images: list[ToolImage] = []
    texts = []
    for block in result.content:
        image = _image(block) if len(images) < _MAX_IMAGES else None
        if image is not None:
            images.append(image)
        texts.append(_text(block, is_shown=image is not None))
    if not texts and result.structured_content is not None:
        texts = [json.dumps(result.structured_content, ensure_ascii=False, default=str)]
    return ToolOutcome(
        text="\n".join(texts),
        structured=result.structured_content,
        is_error=bool(result.is_error),
        images=tuple(images),
    )


def _text(block: ContentBlock, *, is_shown: bool) -> str:
    from mcp.types import (
        AudioContent,
        EmbeddedResource,
        ImageContent,
        ResourceLink,
        TextContent,
        TextResourceContents,
    )

    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return f"[{block.mime_type}, {'shown to the user' if is_shown else 'not shown'}]"
        case AudioContent():
            return f"[{block.mime_type}, not played]"
        case ResourceLink():
            return f"[resource {block.name}: {block.uri}]"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return f"[{resource.uri}]\n{resource.text}"
        case EmbeddedResource():
            return f"[{block.resource.uri}, not text]"


def _image(block: ContentBlock) -> ToolImage | None:
    from mcp.types import ImageContent

    if not isinstance(block, ImageContent) or len(block.data) > _MAX_IMAGE_CHARACTERS:
        return None
    signature = _SIGNATURES.get(block.mime_type)
    try:
        content = base64.b64decode(block.data, validate=True)
    except (binascii.Error, ValueError):
        return None
    if signature is None or not content.startswith(signature):
        return None
    return ToolImage(mime_type=block.mime_type, base64_text=block.data)
