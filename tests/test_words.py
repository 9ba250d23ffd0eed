"""Numbers as people read them."""

from __future__ import annotations

import pytest

from research_kit._words import UNKNOWN, cost_note, cost_text, dollars_text, duration_text, tokens_text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, UNKNOWN),
        (0, "0 ms"),
        (0.0001, "< 1 ms"),
        (0.0005, "< 1 ms"),
        (0.0006, "1 ms"),
        (0.042, "42 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (7380, "2 h 3 min"),
        (-0.25, "-250 ms"),
    ],
)
def test_a_duration_fits_its_size(seconds: float | None, expected: str) -> None:
    """Durations have the digits that matter, also at the edges of the ranges; what took time is not 0."""
    assert duration_text(seconds) == expected


@pytest.mark.parametrize(
    ("cost_usd", "expected"),
    [
        (0.0, "$0"),
        (0.0000001, "< $0.000001"),
        (0.0000009, "< $0.000001"),
        (0.000001, "$0.000001"),
        (0.000018, "$0.000018"),
        (0.00034, "$0.00034"),
        (0.00146, "$0.00146"),
        (0.01, "$0.01"),
        (0.0421, "$0.0421"),
        (0.5, "$0.50"),
        (0.12345, "$0.123"),
        (0.9999, "$1.00"),
        (1234.5, "$1,234.50"),
        (-0.25, "-$0.25"),
    ],
)
def test_an_amount_is_never_rounded_to_nothing(cost_usd: float, expected: str) -> None:
    """Small amounts keep three digits that matter, down to a millionth of a dollar."""
    assert dollars_text(cost_usd) == cost_text(cost_usd) == expected


@pytest.mark.parametrize(
    ("cost_usd", "unpriced_count", "expected", "note"),
    [
        (None, 0, UNKNOWN, "No cost is known yet."),
        (None, 1, UNKNOWN, "1 call has no known price."),
        (0.0, 2, UNKNOWN, "2 calls have no known price."),
        (0.0000001, 1, UNKNOWN, "1 call has no known price."),
        (0.5, 1200, "≥ $0.50", "1,200 calls have no known price."),
        (0.5, 0, "$0.50", "The cost of all calls is known."),
    ],
)
def test_an_unknown_cost_is_said(
    cost_usd: float | None, unpriced_count: int, expected: str, note: str
) -> None:
    """What is not known is a dash; what is known in part is a lower bound, with the reason."""
    assert cost_text(cost_usd, unpriced_count) == expected
    assert cost_note(cost_usd, unpriced_count) == note


def test_tokens_have_separators_and_no_false_zero() -> None:
    """Each side that is not known is a dash."""
    assert tokens_text(1312, 48) == "1,312 in · 48 out"
    assert tokens_text(None, 20) == f"{UNKNOWN} in · 20 out"
    assert tokens_text(None, None) == UNKNOWN
