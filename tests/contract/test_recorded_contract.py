"""The store answers as the recorded Langfuse server did.

What is left out is named by rule: cases that the recording marks optional, the list of scores, which the SDK
sends and only the store accepts, and which of several equal groups a full list of metrics still shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from recorded import Case, RecordedServer, load_exports, load_models, load_reads, load_score_writes

from research_kit.store import StoreAddress

_PATHS = sorted({case["path"].split("/")[3] for case in load_reads() if case["path"].count("/") > 2})
_METRICS_PATH = "/api/public/v2/metrics"


def _is_covered(case: Case) -> bool:
    is_score_list = case["path"] == "/api/public/scores" and isinstance(case.get("body"), list)
    return not (is_score_list or _is_cut_within_ties(case) or case.get("optional"))


def _is_cut_within_ties(case: Case) -> bool:
    """Whether the row limit of a metrics query falls between groups that its order does not tell apart."""
    if case["path"] != _METRICS_PATH or case["expect"]["status"] != 200:
        return False
    rows, query = case["expect"]["body"]["data"], json.loads(case["query"]["query"])
    if len(rows) < query.get("config", {}).get("row_limit", 100) or not query["metrics"]:
        return False
    metric = "{aggregation}_{measure}".format(**query["metrics"][0])
    return case.get("compare") == "unordered" and rows[-1][metric] == rows[-2][metric]


def _problems(server: RecordedServer, cases: list[Case]) -> list[str]:
    found = [(case["id"], server.problem_of(case)) for case in cases if _is_covered(case)]
    return [f"{name}: {problem}" for name, problem in found if problem]


@pytest.fixture(scope="module")
def filled(empty_store: StoreAddress) -> Iterator[tuple[RecordedServer, list[str]]]:
    """The store after all recorded writes, with what differed while writing."""
    server = RecordedServer(empty_store)
    exports = [(case["id"], server.problem_of_export(case)) for case in load_exports()]
    problems = [f"{name}: {problem}" for name, problem in exports if problem]
    problems += _problems(server, load_score_writes())
    yield server, problems
    server.close()


def test_writes_are_answered_as_recorded(filled: tuple[RecordedServer, list[str]]) -> None:
    """Every export and score write gets the recorded answer, invalid ones included."""
    assert filled[1] == []


@pytest.mark.parametrize("path", _PATHS)
def test_reads_are_answered_as_recorded(filled: tuple[RecordedServer, list[str]], path: str) -> None:
    """Every read gets the recorded rows, in the recorded order, or the recorded refusal."""
    cases = [
        case for case in load_reads() if case["path"].split("/")[3:4] == [path] and case.get("phase", 1) == 1
    ]
    assert _problems(filled[0], cases) == []


def test_metrics_cut_within_ties_agree_with_the_recorded_ones(
    filled: tuple[RecordedServer, list[str]],
) -> None:
    """A list that ends among equal groups has the recorded values, and the recorded groups exist."""
    cases = [case for case in load_reads() if _is_cut_within_ties(case)]
    assert cases
    for case in cases:
        recorded, query = case["expect"]["body"]["data"], json.loads(case["query"]["query"])
        metric = "{aggregation}_{measure}".format(**query["metrics"][0])
        found = filled[0].rows_of(case)
        assert [row[metric] for row in found] == [row[metric] for row in recorded]
        whole = {"query": json.dumps({**query, "config": {"row_limit": 1000}})}
        everything = filled[0].rows_of({**case, "query": whole})
        assert [row for row in recorded if row not in everything] == []


def test_model_list_is_answered_as_recorded(filled: tuple[RecordedServer, list[str]]) -> None:
    """The whole price table is listed page by page."""
    models = load_models()
    cases = [
        {
            "id": f"page {number}",
            "method": "GET",
            "path": "/api/public/models",
            "query": {**models["query"], "page": number},
            "expect": {"status": 200, "body": page},
        }
        for number, page in enumerate(models["pages"], 1)
    ]
    assert _problems(filled[0], cases) == []


def test_sending_everything_again_changes_nothing(filled: tuple[RecordedServer, list[str]]) -> None:
    """All spans a second time replace themselves, so a client may send again what it is not sure of."""
    server, _ = filled
    again = [(case["id"], server.problem_of_export(case)) for case in load_exports()]
    assert [problem for _, problem in again if problem] == []
    cases = [case for case in load_reads() if case["id"].startswith("obs-session-")]
    assert cases
    assert _problems(server, cases) == []


def test_deletions_are_answered_as_recorded(filled: tuple[RecordedServer, list[str]]) -> None:
    """Deleted traces and scores are gone, with what belongs to them, and nothing else is."""
    cases = [case for case in load_reads() if case.get("phase") == 2]
    assert cases
    assert _problems(filled[0], cases) == []
