"""What secrets look like where no name gives them a value: addresses, headers, commands, keys in blocks.

Owns the patterns and the fixed texts at which each is tried; does not replace anything. Invariant: every
repetition in a pattern is bounded or over one class of characters, so no text makes matching slow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from research_kit._addresses import PASSWORD_IN_ADDRESS

__all__ = ["BOT_TOKEN", "RULES", "Rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A secret near one of ``triggers``.

    Attributes:
        triggers: Fixed texts in lower case.
        pattern: Tried ``lead`` characters before a trigger; its group ``secret`` is replaced, or all of it.
        lead: How many characters of the secret stand before its trigger.
        is_random: Whether only what looks random is a secret.
        after: Commands of which one must stand before, in the same line.
    """

    triggers: tuple[str, ...]
    pattern: re.Pattern[str]
    lead: int = 0
    is_random: bool = False
    after: tuple[str, ...] = ()


_QUOTE = r"\\{0,7}[\"'`]"
_SPACE = r"[ \t]{0,8}"
# Between the name of a header and what it says, also in lists of pairs.
_SIGN = rf"(?:(?:{_QUOTE})?{_SPACE}[:=]|{_QUOTE}{_SPACE},)"
# Not a variable, a placeholder, stars or a word in angle brackets.
_GIVEN = r"(?![$<{%*]|\[|\.\.\.|x{3,}|X{3,})"
_HEADER_END = r"[^\s\"'`\\,;<>{}]"


def _rule(
    triggers: str | tuple[str, ...],
    pattern: str,
    *,
    lead: int = 0,
    is_random: bool = False,
    after: tuple[str, ...] = (),
) -> Rule:
    found = (triggers,) if isinstance(triggers, str) else triggers
    return Rule(triggers=found, pattern=re.compile(pattern), lead=lead, is_random=is_random, after=after)


RULES = (
    Rule(triggers=("://",), pattern=PASSWORD_IN_ADDRESS),
    _rule(  # a token in the place of the user
        "://",
        r"://(?P<secret>[A-Za-z0-9_-]{20,200}+):?(?:x-oauth-basic)?@",
        is_random=True,
    ),
    _rule(
        "jdbc:oracle", rf"jdbc:oracle:\w{{2,8}}:[^\s/@\"']{{1,64}}/{_GIVEN}(?P<secret>[^\s@\"'\\]{{1,100}})@"
    ),
    _rule(
        "bearer",
        r"(?i:bearer)(?:\s|%20|:){1,4}(?!\w{1,40}=[\\\"'])(?=[\w.~+/=-]{0,64}[0-9A-Z=])(?P<secret>[\w.~+/=-]{8,4000}+)",
    ),
    _rule(
        "authorization",
        rf"(?i:authorization){_SIGN}{_SPACE}(?:[bfru]{{0,2}}{_QUOTE})?"
        rf"(?:(?i:basic|bearer|token|digest|negotiate|apikey|key|bot|ssws|aws|sharedkey)[ \t]{{1,4}})?"
        rf"(?=[\w.~+/=:-]{{0,64}}[0-9A-Z=])(?!(?:_?[A-Z][a-z]{{1,40}}+){{1,12}}+(?![\w.~+/=-])){_GIVEN}(?P<secret>[\w.~+/=:-]{{8,4000}}+)(?!\()",
    ),
    _rule(
        "basic",
        r"(?i:basic)[ \t]{1,4}(?P<secret>[A-Za-z0-9+/]{8,400}+={0,2})(?=[\s\"'`\\,;)]|$)",
        is_random=True,
    ),
    _rule(  # all that a browser sends
        "cookie",
        rf"(?<![Ss][Ee][Tt]-)(?i:cookies?){_SIGN}{_SPACE}(?:[bfru]{{0,2}}{_QUOTE})?"
        r"(?P<secret>[\w.$-]{1,64}=[^\s\"'`\\;]{4,4000}+(?:;[ ]?[\w.$-]{1,64}=[^\s\"'`\\;]{0,4000}+){0,50})",
    ),
    _rule(  # what a server gives it, without where and how long it holds
        "set-cookie",
        rf"(?i:set-cookie)2?{_SIGN}{_SPACE}(?:[bfru]{{0,2}}{_QUOTE})?[\w.$-]{{1,64}}="
        r"(?P<secret>[^\s\"'`\\;]{4,4000}+)",
    ),
    _rule(
        (" -u", " --user", " --proxy-user"),
        rf"[ ](?:-u|--user|--proxy-user)[ =]?(?:{_QUOTE})?[^\s:\"'\\]{{0,100}}+:"
        rf"{_GIVEN}(?P<secret>[^\s\"'\\]{{1,200}})",
        after=("curl",),
    ),
    _rule(
        (" -b ", " --cookie "),
        rf"[ ](?:-b|--cookie)[ ](?:{_QUOTE})?(?P<secret>[\w.$-]{{1,64}}=[^\s\"'\\]{{4,2000}})",
        after=("curl",),
    ),
    _rule("wandb login ", r"wandb login (?:--\w+ )?(?P<secret>\w{40,100})"),
    _rule(  # HTTPie, and what else asks for both at once
        (" -a ", " --auth", " --creds", " --user", " -u "),
        rf"[ ](?:--[a-z]{{4,6}}|-[ua])[ =](?:{_QUOTE})?[A-Za-z0-9_.@+-]{{1,100}}+:{_GIVEN}(?!\d{{1,5}}\b)"
        r"(?=[^\s\"'\\]{0,60}(?:[!@#$%^&*+=?~]|[A-Za-z]\d{1,60}[A-Za-z]|\d[A-Za-z]{1,60}\d))"
        r"(?P<secret>(?!//)[^\s\"'\\:/]{3,200})(?=[\s\"'\\]|$)",
    ),
    _rule(
        (" -p", " -a ", " -n "),
        rf"[ ](?:-[pP][ ]?|-a |-N )(?:{_QUOTE})?{_GIVEN}(?=[^\s\"'\\]{{0,60}}[0-9!@#$%^&*])"
        r"(?P<secret>[^\s\"'\\-][^\s\"'\\]{2,100})",
        after=("mysql", "mariadb", "sshpass", "redis-cli", " login ", "zip", "ssh-keygen"),
    ),
    _rule(
        "identified",
        r"(?:(?i:identified\s{1,4}(?:with\s{1,4}\w{1,32}\s{1,4})?(?:by|as)(?:\s{1,4}password)?)\s{1,4}\\{0,7}[\"']"
        rf"|IDENTIFIED\s{{1,4}}BY\s{{1,4}}){_GIVEN}(?P<secret>[^\s\"'`\\;,]{{3,200}})",
    ),
    _rule(
        "machine",
        r"machine[ \t]{1,4}\S{1,200}\s{1,8}login[ \t]{1,4}\S{1,100}"
        r"\s{1,8}password[ \t]{1,4}(?P<secret>\S{1,200})",
    ),
    _rule(  # .pgpass
        (":5432:", ":5433:", ":6432:", ":*:"),
        r":(?:\d{4}|\*):[\w*.-]{1,64}:[\w*.@-]{1,64}:(?!//)(?P<secret>[^\s:\"']{3,200})(?=\s|$|[\"']|\\n)",
    ),
    _rule(  # pass:secret of openssl
        "pass:", rf"(?<=[ \"'])pass:{_GIVEN}(?P<secret>[^\s\"'\\]{{4,200}})"
    ),
    _rule(
        "-----begin ",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[\sA-Za-z0-9+/=:,.()]|\\(?![\"'])|-(?!----)){0,20000}+(?:-----END [A-Z0-9 ]{0,50}-----)?",
    ),
    _rule(
        "private-lines:",
        r"(?i:private-lines: \d{1,4}(?:\s|\\[rn]){1,4})"
        r"(?P<secret>(?:[A-Za-z0-9+/=]{1,80}(?:\s|\\[rn]){1,4}){1,60}+)",
    ),
    _rule(
        "eyj",
        r"eyJ[\w-]{8,4000}+\.[\w-]{8,8000}+\.[\w-]{4,4000}+(?:\.[\w-]{1,4000}+){0,2}|eyJ[\w-]{8,4000}+\.eyJ[\w-]{8,8000}+",
    ),
    _rule(("akia", "asia", "abia", "acca"), r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    # Twilio, Mailgun, Mailchimp, Telegram, Azure, Terraform, Airtable, Firebase: letters that a hash has too.
    _rule(tuple(f"sk{digit}" for digit in "0123456789abcdef"), r"SK[0-9a-f]{32}(?![A-Za-z0-9])"),
    _rule("key-", r"key-(?=[a-f]{0,31}\d)[0-9a-z]{32}(?![A-Za-z0-9])"),
    _rule(tuple(f"-us{digit}" for digit in "123456789"), r"[0-9a-f]{32}-us\d{1,2}(?!\w)", lead=32),
    _rule(":aa", r"(?<=\d{8}):(?P<secret>AA[\w-]{31,40})(?![\w-])"),
    _rule(":apa91b", r"(?<=[\w-]{8}):(?P<secret>APA91b[\w-]{60,400})"),
    _rule("q~", r"[\w~.]{3}\dQ~[\w~.-]{30,40}(?![\w~-])", lead=4),
    _rule(".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,100}", lead=14),
    _rule("ssws ", r"(?<!\w)SSWS (?P<secret>[\w-]{20,60})"),
    _rule("bot ", r"(?<!\w)Bot (?P<secret>[\w-]{20,30}\.[\w-]{6}\.[\w-]{25,50})"),
    _rule("apikey ", r"(?<!\w)ApiKey (?=[\w+/=-]{0,60}\d)(?P<secret>[\w+/=:.-]{16,200})"),
    # Addresses that let everyone write who knows them.
    _rule(
        "hooks.slack.com",
        r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/(?P<secret>[\w/-]{20,200})",
    ),
    _rule("/api/webhooks/", r"/api/webhooks/\d{6,25}/(?P<secret>[\w-]{20,120})"),
    _rule("webhook.office.com", r"webhook\.office\.com/webhookb2/(?P<secret>[\w@/-]{30,300})"),
    _rule("outlook.office.com/webhook", r"outlook\.office\.com/webhook/(?P<secret>[\w@/-]{30,300})"),
    _rule("hooks.zapier.com", r"hooks\.zapier\.com/hooks/catch/(?P<secret>[\w/]{8,80})"),
    _rule("api.telegram.org/bot", r"api\.telegram\.org/bot(?P<secret>\d{6,12}:[\w-]{20,60})"),
)

# Discord's, which begins with nothing fixed; its first letter is looked for in the whole text.
BOT_TOKEN = re.compile(r"[MNO](?<![\w.-][MNO])[\w-]{22,27}\.[\w-]{6}\.[\w-]{27,45}(?![\w.-])")
