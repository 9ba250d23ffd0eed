"""What may differ between two runs."""

from __future__ import annotations

import pytest

from research_kit.regression import DEFAULT_SANITIZERS
from research_kit.regression.sanitize import sanitize_text

HARMLESS = {
    "uuid": ("session jupyter-0f8fad5b-d9cb-469f-a165-70867728950e", "session jupyter-<uuid>"),
    "trace id": ("trace_id='0af7651916cd43dd8448eb211c80319c'", "trace_id='<id>'"),
    "trace link": ("/project/p/traces/0af7651916cd43dd8448eb211c80319c", "/project/p/traces/<id>"),
    "timestamp": ("at 2026-01-02T03:04:05.678+00:00 sharp", "at <timestamp> sharp"),
    "timestamp with UTC": ("2026-01-02 03:04:05 UTC", "<timestamp>"),
    "address": ("<object object at 0x7f13d92e1980>", "<object object at <address>>"),
    "seconds": ("latency 0.123 s, took 3 s", "latency <duration>, took <duration>"),
    "milliseconds": ("12.5ms and 7 \u00b5s", "<duration> and <duration>"),
    "timeit": (
        "1.2 \u00b5s \u00b1 3 ns per loop (mean \u00b1 std. dev. of 7 runs, 1,000,000 loops each)",
        "<duration> \u00b1 <duration> per loop (mean \u00b1 std. dev. of 7 runs, <count> loops each)",
    ),
    "progress bar": ("100%|##| 10/10 [00:01<00:00, 9.81it/s]", "100%|##| 10/10 [<rate>]"),
    "cell file": ("/tmp/ipykernel_41/1234.py:1: UserWarning: x", "<cell>.py:1: UserWarning: x"),
    "temporary path": ("saved /tmp/pytest-3/run0/out.csv", "saved <dir>/out.csv"),
    "home path": ("C:\\Users\\me\\data\\out.csv", "<dir>/out.csv"),
    "local port": ("http://127.0.0.1:43127/project", "http://127.0.0.1:<port>/project"),
    "styler": ('<table id="T_0a1b2"><td id="T_0a1b2_row0">', '<table id="T_<id>"><td id="T_<id>_row0">'),
}
MEANINGFUL = {
    "number": "mean 3.14",
    "decade": "the 1980s",
    "date": "2026-01-02",
    "digest": "md5 0af7651916cd43dd8448eb211c80319c",
    "hexadecimal": "mask 0xff00ff00",
    "remote port": "http://example.org:8080/",
    "relative path": "data/raw/out.csv",
    "ratio": "10/10 rows",
    "size": "3 samples, 12 sets",
    "version": "1.2.3 seconds-free",
}


@pytest.mark.parametrize(("text", "expected"), HARMLESS.values(), ids=HARMLESS)
def test_defaults_replace(text, expected):
    """Each kind of accident is replaced by a word for it, and doing it again changes nothing."""
    assert sanitize_text(text, DEFAULT_SANITIZERS) == expected
    assert sanitize_text(expected, DEFAULT_SANITIZERS) == expected


@pytest.mark.parametrize("text", MEANINGFUL.values(), ids=MEANINGFUL)
def test_defaults_keep(text):
    """What may be a result is compared, however much it looks like an accident."""
    assert sanitize_text(text, DEFAULT_SANITIZERS) == text


def test_defaults_are_documented_and_named_once():
    """Each sanitizer can be chosen by name and says what it covers."""
    names = [sanitizer.name for sanitizer in DEFAULT_SANITIZERS]
    assert len(set(names)) == len(names)
    assert all(sanitizer.doc.endswith(".") for sanitizer in DEFAULT_SANITIZERS)
