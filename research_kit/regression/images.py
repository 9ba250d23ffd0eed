"""Pictures that look the same, although their bytes differ.

Owns the reduced picture that baselines keep, the distance of two pictures, and the picture of a difference.
Invariant: a reduced picture reduced again is itself, so what was accepted is compared with what is now.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any

from research_kit._optional import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_KEYS", "difference_picture", "image_distance", "reduce_image"]

IMAGE_KEYS = ("image/png", "image/jpeg")
# Wide enough to tell curves apart, and a few kilobytes.
_WIDTH = 240
_TILE = 12
_BLUR = 1.0


def reduce_image(text: str) -> str:
    """Return a picture in base64 as a small PNG in base64; what is no picture stays as it is."""
    image = _open(text)
    return text if image is None else _encode(_reduced(image))


def image_distance(one: str, other: str) -> float:
    """Return how different two pictures look: 0 the same, 1 black and white.

    It is the largest mean difference of brightness and colour within a small square, after the pictures are
    reduced and blurred: where letters are drawn is no difference, a curve elsewhere is. Pictures of other
    proportions have the distance 1.
    """
    before, after = _open(one), _open(other)
    if before is None or after is None:
        return float(one.strip() != other.strip())
    before, after = _reduced(before), _reduced(after)
    if abs(before.height - after.height) > 1:
        return 1.0
    return _largest_tile(_difference(before, _fit(after, before)))


def difference_picture(one: str, other: str) -> str:
    """Return expected, actual and difference side by side, as a PNG in base64; empty without pictures."""
    pil = _pillow()
    before, after = _open(one), _open(other)
    if before is None or after is None:
        return ""
    before, after = _reduced(before), _reduced(after)
    difference = pil.ImageOps.invert(_difference(before, _fit(after, before)).convert("L"))
    pictures = [before, after, pil.ImageOps.autocontrast(difference).convert("RGB")]
    wide = pil.Image.new("RGB", (3 * _WIDTH + 20, max(one.height for one in pictures)), "white")
    for number, picture in enumerate(pictures):
        wide.paste(picture, (number * (_WIDTH + 10), 0))
    return _encode(wide)


def _pillow() -> Any:
    pil = require("PIL", extra="plots", purpose="compare pictures")
    for name in ("Image", "ImageChops", "ImageFilter", "ImageOps", "ImageStat"):
        require(f"PIL.{name}", extra="plots", purpose="compare pictures")
    return pil


def _open(text: str) -> Image | None:
    pil = _pillow()
    try:
        image: Image = pil.Image.open(io.BytesIO(base64.b64decode(text)))
        image.load()
    except (binascii.Error, OSError, ValueError, SyntaxError):
        return None
    ground = pil.Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    flat: Image = ground.convert("RGB")
    return flat


def _reduced(image: Image) -> Image:
    if image.width == _WIDTH:
        return image
    height = max(1, round(image.height * _WIDTH / image.width))
    return image.resize((_WIDTH, height), _pillow().Image.Resampling.BOX)


def _fit(image: Image, like: Image) -> Image:
    return image if image.size == like.size else image.resize(like.size)


def _difference(one: Image, other: Image) -> Image:
    pil = _pillow()
    blur = pil.ImageFilter.GaussianBlur(_BLUR)
    difference: Image = pil.ImageChops.difference(one.filter(blur), other.filter(blur))
    return difference


def _largest_tile(difference: Image) -> float:
    """Return the largest mean of a square, in any of the colours."""
    pil = _pillow()
    columns, rows = max(1, difference.width // _TILE), max(1, difference.height // _TILE)
    tiles = difference.resize((columns, rows), pil.Image.Resampling.BOX)
    highest: int = max(high for _, high in pil.ImageStat.Stat(tiles).extrema)
    return highest / 255


def _encode(image: Image) -> str:
    target = io.BytesIO()
    image.save(target, format="PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode("ascii")
