"""What secrets look like in a text.

Owns the patterns and the fixed texts that each begins with; does not replace anything. Invariant: every
repetition in a pattern is bounded or over one class of characters, so no text makes matching slow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CASELESS", "EXACT", "GATES", "Rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A secret that can only begin where one of ``triggers`` stands.

    Attributes:
        triggers: Fixed texts; lower-case ones when ``ignores_case``.
        pattern: Matched where a trigger begins; its group ``secret`` is replaced, else all of it.
        ignores_case: Whether the triggers are looked for in the lower-cased text.
    """

    triggers: tuple[str, ...]
    pattern: re.Pattern[str]
    ignores_case: bool = False


# A key begins where no word goes on; behind JSON's \n the letter n is no part of a word.
_START = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
_QUOTE = r"(?:\\{0,7}[\"'])"
# A digit or a capital inside tells a secret from an English word.
_RANDOM = r"(?=[\w.~+/=!@#$%^&*-]{1,64}[0-9A-Z=])"


def _key(triggers: str, rest: str) -> Rule:
    prefixes = tuple(triggers.split())
    alternatives = "|".join(re.escape(prefix) for prefix in prefixes)
    return Rule(triggers=prefixes, pattern=re.compile(f"{_START}(?:{alternatives}){rest}"))


_RULES = (
    _key(
        "sk-",
        r"(?:(?:ant|lf|proj|or|svcacct|admin)-[\w-]{8,}|[A-Za-z0-9]{20,}|(?=[A-Za-z_-]{0,60}\d)[\w-]{20,})",
    ),
    _key("AIza", r"[\w-]{30,}"),
    _key("gsk_ hf_ ghp_ gho_ ghu_ ghs_ ghr_ npm_ r8_", r"[A-Za-z0-9]{20,}"),
    _key("github_pat_", r"\w{20,}"),
    _key("glpat- pplx- xai- tvly- pypi-", r"(?=[A-Za-z_-]{0,60}\d)[\w-]{20,}"),
    _key("xox xapp", r"[abeoprs]?-[A-Za-z0-9-]{10,}"),
    _key("AKIA ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _key("eyJ", r"[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]+)?"),
    _key(
        "-----BEGIN ",
        r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[\sA-Za-z0-9+/=:,.()]|\\(?![\"'])|-(?!----))*(?:-----END [A-Z0-9 ]{0,50}-----)?",
    ),
    Rule(  # the password in an address
        triggers=("://",),
        pattern=re.compile(r"://[^\s/:@\"'\\<>{}]{0,100}:(?P<secret>[^\s/@\"'\\<>{}]{3,200})@"),
    ),
    Rule(
        triggers=("bearer",),
        pattern=re.compile(r"(?i:bearer)\s{1,4}" + _RANDOM + r"(?P<secret>[\w.~+/=-]{8,})"),
        ignores_case=True,
    ),
    Rule(
        triggers=("authorization",),
        pattern=re.compile(
            rf"(?i:authorization){_QUOTE}?\s{{0,4}}[:=]\s{{0,4}}{_QUOTE}?"
            rf"(?:(?i:basic|token|digest|negotiate|apikey)\s{{1,4}})?{_RANDOM}(?P<secret>[\w.~+/=-]{{8,}})"
        ),
        ignores_case=True,
    ),
    Rule(  # a named value in quotes
        triggers=("passw", "secret", "api_key", "apikey", "api-key", "access_key"),
        pattern=re.compile(
            rf"[A-Za-z_-]{{6,30}}{_QUOTE}?\s{{0,4}}(?:[:=]|:=|=>)\s{{0,4}}{_QUOTE}"
            r"(?P<secret>[^\s\"'\\{}<>$\[\]]{6,500})(?=\\{0,7}[\"'])"
        ),
        ignores_case=True,
    ),
    Rule(  # tokens are also words of a text; only what looks random is a secret
        triggers=("token",),
        pattern=re.compile(
            rf"[A-Za-z_-]{{5,30}}{_QUOTE}?\s{{0,4}}[:=]\s{{0,4}}{_QUOTE}"
            r"(?=[\w.~+/=-]{0,100}\d)(?P<secret>[\w.~+/=-]{16,500})(?=\\{0,7}[\"'])"
        ),
        ignores_case=True,
    ),
    Rule(  # password=hunter2 in a shell, a query or a connection string
        triggers=("passw", "pwd", "secret", "token", "api_key", "apikey", "access_key"),
        pattern=re.compile(
            r"[A-Za-z_-]{3,30}(?:=|:\s?)(?=[A-Za-z]{0,100}[^\sA-Za-z]{0,100}[A-Za-z])(?=[^\s\"']{0,100}\d)"
            r"(?P<secret>[\w~+/@#!%^*-]{8,500}={0,2})(?![\w.(\[])"
        ),
        ignores_case=True,
    ),
)
# By a character of the trigger that texts often lack: looking for triggers is nearly all that masking costs.
GATES = ("_", "-", "")


def _gated(*, ignores_case: bool) -> dict[str, dict[str, tuple[Rule, ...]]]:
    rules = [rule for rule in _RULES if rule.ignores_case is ignores_case]
    triggers = {trigger: [r for r in rules if trigger in r.triggers] for r in rules for trigger in r.triggers}
    gated: dict[str, dict[str, tuple[Rule, ...]]] = {gate: {} for gate in GATES}
    for trigger, its_rules in triggers.items():
        gated[next(gate for gate in GATES if gate in trigger)][trigger] = tuple(its_rules)
    return gated


EXACT = _gated(ignores_case=False)
CASELESS = _gated(ignores_case=True)
