"""The formats of well-known keys: a fixed beginning, and what follows it.

Owns the table; `formats.json` is derived from a maintained set of rules by ``derive_formats.py`` beside
the tests, and what that set lacks stands here. Invariant: a format is told from a word by its length and by
what looks random in it, so identifiers and placeholders that begin like a key are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from research_kit.masking.values import is_filler, is_random

__all__ = ["Format", "load_formats"]

# Longer ones than any key; a bound, so that no text makes matching slow.
_MOST = 2_000
# Letters and digits in one row of this length are no word.
_NO_WORD = 20
# By beginning: how many characters follow at least, and which there are besides letters and digits.
_MORE: Mapping[str, tuple[int, str]] = {
    **dict.fromkeys(("sk-ant-", "sk-lf-", "sk-proj-", "sk-or-", "sk-svcacct-", "sk-admin-"), (8, "_-")),
    **dict.fromkeys(("sk-", "sess-", "pypi-", "tvly-", "pplx-", "xai-", "glpat-", "github_pat_"), (20, "_-")),
    **dict.fromkeys(("AIza", "GOCSPX-", "ya29.", "1//0", "sq0csp-", "sq0idp-", "EAAAE"), (20, "_-")),
    **dict.fromkeys(("gsk_", "hf_", "r8_", "whsec_", "ls__", "tok_live_"), (20, "")),
    **dict.fromkeys(
        ("xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"), (10, "-%/+=")
    ),
    **dict.fromkeys(
        ("hvs.", "hvb.", "hvr.", "dp.st.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."), (16, "_-.")
    ),
    **dict.fromkeys(("NRAK-", "NRII-", "NRJS-", "NRAA-", "NRBR-", "NRSP-"), (16, "_-")),
    **dict.fromkeys(
        ("nfp_", "nfo_", "nfc_", "nfu_", "nfb_", "figu_", "figo_", "figoh_", "figor_"), (20, "_-")
    ),
    **dict.fromkeys(
        ("squ_", "sqp_", "sqa_", "glc_", "glsa_", "sbp_", "sb_secret_", "phx_", "lin_oauth_"), (20, "_-=+/")
    ),
    **dict.fromkeys(("ATATT3", "ATCTT3", "ATBB", "BBDC-", "FlyV1-", "fm2_", "fm1r_", "fo1_"), (20, "_-=+/")),
    **dict.fromkeys(("IQoJb3JpZ2lu", "FwoGZXIvYXdz", "FQoGZXIvYXdz", "LS0tLS1CRUdJTiBQUklW"), (40, "+/=%")),
    **dict.fromkeys(("LS0tLS1CRUdJTiBSU0Eg", "LS0tLS1CRUdJTiBFQyBQ", "LS0tLS1CRUdJTiBPUEVO"), (40, "+/=")),
    **dict.fromkeys(
        ("eyJhcGlf", "eyJrIjoi", "eyJtaXJv", "ZXlK"), (40, "+/=_-")
    ),  # base64 of {"api_, {"k":", eyJ
    **dict.fromkeys(
        ("tskey-", "snyk_uat.", "snyk_sat.", "CFPAT-", "PMAK-", "key-prod-", "rk-proj-"), (16, "_-.")
    ),
    **dict.fromkeys(("access-production-", "access-sandbox-", "access-development-"), (32, "-")),
    **dict.fromkeys(("pat-na1-", "pat-na2-", "pat-eu1-", "pat-ap1-", "v1.0-"), (32, "-")),
    **dict.fromkeys(("oy2", "cio"), (32, "")),
    **dict.fromkeys(("AKID", "LTAI", "dose"), (16, "")),
    **dict.fromkeys(("AQVN", "y0_", "y0__"), (30, "_-")),
    **dict.fromkeys(
        ("shpat_", "shpca_", "shppa_", "shpss_", "shpua_", "sntryu_", "sntrys_", "sntrya_"), (20, "_+/=")
    ),
    **dict.fromkeys(("sl.u.", "sl.B", "sl.A"), (60, "_-")),
    **dict.fromkeys(("dapi",), (32, "-")),
    "AGE-SECRET-KEY-PQ-1": (40, ""),
    "secret_": (40, ""),
    "live_sk_": (16, ""),
    "AAAAAAAAAAAAAAAAAAAAA": (50, "%"),
    "SG.": (16, "_-."),
    "API-": (26, ""),
}


@dataclass(frozen=True, slots=True)
class Format:
    """Keys that begin with ``prefix``."""

    prefix: str
    least: int
    body: re.Pattern[str]

    def place_of(self, text: str, start: int) -> tuple[int, int] | None:
        """Return where the key that begins at ``start`` stands; an empty place when none begins before."""
        begin = start + len(self.prefix)
        if not text.startswith(self.prefix, start):
            return None
        match = self.body.match(text, begin)
        if match is None or match.end() - begin < self.least:
            return None
        body = match.group().rstrip(".")
        # What is no key is none without its first letters either.
        return (start, begin + len(body)) if _is_key(body) else (match.end(), match.end())


def load_formats() -> list[Format]:
    """Return all formats, longer beginnings first."""
    derived = json.loads(files("research_kit.masking").joinpath("formats.json").read_text(encoding="utf-8"))
    table = {start: (least, extra) for start, (least, extra) in derived["formats"].items()}
    for start, (least, extra) in _MORE.items():
        before = table.get(start, (least, ""))
        table[start] = (min(least, before[0]), extra + before[1])
    bodies = {extra: _body(extra) for _, extra in table.values()}
    return [Format(start, *_with(table[start], bodies)) for start in sorted(table, key=len, reverse=True)]


def _with(entry: tuple[int, str], bodies: Mapping[str, re.Pattern[str]]) -> tuple[int, re.Pattern[str]]:
    return entry[0], bodies[entry[1]]


def _body(extra: str) -> re.Pattern[str]:
    return re.compile(rf"[A-Za-z0-9{re.escape(extra)}]{{1,{_MOST}}}+")


def _is_key(body: str) -> bool:
    if is_filler(body):
        return False
    longest = max(map(len, re.split(r"[^A-Za-z0-9]", body)))
    return longest >= _NO_WORD or is_random(body) or (any(map(str.isdigit, body)) and longest >= 8)
