"""Values that a text itself calls a password, secret, key or token.

Owns the ways in which a text gives a value a name: assignments, JSON, YAML, XML, headers, commands, SQL,
sentences. Invariants: every repetition is possessive or bounded, and masking the value leaves the text around it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from typing import NamedTuple

from research_kit.masking.names import Kind, kind_of_name
from research_kit.masking.values import (
    is_code,
    is_identifier,
    is_path,
    is_placeholder,
    is_prose,
    is_random,
    says_nothing,
)

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
_LONGEST_QUOTED = 4_096
_MOST_LISTED = 100
_QUOTE = r"\\{0,7}[\"'`]"
_SPACE = r"(?:[ \t]|\\t){0,12}+"
_BREAK = r"(?:\r?\n|\\{1,7}n)"
_FOLLOWS = re.compile(
    rf"(?P<rest>[A-Za-z0-9_.-]{{0,64}}+)(?:"
    rf"(?:{_QUOTE}|\*{{1,2}}|\[\w{{0,16}}\]|[ ]?\([\w ]{{1,16}}\))?\]?{_SPACE}"
    rf"(?P<sign>:=|=>|->|→|\\{{1,4}}u2192|={{1,3}}|:(?!:)\*{{0,2}}){_SPACE}"
    rf"|(?P<list>{_QUOTE}(?=[\s,;>]))"
    rf"|(?P<said>[ \n]{{1,2}}(?:is|was|are|lautet|ist)(?:\s?:)?\s{{1,4}}(?=\S)|[ \t]{{0,4}}\|[ \t]{{1,4}})"
    rf"|(?P<line>{_BREAK}[ \t]{{0,24}}+value:[ \t]{{1,4}})"
    rf"|(?P<tag>>)|(?P<blank>(?:[ \t]|\\t){{1,8}}+(?=(?P<quoted>{_QUOTE})?\S)))"
)
_TAG_END = re.compile(r"(?:\s[^<>]{0,80}+)?>")
_ELEMENT = re.compile(rf"{_QUOTE}\s?>")
_LISTED = re.compile(rf"{_QUOTE}\s{{0,4}},\s{{0,4}}(?=[bfru]?{_QUOTE})")
_VALUE_BESIDE = re.compile(
    rf"{_QUOTE}[\s,;]{{1,24}}+(?:{_QUOTE})?[vV]alue(?:{_QUOTE})?\s{{0,4}}[:=]\s{{0,4}}"
)
_FIELD_BESIDE = re.compile(rf"{_QUOTE}[^<>{{}}\n]{{0,120}}?\bvalue\s{{0,4}}=\s{{0,4}}(?={_QUOTE})")
_BLOCK = re.compile(rf"(?:[|>][+-]?[ \t]{{0,4}})?{_BREAK}[ \t]{{1,24}}")
_SCHEME = re.compile(
    r"(?i:basic|bearer|token|apikey|bot|digest|negotiate|ssws|aws|key|!!\w{1,12})[ \t]{1,4}(?=\S)"
)
_OPENING = re.compile(
    rf"(?:\[\s{{0,4}})?(?:[bfruBFRU]{{1,2}})?(?:(?:pydantic\.)?Secret(?:Str|Bytes)?\(b?)?(?P<quote>{_QUOTE})"
)
_BARE = re.compile(r"[^\s\"'`<>\\,;|(){}\[\]&]{1,500}+")
_BRACED = re.compile(r"\{(?P<secret>[^\s\"'{}\\]{3,200})\}(?=;|$|[\"'\\])")
_PHRASE = re.compile(r"[a-z0-9][a-z0-9'-]{0,24}(?:[ \t]{1,2}[a-z0-9'-]{1,24}){1,24}+")
# Its first word, in a text that goes on.
_PHRASE_BEGUN = re.compile(r"(?P<word>[a-z0-9'-]{1,25})[ \t]{1,2}\Z")
_PAIR = re.compile(rf"\(\s{{0,4}}{_QUOTE}[^\s\"'\\]{{1,100}}{_QUOTE}\s{{0,4}},\s{{0,4}}(?={_QUOTE})")
_LOGIN = re.compile(r"[^\s:\"'\\/{}<>$]{1,100}:(?P<secret>[^\s\"'\\{}<>$]{1,200})")
_BASE64 = re.compile(r"(?=[A-Za-z+/]{0,80}[0-9=])[A-Za-z0-9+/_-]{8,2000}={0,2}")
_LINE_START = r"(?:\b|\\[nrt])"
_ARTICLE = re.compile(rf"{_LINE_START}(?:[Tt]he|[Aa]n?|[Tt]his|[Tt]hat|[Ee]ach|[Ee]very|[Nn]ext)[ \t]$")
_DIRECTIVES = ("requirepass", "masterauth")
_SETTERS = ("set", "setx", "setv", "setenv", "export", "env")
_SHELL_WORD = re.compile(r"[\w.@+-]+")
_OWNER = re.compile(r"(?P<owner>[A-Za-z][A-Za-z0-9_-]{1,20})[ \t]$")
# What people choose, which may look like anything.
_CHOSEN = (Kind.PASSWORD, Kind.PHRASE, Kind.FOLDER)
_IS_NAME = re.compile(r"[A-Za-z_-]*\d*[A-Za-z_]?")
_NO_BEGINNING = tuple(" ,)]}:;\t\"'")
_FOLDER = re.compile(r"[/~.]|[A-Za-z]:[\\/]|file:")
_BLOCK_ENDS = ("", "\n", "\r", "\\", '"', "'")
_SENTENCE_END = ".,:;!?"


class _Name(NamedTuple):
    start: int
    end: int
    kind: Kind


def find_named_value(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return where the secret stands that the word from ``start`` to ``end`` may name; None when none does."""
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
    """Whether a look at the words before is worth its time; nearly all names with a blank behind are prose."""
    near = text[start - 48 if start > 48 else 0 : start]
    return (
        " -" in near
        or "'-" in near
        or "set" in near
        or "SET" in near
        or "login" in near
        or "export" in near
        or "%env" in near
    ) or ("<" in near or text[start : start + 5] in ("requi", "maste"))


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
    """Whether a blank between a name and what follows sets the name: in an option, a shell, a list of logins."""
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
            return _bare(text, block.end(), name.kind, is_block=True)
    return _value(text, position, name.kind, is_quoted_only="==" in sign)


def _quoted(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    """Find a value beside a name in quotes: in a list, or in fields called name and value."""
    for way in (_VALUE_BESIDE, _FIELD_BESIDE, _LISTED):
        match = way.match(text, follows.end("rest"))
        if match is not None:
            found = _value(text, match.end(), name.kind)
            # Names of columns stand in lists as well.
            return found if found and (way is not _LISTED or _is_listed_secret(text[slice(*found)])) else None
    content = _ELEMENT.match(text, follows.end("rest"))
    return None if content is None else _until_tag(text, content.end(), name.kind)


def _is_listed_secret(value: str) -> bool:
    return _is_mixed(value) and _IS_NAME.fullmatch(value) is None


def _set(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    return _value(text, follows.end(), name.kind)


def _said(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    return _value(text, follows.end(), name.kind, is_said=True)


def _followed_by_quote(text: str, name: _Name, follows: re.Match[str]) -> tuple[int, int] | None:
    is_loud = text[name.start : name.end].isupper() or name.kind is Kind.PASSWORD
    return _value(text, follows.end(), name.kind, is_said=True, is_quoted_only=True) if is_loud else None


def _element(text: str, name: _Name, _: re.Match[str]) -> tuple[int, int] | None:
    opening = _TAG_END.match(text, name.end) if text[name.start - 1 : name.start] in ("<", ":") else None
    return None if opening is None else _until_tag(text, opening.end(), name.kind)


def _until_tag(text: str, begin: int, kind: Kind) -> tuple[int, int] | None:
    end = text.find("<", begin, begin + _LONGEST_QUOTED)
    if text.startswith("<![CDATA[", begin):
        begin, end = begin + 9, text.find("]]>", begin, begin + _LONGEST_QUOTED)
    return _judged_quoted(text, begin, end, kind) if end > begin else None


_WAYS: Mapping[str, Callable[[str, _Name, re.Match[str]], tuple[int, int] | None]] = {
    "sign": _assigned,
    "list": _quoted,
    "said": _said,
    "line": _set,
    "blank": _set,
    "quote": _followed_by_quote,
    "tag": _element,
}


def _value(
    text: str, position: int, kind: Kind, *, is_quoted_only: bool = False, is_said: bool = False
) -> tuple[int, int] | None:
    if kind is Kind.LOGIN:
        return _login(text, position)
    opening = _OPENING.match(text, position)
    if opening is not None:
        start, end = opening.end(), _closing(text, opening.end(), opening["quote"])
        scheme = _SCHEME.match(text, start)
        start = scheme.end() if scheme is not None and scheme.end() < end else start
        if start >= end or text.startswith(_NO_BEGINNING, start):
            return None
        if end == len(text) and kind is not Kind.MAYBE:  # it goes on, in what is still to come
            return start, end
        found = _judged_quoted(text, start, end, kind)
        if found is None or (is_said and not _is_mixed(text[start:end])):
            return None
        return (start, _list_end(text, end, opening)) if text[opening.start()] == "[" else found
    if is_quoted_only:
        return None
    return _bare(text, position, kind, is_said=is_said)


def _list_end(text: str, end: int, opening: re.Match[str]) -> int:
    """Return where the last of the quoted values of a list ends, of which the first ends at ``end``."""
    separator = re.compile(rf"{re.escape(opening['quote'])}\s{{0,8}},\s{{0,8}}{re.escape(opening['quote'])}")
    for _ in range(_MOST_LISTED):
        following = separator.match(text, end)
        last = -1 if following is None else _closing(text, following.end(), opening["quote"])
        if last < 0:
            break
        end = last
    return end


def _closing(text: str, start: int, quote: str) -> int:
    """Return where the quote ends: at the same character behind as many backslashes; -1 when it does not."""
    backslash_count, position = len(quote) - 1, start
    limit = min(len(text), start + _LONGEST_QUOTED)
    while True:
        found = text.find(quote[-1], position, limit)
        line = text.find("\n", start, limit if found < 0 else found)
        if line >= 0:
            return -1
        if found < 0:
            return limit if limit == len(text) else -1
        before = found - start - len(text[start:found].rstrip("\\"))
        # An escaped quote has one backslash more for each, and a backslash of the value doubles.
        if before % (2 * (backslash_count + 1)) == backslash_count:
            return found - backslash_count
        position = found + 1


def _judged_quoted(text: str, start: int, end: int, kind: Kind) -> tuple[int, int] | None:
    value = text[start:end].strip()
    return (start, end) if _is_quoted_secret(value, kind) else None


def _is_quoted_secret(value: str, kind: Kind) -> bool:
    if len(value) < 3 or says_nothing(value) or (kind is Kind.FOLDER and _FOLDER.match(value)):
        return False
    if kind is Kind.PHRASE and " " not in value and not _is_mixed(value):
        return False
    if kind in _CHOSEN:
        return not is_prose(value)
    if " " in value or "\n" in value or "\\n" in value:
        return False
    if kind is Kind.KEY:
        return len(value) >= 6 and not (is_identifier(value) and not any(map(str.isdigit, value)))
    return len(value) >= 8 and is_random(value)


def _bare(
    text: str, position: int, kind: Kind, *, is_block: bool = False, is_said: bool = False
) -> tuple[int, int] | None:
    if kind is Kind.PHRASE:
        phrase = _PHRASE.match(text, position)
        if phrase is not None:
            return None if is_prose(phrase.group()) else phrase.span()
        begun = _PHRASE_BEGUN.match(text, position)
        if begun is not None and not is_placeholder(begun["word"]):
            return begun.span("word")
        kind = Kind.PASSWORD
    braced = _BRACED.match(text, position)
    if braced is not None and kind in _CHOSEN and _is_mixed(braced["secret"]):
        return braced.span("secret")
    scheme = _SCHEME.match(text, position)
    match = _BARE.match(text, position if scheme is None else scheme.end())
    if match is None:
        return None
    value = match.group().rstrip(_SENTENCE_END)
    following = text[match.end() : match.end() + 1]
    is_more = is_block and (match.group().endswith(":") or following not in _BLOCK_ENDS or value[:1] == "@")
    if is_more or not value or not _is_bare_secret(value, kind, following):
        return None
    if is_said and (value[0] == "*" or not (is_random(value) or (kind in _CHOSEN and _is_mixed(value)))):
        return None
    return match.start(), match.start() + len(value)


def _is_bare_secret(value: str, kind: Kind, following: str) -> bool:
    if says_nothing(value) or is_code(value, following) or is_identifier(value):
        return False
    if kind is Kind.FOLDER and _FOLDER.match(value):
        return False
    if kind in _CHOSEN:
        is_long = len(value) >= 16 and value.isalpha()
        return is_long or _is_mixed(value) or (len(value) >= 6 and value.isdigit())
    if kind is Kind.KEY:
        return len(value) >= 8 and (is_random(value) or (_is_mixed(value) and len(value) >= 10))
    return len(value) >= 8 and is_random(value)


def _is_mixed(value: str) -> bool:
    """Whether a letter and a digit, or a letter and a sign that words do not have, are in ``value``."""
    if len(value) < 4 or not any(map(str.isalpha, value)):
        return False
    return any(map(str.isdigit, value)) or any(sign in value for sign in "!@#$%^*+=?~")


def _login(text: str, position: int) -> tuple[int, int] | None:
    pair = _PAIR.match(text, position)
    if pair is not None:
        return _value(text, pair.end(), Kind.PASSWORD)
    opening = _OPENING.match(text, position)
    start = position if opening is None else opening.end()
    login = _LOGIN.match(text, start)
    if login is not None and not is_placeholder(login["secret"]) and not is_path(login["secret"]):
        return login.span("secret") if opening is not None or _is_mixed(login["secret"]) else None
    encoded = _BASE64.match(text, start)
    if encoded is None or len(encoded.group()) < 12 or not is_random(encoded.group()):
        return None
    return encoded.span()
