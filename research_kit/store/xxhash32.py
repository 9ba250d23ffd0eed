"""xxHash32, by which observations of the same millisecond are ordered.

The order is part of the API: clients that compare pages of two servers need the same one.
See https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
"""

from __future__ import annotations

import struct

__all__ = ["xxhash32"]

_P1, _P2, _P3, _P4, _P5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1
_MASK = 0xFFFFFFFF


def xxhash32(data: bytes) -> int:
    """Return the unsigned xxHash32 of ``data`` with seed 0."""
    stripes_end = len(data) - len(data) % 16
    if stripes_end:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        for words in struct.iter_unpack("<4I", data[:stripes_end]):
            lanes = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)]
        mixed = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        mixed = _P5
    return _avalanche(_add_tail((mixed + len(data)) & _MASK, data[stripes_end:]))


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & _MASK, 13) * _P1 & _MASK


def _add_tail(mixed: int, tail: bytes) -> int:
    words_end = len(tail) - len(tail) % 4
    for (word,) in struct.iter_unpack("<I", tail[:words_end]):
        mixed = _rotate((mixed + word * _P3) & _MASK, 17) * _P4 & _MASK
    for byte in tail[words_end:]:
        mixed = _rotate((mixed + byte * _P5) & _MASK, 11) * _P1 & _MASK
    return mixed


def _avalanche(mixed: int) -> int:
    mixed ^= mixed >> 15
    mixed = mixed * _P2 & _MASK
    mixed ^= mixed >> 13
    mixed = mixed * _P3 & _MASK
    return mixed ^ (mixed >> 16)
