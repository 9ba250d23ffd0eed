"""What a score may be, and that none waits in memory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from research_kit.errors import ConfigError
from research_kit.session.scores import score_payload

TARGET: dict[str, str | None] = {"traceId": "t"}


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (1, (1, "NUMERIC")),
        (0.5, (0.5, "NUMERIC")),
        (True, (1, "BOOLEAN")),
        ("good", ("good", "CATEGORICAL")),
        (np.float32(0.5), (0.5, "NUMERIC")),
        (np.int64(3), (3, "NUMERIC")),
        (np.bool_(False), (0, "BOOLEAN")),
    ],
    ids=repr,
)
def test_value_is_sent_as_what_it_is(value: Any, sent: tuple[Any, str]) -> None:
    """Numbers, truth and texts, also NumPy's, have the type that Langfuse gives them."""
    made = json.loads(score_payload("q", value, target=TARGET, comment=None, score_id=None))
    assert (made["value"], made["dataType"]) == sent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": float("nan")}, r"'q' is nan, which no server takes"),
        ({"value": np.array([1.0, 2.0])}, r"of type ndarray"),
        ({"value": None}, r"of type NoneType"),
        ({"name": " "}, r"name of the score is ' '"),
        ({"name": 3}, r"name of the score is 3"),
        ({"target": {}}, r"'q' has no target"),
    ],
    ids=["nan", "array", "none", "blank name", "number as name", "no target"],
)
def test_score_refuses(arguments: dict[str, Any], message: str) -> None:
    """What no server would take is an error at once."""
    given = {"name": "q", "value": 1, "target": TARGET, **arguments}
    with pytest.raises(ConfigError, match=message):
        score_payload(given.pop("name"), given.pop("value"), **given, comment=None, score_id=None)
