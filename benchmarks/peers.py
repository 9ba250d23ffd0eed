"""The same observations in the embedded store, in Phoenix and in MLflow: until readable, and into a frame.

The other two are installed into an environment of their own, ``.research_kit/peers``, the first time; where
that cannot be done, the benchmark says so and measures nothing.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from benchmarks.measuring import ROOT, Options, Row, peers_python
from benchmarks.store_speed import make_exports
from research_kit.store import ensure_running, stop_store

_VENV = ROOT / ".research_kit" / "peers"
_PACKAGES = ("arize-phoenix", "mlflow")
_DEADLINE_S = 300.0
_READER = Path(__file__).with_name("peer_reader.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """A server that takes OTLP.

    Attributes:
        name: Its name, which the reader knows too.
        base_url: Its address.
        headers: What it wants with every export.
        path: Where it takes exports.
        python: The interpreter that has its client.
        keys: User and password; empty without any.
    """

    name: str
    base_url: str
    python: Path
    headers: Mapping[str, str]
    path: str = "/v1/traces"
    keys: tuple[str, str] | None = None


class _Figures(NamedTuple):
    """Seconds until all was readable, seconds to read it, and how many observations the last read gave."""

    readable_s: float
    read_s: float
    row_count: int


def measure(options: Options) -> list[Row]:
    """Send the same spans to each, and read them back into a frame with its own client."""
    if peers_python("peers", _PACKAGES) is None:
        return []
    span_count = 2_400 if options.is_quick else 12_000
    bodies = [_protobuf(export) for export in make_exports(span_count)]
    figures: dict[str, _Figures] = {}
    with _store(options.folder) as ours:
        figures[ours.name] = _measure_peer(ours, bodies, span_count)
    with _phoenix(options.folder) as phoenix:
        figures[phoenix.name] = _measure_peer(phoenix, bodies, span_count)
    with _mlflow(options.folder) as mlflow:
        figures[mlflow.name] = _measure_peer(mlflow, bodies, span_count)
    return list(_rows(figures, span_count))


def _rows(figures: Mapping[str, _Figures], span_count: int) -> Iterator[Row]:
    for place, what in enumerate(("until readable", "into a frame")):
        own = float(figures["research-kit"][place])
        for name, found in figures.items():
            against = (
                {} if name == "research-kit" else {"against": "research-kit", "ratio": found[place] / own}
            )
            shown = (
                what if found.row_count >= span_count else f"{what} (then still {found.row_count:,} of them)"
            )
            yield Row(name=f"{name}: {span_count:,} {shown}", value=found[place], unit="s", **against)


def _measure_peer(peer: _Peer, bodies: Sequence[bytes], span_count: int) -> _Figures:
    """Return the seconds from the first export until all can be read, and those of the last read."""
    begin = time.time()
    headers = {"content-type": "application/x-protobuf", **peer.headers}
    with httpx.Client(base_url=peer.base_url, auth=peer.keys, timeout=_DEADLINE_S) as client:
        for body in bodies:
            client.post(peer.path, content=body, headers=headers).raise_for_status()
    wanted = {
        "name": peer.name,
        "base_url": peer.base_url,
        "keys": peer.keys,
        "span_count": span_count,
        "deadline": begin + _DEADLINE_S,
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [str(peer.python), str(_READER), json.dumps(wanted)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S + 60,
        check=True,
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    return _Figures(found["readable"] - begin, found["read_s"], found["count"])


def _protobuf(export: Mapping[str, Any]) -> bytes:
    """Return an export as protobuf, which all three take."""
    request = ExportTraceServiceRequest()
    [resource_spans] = export["resourceSpans"]
    [scope_spans] = resource_spans["scopeSpans"]
    into = request.resource_spans.add().scope_spans.add()
    into.scope.name = scope_spans["scope"]["name"]
    for span in scope_spans["spans"]:
        into.spans.add(
            trace_id=bytes.fromhex(span["traceId"]),
            span_id=bytes.fromhex(span["spanId"]),
            parent_span_id=bytes.fromhex(span.get("parentSpanId", "")),
            name=span["name"],
            start_time_unix_nano=int(span["startTimeUnixNano"]),
            end_time_unix_nano=int(span["endTimeUnixNano"]),
            attributes=[
                KeyValue(key=one["key"], value=AnyValue(string_value=one["value"]["stringValue"]))
                for one in span["attributes"]
            ],
        )
    return request.SerializeToString()


@contextmanager
def _store(folder: Path) -> Iterator[_Peer]:
    data_dir = folder / "store"
    address = ensure_running(data_dir)
    try:
        yield _Peer(
            name="research-kit",
            base_url=address.base_url,
            python=Path(sys.executable),
            headers={},
            path="/api/public/otel/v1/traces",
            keys=(address.public_key, address.secret_key),
        )
    finally:
        stop_store(data_dir)


@contextmanager
def _phoenix(folder: Path) -> Iterator[_Peer]:
    port, grpc_port = _free_port(), _free_port()
    settings = {
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with _running("phoenix", ["phoenix", "serve"], settings, folder, f"http://127.0.0.1:{port}/healthz"):
        python = _VENV / "bin" / "python"
        yield _Peer(name="phoenix", base_url=f"http://127.0.0.1:{port}", python=python, headers={})


@contextmanager
def _mlflow(folder: Path) -> Iterator[_Peer]:
    port = _free_port()
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    with _running("mlflow", command, {}, folder, f"http://127.0.0.1:{port}/health"):
        headers = {"x-mlflow-experiment-id": "0"}
        python = _VENV / "bin" / "python"
        yield _Peer(name="mlflow", base_url=f"http://127.0.0.1:{port}", python=python, headers=headers)


@contextmanager
def _running(
    name: str, command: Sequence[str], settings: Mapping[str, str], folder: Path, health_url: str
) -> Iterator[None]:
    program = str(_VENV / "bin" / command[0])
    with (folder / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]], env={**os.environ, **settings}, cwd=folder, stdout=output, stderr=output
        )
    try:
        _wait_for(health_url)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str) -> None:
    deadline_s = time.monotonic() + 120
    while True:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{url} does not answer")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
