"""Frames: columns, dtypes, missing values and the documentation made from the schema."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from research_kit.errors import ResearchKitError
from research_kit.traces.analysis import RESULTS
from research_kit.traces.frames import build_frame
from research_kit.traces.schema import OBSERVATIONS, SCORES, Schema
from research_kit.traces.schema import SCHEMAS as READ_SCHEMAS

SCHEMAS = {**READ_SCHEMAS, **RESULTS}
_DOCS = Path(__file__).parents[2] / "docs" / "frames.md"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_observations_have_exact_dtypes_with_any_number_of_rows(frame_of, make_row, count) -> None:
    """Columns, order and dtypes are those of the schema, also when there are no rows."""
    frame = frame_of([make_row(number) for number in range(count)])
    assert len(frame) == count
    assert list(frame.columns) == [column.name for column in OBSERVATIONS]
    assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in OBSERVATIONS]
    assert isinstance(frame.index, pd.RangeIndex)


def test_a_row_that_was_read_twice_is_there_once(frame_of, make_row) -> None:
    """What has trace, id and start in common is one row; what shares only some of them is not."""
    alone, first = make_row(0), make_row(1)
    others = [
        first | {"id": "f" * 16},
        first | {"traceId": "e" * 32},
        first | {"startTime": "2026-11-20T11:00:00.000Z"},
    ]
    frame = frame_of([first, *others, alone, first, others[0]])
    keys = frame[["trace_id", "observation_id", "start_time"]]
    assert len(keys) == len(keys.drop_duplicates()) == 5


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_keep_their_dtypes_without_rows_and_with_missing_values(name) -> None:
    """No dtype depends on the values: an empty frame and one of missing values have the schema's."""
    for rows in ([], [{}], [{}, {}]):
        frame = build_frame(SCHEMAS[name], rows)
        assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in SCHEMAS[name]]
        assert frame.isna().all().all()


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_use_json_where_anything_may_be(name) -> None:
    """The dtype json is for input, output and metadata; names are unique and every column is documented."""
    columns = SCHEMAS[name]
    assert {column.name for column in columns if column.dtype == "json"} <= {"input", "output", "metadata"}
    assert len({column.name for column in columns}) == len(columns)
    assert all(column.doc.endswith((".", "...")) for column in columns)


@pytest.mark.parametrize(
    ("details", "total", "expected"),
    [({}, 0, None), ({"input": 0, "output": 0, "total": 0}, 0, 0.0), ({"total": 0.5}, 0.5, 0.5),
     ({"input": 0.25, "output": 0.5}, 0, 0.75)],
    ids=["unknown", "free", "known", "without total"],
)  # fmt: skip
def test_cost_is_missing_unless_the_server_has_details(frame_of, make_row, details, total, expected) -> None:
    """A total of 0 without details is an unknown cost; 0 with details is a free call."""
    cost = frame_of([make_row(costDetails=details, totalCost=total)])["cost_usd"][0]
    assert pd.isna(cost) if expected is None else cost == expected


def test_tokens_are_missing_without_usage(frame_of, make_row) -> None:
    """A server writes 0 for tokens that nobody counted; the frame says NA."""
    frame = frame_of([make_row(), make_row(1, usageDetails={"total": 77}, totalUsage=77)])
    tokens = frame[["input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "total_tokens"]]
    assert tokens.isna().to_numpy().tolist() == [[True] * 5, [True, True, True, True, False]]


@pytest.mark.parametrize("key", ["input_cached_tokens", "cache_read_input_tokens", "input_cache_read"])
def test_cached_and_reasoning_tokens_have_the_names_of_all_providers(frame_of, make_row, key) -> None:
    """Cached input and reasoning output are found under each provider's key; written cache does not count."""
    usage = {"input": 5, key: 40, "cache_creation_input_tokens": 7, "output": 1, "output_reasoning_tokens": 3}
    frame = frame_of([make_row(usageDetails=usage, inputUsage=52, outputUsage=4, totalUsage=56)])
    found = frame.loc[0, ["input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"]]
    assert found.tolist() == [52, 4, 40, 3]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [('"a question"', "a question"), ('{"a": [1]}', {"a": [1]}), ("[1, 2]", [1, 2]), ("plain", "plain"),
     ("42", "42"), ("true", "true"), ("{broken", "{broken"), (None, None), ("[" * 100_000, "[" * 100_000)],
    ids=["quoted", "object", "list", "plain", "number", "bool", "broken", "none", "nested too deep"],
)  # fmt: skip
def test_inputs_are_parsed_where_that_is_unambiguous(frame_of, make_row, sent, expected) -> None:
    """Objects, lists and quoted texts are parsed; a text that could be a number stays what was sent."""
    assert frame_of([make_row(input=sent)])["input"][0] == expected


def test_empty_texts_are_missing(frame_of, make_row) -> None:
    """The server's empty texts mean that nothing is known."""
    frame = frame_of([make_row(sessionId="", userId="", name="", tags=[])])
    assert frame.loc[0, ["session_id", "user_id", "model", "status_message", "name", "tags"]].isna().all()


def test_times_keep_milliseconds_and_utc(frame_of, make_row) -> None:
    """Times are UTC, in nanoseconds, exact to the server's millisecond."""
    frame = frame_of([make_row(startTime="2026-11-20T09:00:00.123Z", endTime="2026-11-20T09:00:01Z")])
    assert frame["start_time"][0] == pd.Timestamp("2026-11-20T09:00:00.123", tz="UTC")
    assert frame["end_time"][0] == pd.Timestamp("2026-11-20T09:00:01", tz="UTC")


def test_depth_counts_from_the_root_of_each_trace(frame_of, make_row) -> None:
    """Depth is the distance from the root; unknown below a parent that is not there; circles end."""
    root, child = make_row(0), make_row(1, parentObservationId=f"{0:016x}")
    grandchild = make_row(2, parentObservationId=child["id"])
    orphan = make_row(3, parentObservationId="not there")
    circle = make_row(4, parentObservationId=f"{5:016x}"), make_row(5, parentObservationId=f"{4:016x}")
    elsewhere = make_row(6, parentObservationId=root["id"], traceId="trace-2")
    frame = frame_of([elsewhere, *circle, orphan, grandchild, child, root])
    assert frame["depth"].fillna(-1).tolist() == [0, 1, 2, -1, -1, -1, -1]


def test_observations_are_ordered_by_start_with_parents_first(frame_of, make_row) -> None:
    """Rows come by start; a parent that begins in the same millisecond as its child comes first."""
    same = make_row(0)["startTime"]
    child = make_row(1, parentObservationId=make_row(2)["id"], startTime=same)
    frame = frame_of([make_row(3), child, make_row(2, startTime=same)])
    assert frame["name"].tolist() == ["step-2", "step-1", "step-3"]


def test_cells_and_messages_are_read_from_metadata(frame_of, make_row) -> None:
    """Cell id, execution count and message number are columns, also when the server parsed them as JSON."""
    metadata = [
        {"cell_id": "a1b2", "execution_count": 7, "message_number": "3"},
        {"cell_id": 12345678, "execution_count": True, "message_number": "third"},
    ]
    frame = frame_of([make_row(number, metadata=value) for number, value in enumerate(metadata)])
    assert frame["cell_id"].tolist() == ["a1b2", "12345678"]
    assert frame["execution_count"].fillna(-1).tolist() == [7, -1]
    assert frame["message_number"].fillna(-1).tolist() == [3, -1]


def test_a_value_that_does_not_fit_is_named(frame_of, make_row) -> None:
    """A server that sends something else than it promised gives an error with column, row and value."""
    rows = [make_row(0), make_row(1, latency="fast")]
    with pytest.raises(ResearchKitError, match=r"'latency_s' \(float64\): row 1 has 'fast', a str"):
        frame_of(rows)


def test_scores_know_their_subject() -> None:
    """A score's session, trace and observation are separate columns; numbers and texts are, too."""
    base = {"id": "s", "name": "quality", "timestamp": "2026-11-20T10:00:00.000Z"}
    frame = build_frame(
        SCORES,
        [
            base
            | {
                "value": 0.5,
                "dataType": "NUMERIC",
                "subject": {"kind": "observation", "id": "o", "traceId": "t"},
            },
            base | {"value": True, "dataType": "BOOLEAN", "subject": {"kind": "session", "id": "chat"}},
            base | {"value": "good", "dataType": "CATEGORICAL", "subject": {"kind": "trace", "id": "t"}},
        ],
    )
    assert frame["value"].fillna(-1).tolist() == [0.5, 1.0, -1]
    assert frame["text_value"].fillna("-").tolist() == ["-", "-", "good"]
    assert frame["session_id"].fillna("-").tolist() == ["-", "chat", "-"]
    assert frame["trace_id"].fillna("-").tolist() == ["t", "-", "t"]
    assert frame["observation_id"].fillna("-").tolist() == ["o", "-", "-"]


def test_documentation_holds_the_columns_of_the_schema() -> None:
    """The column tables in the documentation are those that the schema generates."""
    tables = [column_table(name, schema) for name, schema in SCHEMAS.items()]
    assert "\n".join(tables) in _DOCS.read_text(encoding="utf-8")


def column_table(function: str, schema: Schema) -> str:
    rows = (f"| `{column.name}` | `{column.dtype}` | {column.doc} |" for column in schema)
    return "\n".join([f"### `{function}`", "", "| column | dtype | meaning |", "|---|---|---|", *rows, ""])
