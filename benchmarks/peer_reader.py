"""Reads everything from one server into a frame, as its users do, until all is there; prints when that was.

Runs in the environment of that server's own client, so it imports nothing else at the top.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Print when everything could be read, how long that read took, and how many observations it gave."""
    wanted = json.loads(sys.argv[1])
    read = _READERS[wanted["name"]](wanted)
    while True:
        begin_s = time.perf_counter()
        count = read()
        read_s = time.perf_counter() - begin_s
        if count >= wanted["span_count"]:
            break
        if time.time() > wanted["deadline"]:
            # Not all is there yet: the figures are what was waited for at least.
            sys.stdout.write(json.dumps({"readable": time.time(), "read_s": read_s, "count": count}) + "\n")
            return
        time.sleep(0.5)
    readable = time.time() - read_s
    # Once more, without what is loaded by a first call.
    begin_s = time.perf_counter()
    read()
    again_s = time.perf_counter() - begin_s
    sys.stdout.write(json.dumps({"readable": readable, "read_s": again_s, "count": count}) + "\n")


def _research_kit(wanted: dict[str, Any]) -> Callable[[], int]:
    from research_kit.traces import ALL_SESSIONS, TraceReader, observations_df

    reader = TraceReader(wanted["base_url"], *wanted["keys"])
    return lambda: len(observations_df(ALL_SESSIONS, reader=reader))


def _phoenix(wanted: dict[str, Any]) -> Callable[[], int]:
    from phoenix.client import Client

    spans = Client(base_url=wanted["base_url"]).spans
    limit = 2 * wanted["span_count"]
    return lambda: len(spans.get_spans_dataframe(project_identifier="default", limit=limit, timeout=300))


def _mlflow(wanted: dict[str, Any]) -> Callable[[], int]:
    import mlflow

    mlflow.set_tracking_uri(wanted["base_url"])

    def read() -> int:
        traces = mlflow.search_traces(experiment_ids=["0"], max_results=wanted["span_count"])
        return sum(len(spans) for spans in traces["spans"]) if len(traces) else 0

    return read


_READERS: dict[str, Callable[[dict[str, Any]], Callable[[], int]]] = {
    "research-kit": _research_kit,
    "phoenix": _phoenix,
    "mlflow": _mlflow,
}

if __name__ == "__main__":
    main()
