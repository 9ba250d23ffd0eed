"""Whatever research-kit writes or prints is masked: attributes, logs, errors, the doctor, executed copies."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

import research_kit as rk
from research_kit._notices import warn_user
from research_kit.cli.doctor import Finding
from research_kit.errors import BackendError
from research_kit.masking import MASK, MaskedFormatter, build_masker, masked_text, process_mask
from research_kit.regression import run_notebook
from research_kit.session import SessionStatus, kernel_session
from research_kit.session.encoding import encode_span

KEY = "sk-" + "proj-" + "a1B2c3D4" * 6
ADDRESS = "https://ann:hunter2@langfuse.example.org"


@pytest.fixture
def own_mask() -> Iterator[Any]:
    """Yield what adds a mask of the user's own, and take it back."""
    yield kernel_session().set_mask
    process_mask().add(())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http.request.header.authorization", ["Basic " + "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]),
        ("http.request.header.x-api-key", ["9b1d" * 8]),
        ("http.request.header.cookie", "session=" + "9b1d4f" * 4),
        ("langfuse.trace.metadata.db_password", "correct horse"),
        ("langfuse.observation.metadata.settings", {"clientSecret": "correcthorse", "n": 1}),
    ],
)
def test_the_name_of_an_attribute_decides_for_its_value(name: str, value: Any) -> None:
    """What is a secret only because of its name is masked where name and value are apart."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("call", attributes={name: value, "question": "correct?"})
    span.end()
    assert isinstance(span, ReadableSpan)
    payload = encode_span(span, build_masker({}))
    assert MASK.encode() in payload
    assert b"correct?" in payload
    secrets = value if isinstance(value, list) else [value] if isinstance(value, str) else ["correcthorse"]
    assert not any(secret.encode() in payload for secret in secrets)


def test_the_users_mask_holds_for_all_that_is_written(own_mask: Any) -> None:
    """A pattern of bind(mask=...) also masks what is no trace, and before there is one."""
    own_mask([r"patient-\d+"])
    assert masked_text("for patient-12") == f"for {MASK}"
    assert Finding(level="ok", topic="tools", text="runs on patient-12").text == f"runs on {MASK}"


def test_errors_show_no_password_of_an_address() -> None:
    """An error that quotes a server does not quote its password."""
    error = BackendError(f"Cannot read traces from {ADDRESS}: no answer.", base_url=ADDRESS)
    assert str(error) == "Cannot read traces from https://ann:[masked]@langfuse.example.org: no answer."


def test_status_shows_no_secret() -> None:
    """Reasons, faults and the page of a status are masked; the address itself can be asked for."""
    faults = (("export", f"ValueError: bad key {KEY}"),)
    status = SessionStatus(state="buffering", base_url=ADDRESS, reason=f"{ADDRESS} is away", faults=faults)
    assert "hunter2" not in str(status) + status.reason + status._repr_html_()
    assert KEY not in str(status)
    assert status.base_url == ADDRESS


def test_warnings_show_no_secret() -> None:
    """A warning that quotes what a server or a user said is masked."""
    with pytest.warns(UserWarning, match=r"the key \[masked\] is old"):
        warn_user(f"the key {KEY} is old")


def test_logs_of_our_processes_are_masked() -> None:
    """A line of the store's log has no secret, nor has the traceback in it."""
    try:
        raise ValueError(f"no {KEY}")
    except ValueError:
        fault = sys.exc_info()
    record = logging.LogRecord("store", logging.ERROR, "x.py", 1, "password=%s", ("hunter2!",), fault)
    line = MaskedFormatter("%(message)s").format(record)
    assert "hunter2" not in line
    assert KEY not in line
    assert "Traceback" in line


def test_the_doctor_shows_no_secret(tmp_path: Path) -> None:
    """Neither arguments and addresses of tool servers nor the addresses of Langfuse and the proxy."""
    servers = {
        "a": {"command": "python", "args": ["-m", "x", "--key", KEY]},
        "b": {"url": "http://ann:hunter2@127.0.0.1:9/mcp"},
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    environ = {"PATH": "/usr/bin", "HOME": str(tmp_path), "RESEARCH_KIT_DATA_DIR": str(tmp_path / "data")}
    told = subprocess.run(
        [sys.executable, "-m", "research_kit.cli", "doctor"],
        cwd=tmp_path,
        env={**environ, "HTTPS_PROXY": "http://ann:hunter2@127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "tools" in told.stdout, told.stderr
    assert "hunter2" not in told.stdout + told.stderr
    assert KEY not in told.stdout + told.stderr


def test_executed_copies_hold_no_secret(tmp_path: Path) -> None:
    """Outputs, tracebacks and parameters of a run are masked in its copy, and in what is told of it."""
    parameters = nbformat.v4.new_code_cell("api_key = ''", metadata={"tags": ["parameters"]})
    failing = nbformat.v4.new_code_cell("print('password:', 'hunter2!x')\nraise ValueError('bad ' + api_key)")
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, failing]), tmp_path / "n.ipynb")
    result = run_notebook(
        tmp_path / "n.ipynb", output_path=tmp_path / "copy.ipynb", parameters={"api_key": KEY}
    )
    assert result.outcome == "failed"
    assert result.error is not None
    copy = (tmp_path / "copy.ipynb").read_text(encoding="utf-8")
    assert KEY not in copy + result.message + result.error.traceback
    assert "password: [masked]" in copy


def test_a_bound_mask_reaches_the_copy_of_a_failed_function(
    own_mask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the user's that fails withholds the text wherever it is written."""
    monkeypatch.delenv("RESEARCH_KIT_STRICT_TELEMETRY")

    def fail(text: str) -> str:
        raise RuntimeError(text)

    rk.bind("session-1", mask=fail)
    try:
        assert masked_text("anything") == MASK
        assert Finding(level="ok", topic="x", text="anything").text == MASK
    finally:
        rk.unbind()
        process_mask().add(())
