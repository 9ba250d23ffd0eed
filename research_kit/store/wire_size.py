"""How much an export will become, before anything is made of it.

Owns counting in the protobuf encoding, where two bytes can be a whole span; reads no values. Invariant: what
passes has no more spans and fields than memory has room for, whatever its bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from research_kit.store.answers import ApiError
from research_kit.store.spans import ExportError

__all__ = ["MAX_FIELDS", "MAX_SPANS", "check_size", "too_many"]

MAX_SPANS = 50_000
MAX_FIELDS = 1_000_000
# So few bytes cannot fill the memory, and counting would cost most exports a tenth of their time.
_UNCOUNTED_BYTES = 256 * 1024
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


class _Message(NamedTuple):
    """A message of the protocol: its fields that are messages, by number."""

    fields: Mapping[int, _Message]


# Values hold lists of values and of pairs, which hold values.
_inner: dict[int, _Message] = {}
_VALUE = _Message(_inner)
_PAIR = _Message({2: _VALUE})
_inner |= {5: _Message({1: _VALUE}), 6: _Message({1: _PAIR})}
_SPAN = _Message({9: _PAIR, 11: _Message({3: _PAIR}), 13: _Message({4: _PAIR}), 15: _Message({})})
_SCOPE_SPANS = _Message({1: _Message({3: _PAIR}), 2: _SPAN})
_EXPORT = _Message({1: _Message({1: _Message({1: _PAIR}), 2: _SCOPE_SPANS})})


def check_size(body: bytes) -> None:
    """Refuse an export in protobuf that would become too much.

    Raises:
        ApiError: 413 when it has more than 50,000 spans, or more fields than those can have.
        ExportError: When it is no protobuf.
    """
    if len(body) <= _UNCOUNTED_BYTES:
        return
    try:
        _count(body)
    except IndexError:  # it ends in the middle of a number
        raise _unreadable() from None


def _count(body: bytes) -> None:
    parts: list[tuple[int, int, _Message]] = [(0, len(body), _EXPORT)]
    span_count = field_count = 0
    while parts:
        position, end, message = parts.pop()
        while position < end:
            tag, position = _read_varint(body, position)
            field_count += 1
            if tag & 7 != _LENGTH:
                position = _skip(body, position, tag & 7)
                continue
            length, position = _read_varint(body, position)
            inner = message.fields.get(tag >> 3)
            if inner is not None:
                span_count += inner is _SPAN
                if length:
                    parts.append((position, position + length, inner))
            position += length
            if field_count > MAX_FIELDS or span_count > MAX_SPANS:
                raise too_many()
        if position != end:
            raise _unreadable()


def _skip(body: bytes, position: int, kind: int) -> int:
    """Return where a field ends that holds no bytes of its own."""
    if kind == _VARINT:
        return _read_varint(body, position)[1]
    if kind not in _FIXED_BYTES:
        raise _unreadable()
    return position + _FIXED_BYTES[kind]


def _read_varint(body: bytes, position: int) -> tuple[int, int]:
    """Return a number, and where what follows it begins."""
    number = body[position]
    if number < 0x80:
        return number, position + 1
    number &= 0x7F
    for place in range(1, _MAX_VARINT_BYTES):
        byte = body[position + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, position + place + 1
    raise _unreadable()


def _unreadable() -> ExportError:
    return ExportError("Failed to parse OTel Protobuf Trace")


def too_many() -> ApiError:
    """Refuse an export of too many parts."""
    problem = f"The export has more than {MAX_SPANS:,} spans, or {MAX_FIELDS:,} fields"
    return ApiError(
        413, {"message": f"{problem}. Send less in one request.", "error": "PayloadTooLargeError"}
    )
