"""Values behind a name, in every way in which a text may write them.

Owns where a value begins and ends, in quotes, without, in lists, with its user, and whether it may be what
its name says. Invariant: a value in quotes that do not end is a secret as far as it goes.
"""

from __future__ import annotations

import re

from research_kit.masking.names import Kind
from research_kit.masking.values import (
    is_code,
    is_identifier,
    is_path,
    is_placeholder,
    is_prose,
    is_random,
    says_nothing,
)

__all__ = ["LONGEST_QUOTED", "QUOTE", "is_mixed", "judged_quoted", "read_bare", "read_value"]

LONGEST_QUOTED = 4_096
_MOST_LISTED = 100
QUOTE = r"\\{0,7}[\"'`]"
_SCHEME = re.compile(
    r"(?i:basic|bearer|token|apikey|bot|digest|negotiate|ssws|aws|key|!!\w{1,12})[ \t]{1,4}(?=\S)"
)
_OPENING = re.compile(
    rf"(?:\[\s{{0,4}})?(?:[bfruBFRU]{{1,2}})?(?:(?:pydantic\.)?Secret(?:Str|Bytes)?\(b?)?(?P<quote>{QUOTE})"
)
_BARE = re.compile(r"[^\s\"'`<>\\,;|(){}\[\]&]{1,500}+")
_BRACED = re.compile(r"\{(?P<secret>[^\s\"'{}\\]{3,200})\}(?=;|$|[\"'\\])")
_PHRASE = re.compile(r"[a-z0-9][a-z0-9'-]{0,24}(?:[ \t]{1,2}[a-z0-9'-]{1,24}){1,24}+")
# Its first word, in a text that goes on.
_PHRASE_BEGUN = re.compile(r"(?P<word>[a-z0-9'-]{1,25})[ \t]{1,2}\Z")
_FEWEST_OF_SEED = 11
_PAIR = re.compile(rf"\(\s{{0,4}}{QUOTE}[^\s\"'\\]{{1,100}}{QUOTE}\s{{0,4}},\s{{0,4}}(?={QUOTE})")
_LOGIN = re.compile(r"[^\s:\"'\\/{}<>$]{1,100}:(?P<secret>[^\s\"'\\{}<>$]{1,200})")
_BASE64 = re.compile(r"(?=[A-Za-z+/]{0,80}[0-9=])[A-Za-z0-9+/_-]{8,2000}={0,2}")
# What people choose, which may look like anything.
_CHOSEN = (Kind.PASSWORD, Kind.PHRASE, Kind.SEED, Kind.FOLDER)
_NO_BEGINNING = tuple(" ,)]}:;\t\"'")
_FOLDER = re.compile(r"[/~.]|[A-Za-z]:[\\/]|file:")
_BLOCK_ENDS = ("", "\n", "\r", "\\", '"', "'")
_SENTENCE_END = ".,:;!?"


def read_value(
    text: str, position: int, kind: Kind, *, is_quoted_only: bool = False, is_said: bool = False
) -> tuple[int, int] | None:
    """Return where the secret stands of which ``kind`` is said, if what begins at ``position`` is one.

    Args:
        text: The whole text.
        position: Behind the name and its sign.
        kind: What the name says.
        is_quoted_only: Whether only quotes can make it a value here.
        is_said: Whether a sentence says it, in which words follow such names as well.
    """
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
        found = judged_quoted(text, start, end, kind)
        if found is None or (is_said and not is_mixed(text[start:end])):
            return None
        return (start, _list_end(text, end, opening)) if text[opening.start()] == "[" else found
    if is_quoted_only:
        return None
    return read_bare(text, position, kind, is_said=is_said)


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
    limit = min(len(text), start + LONGEST_QUOTED)
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


def judged_quoted(text: str, start: int, end: int, kind: Kind) -> tuple[int, int] | None:
    """Return the place from ``start`` to ``end``, within quotes or tags, if it holds a secret of ``kind``."""
    value = text[start:end].strip()
    return (start, end) if _is_quoted_secret(value, kind) else None


def _is_quoted_secret(value: str, kind: Kind) -> bool:
    return _may_be_quoted(value, kind) and not says_nothing(value)


def _may_be_quoted(value: str, kind: Kind) -> bool:
    if len(value) < 3 or (kind is Kind.FOLDER and _FOLDER.match(value)):
        return False
    if kind is Kind.PHRASE and " " not in value and not is_mixed(value):
        return False
    if kind is Kind.SEED and len(value.split()) < _FEWEST_OF_SEED:
        return False
    if kind in _CHOSEN:
        return not is_prose(value)
    if " " in value or "\n" in value or "\\n" in value:
        return False
    if kind is Kind.KEY:
        return len(value) >= 6 and (any(map(str.isdigit, value)) or not is_identifier(value))
    return len(value) >= 8 and is_random(value)


def read_bare(
    text: str, position: int, kind: Kind, *, is_block: bool = False, is_said: bool = False
) -> tuple[int, int] | None:
    """Return where the secret stands that begins at ``position`` without quotes; see `read_value`.

    ``is_block`` says that it stands in a line of its own below its name, as in YAML.
    """
    if kind in (Kind.PHRASE, Kind.SEED):
        phrase = _PHRASE.match(text, position)
        if phrase is not None:
            is_short = kind is Kind.SEED and len(phrase.group().split()) < _FEWEST_OF_SEED
            return None if is_short or is_prose(phrase.group()) else phrase.span()
        begun = _PHRASE_BEGUN.match(text, position)
        if begun is not None and kind is Kind.PHRASE and not is_placeholder(begun["word"]):
            return begun.span("word")
        kind = Kind.PASSWORD
    braced = _BRACED.match(text, position)
    if braced is not None and kind in _CHOSEN and is_mixed(braced["secret"]):
        return braced.span("secret")
    scheme = _SCHEME.match(text, position)
    match = _BARE.match(text, position if scheme is None else scheme.end())
    if match is None:
        return None
    if match.group().endswith("..."):
        return None
    value = match.group().rstrip(_SENTENCE_END)
    following = text[match.end() : match.end() + 1]
    is_more = is_block and (match.group().endswith(":") or following not in _BLOCK_ENDS or value[:1] == "@")
    if is_more or not value or not _is_bare_secret(value, kind, following):
        return None
    if is_said and (value[0] == "*" or not (is_random(value) or (kind in _CHOSEN and is_mixed(value)))):
        return None
    return match.start(), match.start() + len(value)


def _is_bare_secret(value: str, kind: Kind, following: str) -> bool:
    if not _may_be_bare(value, kind) or is_code(value, following) or is_identifier(value):
        return False
    return not says_nothing(value)


def _may_be_bare(value: str, kind: Kind) -> bool:
    if kind in _CHOSEN:
        if kind is Kind.FOLDER and _FOLDER.match(value):
            return False
        is_long = len(value) >= 16 and value.isalpha()
        return is_long or is_mixed(value) or (len(value) >= 6 and value.isdigit())
    if len(value) < 8:
        return False
    is_strong = len(value) >= 10 or any(sign in value for sign in "!@#$%^")
    return is_random(value) or (kind is Kind.KEY and is_strong and is_mixed(value))


def is_mixed(value: str) -> bool:
    """Whether a letter and a digit, or a letter and a sign that words do not have, are in ``value``."""
    if len(value) < 4 or not any(map(str.isalpha, value)):
        return False
    return any(map(str.isdigit, value)) or any(sign in value for sign in "!@#$%^*+=?~")


def _login(text: str, position: int) -> tuple[int, int] | None:
    pair = _PAIR.match(text, position)
    if pair is not None:
        return read_value(text, pair.end(), Kind.PASSWORD)
    opening = _OPENING.match(text, position)
    start = position if opening is None else opening.end()
    login = _LOGIN.match(text, start)
    if login is not None and not is_placeholder(login["secret"]) and not is_path(login["secret"]):
        return login.span("secret") if opening is not None or is_mixed(login["secret"]) else None
    encoded = _BASE64.match(text, start)
    if encoded is None or len(encoded.group()) < 12 or not is_random(encoded.group()):
        return None
    return encoded.span()
