"""The faults of a server, and what a kernel has to say about each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A fault of the misbehaving server, with the state and the reason that `status` shows."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    state: str = "buffering"
    reason: str = ""


def _status(status: int, *, state: str = "buffering", reason: str = "", **headers: str) -> Fault:
    options = {"status": status, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}
    return Fault("status", options, state, reason or f"answered {status}")


REFUSED_KEYS = r"refused the key \S+ \({}\)\. Check LANGFUSE_PUBLIC_KEY"

# These take as long as a whole answer may.
SLOW = ("taken silently", "byte by byte", "head byte by byte")
FAULTS = {
    "refused": Fault("refused", reason="cannot be reached"),
    "blackholed": Fault("blackhole", reason="cannot be reached"),
    "401": _status(401, state="rejected", reason=REFUSED_KEYS.format(401)),
    "403": _status(403, state="rejected", reason=REFUSED_KEYS.format(403)),
    "404": _status(404, state="rejected", reason="Check that LANGFUSE_BASE_URL is a Langfuse server"),
    "429": _status(429),
    "429 with Retry-After": _status(429, reason="asked to wait until", retry_after="2"),
    "500": _status(500),
    "503": _status(503),
    "garbage": Fault("garbage", reason="not Langfuse's"),
    "login page": Fault("redirect", reason="answered 302"),
    "request cut": Fault("cut_request", reason="cannot be reached"),
    "answer cut": Fault("cut_answer", reason="cannot be reached"),
    "deep": Fault("deep", reason="not Langfuse's: it is nested too deeply"),
    "infinite": Fault(
        "body",
        {"body": '{"partialSuccess": {"rejectedSpans": 1e999}}'},
        reason="not Langfuse's: it holds a number",
    ),
    "bomb": Fault("bomb", {"unpacked_mb": 100}, reason="more than 1,000,000 bytes"),
    "endless": Fault("endless", {"chunk_bytes": 100_000}, reason="more than 1,000,000 bytes"),
    "byte by byte": Fault("endless", {"chunk_bytes": 1, "delay_s": 0.2}, reason="not complete after 8 s"),
    "head byte by byte": Fault("endless_head", {"delay_s": 0.2}, reason="not complete after 8 s"),
    "odd encoding": Fault(
        "body", {"body": "{}", "headers": {"content-encoding": "br"}}, reason="encoded as 'br'"
    ),
    "taken silently": Fault("taken_silently", reason="cannot be reached"),
}
