"""Values that a text itself calls a password, secret, key or token.

Owns the ways in which a text gives a value a name: assignments, JSON, YAML, XML, headers, commands, SQL,
sentences. Invariants: every repetition is possessive or bounded, and masking keeps what is around a
value.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from typing import NamedTuple

from research_kit.masking.named_values import (
    LONGEST_QUOTED,
    QUOTE,
    is_mixed,
    judged_quoted,
    read_bare,
    read_value,
)
from research_kit.masking.names import Kind, kind_of_name

__all__ = ["NAME_TRIGGERS", "find_named_value"]

# In one of these a name of a secret ends or begins; looked for in lower case.
NAME_TRIGGERS = (
    *(
        "passw",
        "kennwort",
        "passphrase",
        "passcode",
        "pwd",
        "secret",
        "token",
        "key",
        "credential",
        "mnemonic",
    ),
    *(
        "phrase",
        "psk",
        "requirepass",
        "masterauth",
        "userpass",
        "_pass",
        "dbpass",
        "jwt",
        "-pass",
        "sessid",
        "sessionid",
    ),
    # Short words, only where a value follows.
    *(f"{word}{sign}" for word in ("pass", "pw", "auth") for sign in ("=", ":", '"', "'", ">", " =", "\\")),
    *("sig=", "signature=", "code=", "pass "),
)
_NAME_CHARACTERS = string.ascii_letters + string.digits + "_.-"
_LONGEST_NAME = 64
_SPACE = r"(?:[ \t]|\\t){0,12}+"
_BREAK = r"(?:\r?\n|\\{1,7}n)"
_FOLLOWS = re.compile(
    rf"(?P<rest>[A-Za-z0-9_.-]{{0,64}}+)(?:"
    rf"(?:{QUOTE}|\*{{1,2}}|\[\w{{0,16}}\]|[ ]?\([\w ]{{1,16}}\))?\]?{_SPACE}"
    rf"(?P<sign>:=|=>|->|→|\\{{1,4}}u2192|={{1,3}}|:(?!:)\*{{0,2}}){_SPACE}"
    rf"|(?P<list>{QUOTE}(?=[\s,;>]))"
    rf"|(?P<said>[ \n]{{1,2}}(?:is|was|are|lautet|ist)(?:\s?:)?\s{{1,4}}(?=\S)|[ \t]{{0,4}}\|[ \t]{{1,4}})"
    rf"|(?P<line>{_BREAK}[ \t]{{0,24}}+value:[ \t]{{1,4}})"
    rf"|(?P<tag>>)|(?P<blank>(?:[ \t]|\\t){{1,8}}+(?=(?P<quoted>{QUOTE})?\S)))"
)
_TAG_END = re.compile(r"(?:\s[^<>]{0,80}+)?>")
_ELEMENT = re.compile(rf"{QUOTE}\s?>")
_LISTED = re.compile(rf"{QUOTE}\s{{0,4}},\s{{0,4}}(?=[bfru]?{QUOTE})")
_VALUE_BESIDE = re.compile(rf"{QUOTE}[\s,;]{{1,24}}+(?:{QUOTE})?[vV]alue(?:{QUOTE})?\s{{0,4}}[:=]\s{{0,4}}")
_FIELD_BESIDE = re.compile(rf"{QUOTE}[^<>{{}}\n]{{0,120}}?\bvalue\s{{0,4}}=\s{{0,4}}(?={QUOTE})")
_BLOCK = re.compile(rf"(?:[|>][+-]?[ \t]{{0,4}})?{_BREAK}[ \t]{{1,24}}")
_LINE_START = r"(?:\b|\\[nrt])"
_ARTICLE = re.compile(rf"{_LINE_START}(?:[Tt]he|[Aa]n?|[Tt]his|[Tt]hat|[Ee]ach|[Ee]very|[Nn]ext)[ \t]$")
_DIRECTIVES = ("requirepass", "masterauth")
_SETTERS = ("set", "setx", "setv", "setenv", "export", "env")
_SHELL_WORD = re.compile(r"[\w.@+-]+")
_OWNER = re.compile(r"(?P<owner>[A-Za-z][A-Za-z0-9_-]{1,20})[ \t]$")
_IS_NAME = re.compile(r"[A-Za-z_-]*\d*[A-Za-z_]?")


class _Name(NamedTuple):
    start: int
    end: int
    kind: Kind


def find_named_value(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return where the secret stands that the word from ``start`` to ``end`` names; None without one."""
    while text[end - 1] not in _NAME_CHARACTERS:  # the sign that a short trigger is looked for with
        end -= 1
    follows = _FOLLOWS.match(text, end)
    if follows is None:
        return None
    way = follows.lastgroup
    if way == "blank" and not follows["quoted"] and not _may_be_set(text, start):
        return None
    begin = _name_start(text, start)
    if way == "blank":
        way = _blank_way(text, begin, follows)
    if way is None:
        return None
    name = _named(text, begin, follows.end("rest"))
    return None if name is None else _WAYS[way](text, name, follows)


def _may_be_set(text: str, start: int) -> bool:
    """Whether a look at the words before is worth its time; most names with a blank behind are prose."""
    near = text[start - 48 if start > 48 else 0 : start]
    is_option = "--" in near or " -" in near or "'-" in near
    is_setting = "set" in near or "SET" in near or "login" in near or "export" in near or "%env" in near
    return is_option or is_setting or "<" in near or text.startswith(_DIRECTIVES, start)


def _blank_way(text: str, begin: int, follows: re.Match[str]) -> str | None:
    """Return what a blank behind the word at ``begin`` means; None when nothing."""
    if text[begin - 1 : begin] == "<":
        return "tag"
    if _is_set(text, begin):
        return "blank"
    return "quote" if follows["quoted"] else None


def _name_start(text: str, start: int) -> int:
    before = text[max(0, start - _LONGEST_NAME) : start]
    begin = start - len(before) + len(before.rstrip(_NAME_CHARACTERS))
    # Behind JSON's \\n the letter n is no part of a name.
    return begin + (begin > 0 and text[begin - 1] == "\\" and text[begin] in "nrtbf")


def _is_set(text: str, begin: int) -> bool:
    """Whether a blank behind a name sets it: in an option, a shell, a list of logins."""
    if text.startswith("-", begin) or text.startswith(_DIRECTIVES, begin):
        return True
    words = _SHELL_WORD.findall(text[max(0, begin - 48) : begin].replace("\\n", " "))[-4:] or [""]
    if words[-1].lower() in _SETTERS or (len(words) > 1 and words[-2].lower() in (*_SETTERS, "login")):
        return True
    return len(words) > 2 and words[-2] == "set" and words[-3] in ("configure", "config", "secret", "env")


def _named(text: str, begin: int, end: int) -> _Name | None:
    if end < len(text) and text[end].isalnum():
        return None
    name = text[begin:end]
    begin += len(name) - len(name.lstrip("-."))
    name = name.strip("-.")
    kind = kind_of_name(_with_owner(text, begin, name))
    if kind is Kind.MAYBE and _ARTICLE.search(text, max(0, begin - 10), begin):
        return None
    return None if kind is None else _Name(begin, begin + len(name), kind)


def _with_owner(text: str, start: int, name: str) -> str:
    """Return the name with the word before it, in which people write a name: ``API key``."""
    if name.lower() not in ("key", "token", "phrase") or start < 2 or text[start - 1] not in " \t":
        return name
    owner = _OWNER.search(text, max(0, start - 24), start)
    return name if owner is None else f"{owner['owner']} {name}"


def _assigned(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    if name.kind is Kind.SIGNED and not (name.start > 0 and text[name.start - 1] in "?&;"):
        return None
    position, sign = follows.end(), follows["sign"]
    if ":" in sign:
        block = _BLOCK.match(text, position)
        if block is not None:
            return read_bare(text, block.end(), name.kind, is_block=True)
    return read_value(text, position, name.kind, is_quoted_only="==" in sign)


def _quoted(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    """Find a value beside a name in quotes: in a list, or in fields called name and value."""
    for way in (_VALUE_BESIDE, _FIELD_BESIDE, _LISTED):
        match = way.match(text, follows.end("rest"))
        if match is not None:
            found = read_value(text, match.end(), name.kind)
            # Names of columns stand in lists as well.
            return found if found and (way is not _LISTED or _is_listed_secret(text[slice(*found)])) else None
    content = _ELEMENT.match(text, follows.end("rest"))
    return None if content is None else _until_tag(text, content.end(), name.kind)


def _is_listed_secret(value: str) -> bool:
    return is_mixed(value) and _IS_NAME.fullmatch(value) is None


def _set(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    return read_value(text, follows.end(), name.kind)


def _said(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    return read_value(text, follows.end(), name.kind, is_said=True)


def _followed_by_quote(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    is_loud = text[name.start : name.end].isupper() or name.kind is Kind.PASSWORD
    return read_value(text, follows.end(), name.kind, is_said=True, is_quoted_only=True) if is_loud else None


def _element(text: str, name: _Name, _: re.Match[str]) -> tuple[int, int] | None:
    opening = _TAG_END.match(text, name.end) if text[name.start - 1 : name.start] in ("<", ":") else None
    return None if opening is None else _until_tag(text, opening.end(), name.kind)


def _until_tag(text: str, begin: int, kind: Kind) -> tuple[int, int] | None:
    end = text.find("<", begin, begin + LONGEST_QUOTED)
    if text.startswith("<![CDATA[", begin):
        begin, end = begin + 9, text.find("]]>", begin, begin + LONGEST_QUOTED)
    return judged_quoted(text, begin, end, kind) if end > begin else None


_WAYS: Mapping[str, Callable[[str, _Name, re.Match[str]], tuple[int, int] | None]] = {
    "sign": _assigned,
    "list": _quoted,
    "said": _said,
    "line": _set,
    "blank": _set,
    "quote": _followed_by_quote,
    "tag": _element,
}
