"""Limits on what the store keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from exports import export_of, make_span
from starlette.datastructures import Headers

from research_kit.config import load_settings
from research_kit.errors import ConfigError
from research_kit.store import ensure_running
from research_kit.store.database import Database
from research_kit.store.ingest import ingest_traces
from research_kit.store.retention import Limits, apply_limits
from research_kit.store.scores import write_score

HEADERS = Headers({"content-type": "application/json"})
DAY_NS = 86_400 * 10**9


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "store.db")
    yield opened
    opened.close()


def send(database: Database, *, trace: int, ages_days: list[float], text: str = "") -> None:
    spans = []
    for number, age in enumerate(ages_days):
        span = make_span(trace * 1000 + number, trace=trace, langfuse__observation__input=f"{number}{text}")
        span["startTimeUnixNano"] = span["endTimeUnixNano"] = str(time.time_ns() - int(age * DAY_NS))
        spans.append(span)
    ingest_traces(database, HEADERS, json.dumps(export_of(*spans)).encode())
    write_score(database, {"name": "good", "value": 1, "traceId": f"{trace:032x}"})


def kept(database: Database) -> tuple[set[int], set[int]]:
    """Return the traces that have observations, and those that have scores."""
    with database.reading() as connection:
        observed = connection.execute("SELECT DISTINCT trace_id FROM observations").fetchall()
        scored = connection.execute("SELECT DISTINCT subject_id FROM scores").fetchall()
    return {int(one, 16) for (one,) in observed}, {int(one, 16) for (one,) in scored}


def test_old_traces_go_as_a_whole(database: Database) -> None:
    """A trace is as old as its newest observation; its scores go with it."""
    send(database, trace=1, ages_days=[20, 15])
    send(database, trace=2, ages_days=[20, 5])
    send(database, trace=3, ages_days=[1])
    assert apply_limits(database, Limits(max_age_days=10)) == 1
    assert kept(database) == ({2, 3}, {2, 3})
    assert apply_limits(database, Limits(max_age_days=10)) == 0


def test_oldest_traces_make_room(database: Database) -> None:
    """Beyond the limit on bytes the oldest traces go, and no more than needed."""
    for trace in range(1, 601):
        send(database, trace=trace, ages_days=[700 - trace], text="much to say " * 200)
    apply_limits(database, Limits(max_bytes=1_200_000))
    observed, scored = kept(database)
    assert observed == scored == set(range(min(observed), 601))
    assert 100 <= len(observed) < 600


def test_nothing_goes_without_a_limit(database: Database) -> None:
    """By default everything stays."""
    send(database, trace=1, ages_days=[10_000])
    assert apply_limits(database, Limits()) == 0
    assert kept(database)[0] == {1}


def test_server_keeps_within_the_limits_of_its_environment(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that starts with a limit deletes what is beyond it, and says so in its log."""
    data_dir.mkdir(mode=0o700)
    database = Database(data_dir / "store.db")
    send(database, trace=1, ages_days=[20])
    send(database, trace=2, ages_days=[1])
    database.close()
    monkeypatch.setenv("RESEARCH_KIT_STORE_MAX_AGE_DAYS", "10")
    address = ensure_running(data_dir)
    keys = (address.public_key, address.secret_key)
    deadline = time.monotonic() + 20
    while True:
        answer = httpx.get(f"{address.base_url}/api/public/v2/observations", auth=keys).raise_for_status()
        rows = answer.json()["data"]
        if len(rows) == 1:
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)
    assert "Deleted 1 traces" in (data_dir / "store.log").read_text()


@pytest.mark.parametrize("text", ["0", "-1", "ten", "inf", "nan"])
def test_limit_that_is_no_number_is_refused(text: str) -> None:
    """A mistake in a limit is an error, not a store that keeps everything or nothing."""
    with pytest.raises(ConfigError, match=rf"RESEARCH_KIT_STORE_MAX_MB is '{text}', which is no positive"):
        load_settings({"RESEARCH_KIT_STORE_MAX_MB": text})
