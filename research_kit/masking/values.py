"""What a value says of itself: filler, a path, code, prose, or something that may be a secret.

Owns the judgement of a value without its name; `names` judges the name. Pure functions, linear in
their text.
"""

from __future__ import annotations

import re

__all__ = [
    "is_code",
    "is_filler",
    "is_identifier",
    "is_path",
    "is_placeholder",
    "is_prose",
    "is_random",
    "says_nothing",
    "word_set",
]


def word_set(text: str) -> frozenset[str]:
    """Return the words of a list that stands in a text."""
    return frozenset(text.split())


# How often a row of letters and digits changes between small, capital and digit before it is no word.
_RANDOM_ROW = 3
_RANDOM_SUM = 5
_ROW = re.compile(r"[A-Za-z0-9]+")
_CHANGE = re.compile(
    r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Z])(?=[0-9])|(?<=[A-Z]{2})(?=[a-z])"
)
_LONG_ROW = 24

# Words that stand where a secret will stand, or say something about it.
_VOCABULARY = word_set(
    """
    a access account admin all an and anonymous any api app auth authentication authorization basic
    bearer blank bool boolean bot bytes cannot change client confidential config confirm credential
    credentials current default demo digest disabled dummy email empty enabled encrypted enter env
    environ environment error example exists expired fake false field file foo forgot form from function
    generated get getpass given go goes hash header here hidden hint id ignore in incorrect input insert
    int invalid is it key keys label login long masked me minimum missing my name needed new no none not
    null number object of ok old omitted one optional or os out own para param parameter passphrase
    passwd password passwords placeholder plain please private prompt protected provided public put pwd
    read redacted removed repeat replace required reset revoked sample secret secrets see self set
    shared show something str string strong submit test text that the this tbd todo token tokens true
    type undefined unknown unlimited unset unused update use user username utf value values variable via
    weak will with write wrong x xxx y yes you your ollama lm studio apikey authtoken accesstoken
    secretkey accesskey
    """
)
_PROSE = word_set(
    """
    your must enter please required should invalid incorrect characters password passwords forgot is are
    has have cannot choose confirm contain least missing field reset wrong expired optional
    """
)
_WORD = re.compile(r"[A-Za-z]+|[^A-Za-z\s_.:/-]")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TEMPLATE = re.compile(
    r"\$[({]|\$[A-Z_][A-Z0-9_]*$|\{\{|\{[A-Za-z_][\w.]*\}$|%[({]|%[sdr]$|%[A-Z_]+%$|<[^<>]*>?$|@[A-Z_]+@$"
    r"|\[[A-Za-z _-]+\]$"
    r"|(?:process\.|os\.|sys\.|import\.meta\.|Deno\.)?env(?:iron)?[.\[]|(?:vault|op|aws|gcp|ssm|secretsmanager|keyring)://|!"
    r"(?:Ref|Sub|vault|secret|env|ENV)\b|arn:aws|projects/"
)
# A field that is filled in later, inside of a value.
_FIELD = re.compile(r"\{[A-Za-z_][\w.]{0,60}[}(\[!:]|<[A-Za-z_ -]{1,40}>|\*{3}")
_NAME_OF_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*+(?:_[A-Z0-9]++)++$")
_FOLDERS = tuple(
    word_set(
        """
        /home/ /Users/ /usr/ /etc/ /var/ /tmp/ /opt/ /run/ /root/ /mnt/ /media/ /srv/ /dev/ /proc/
        /sys/ /data/ /work/ /workspace/ /app/ /bin/ /lib/ /private/ /Volumes/ /secrets/ /vault/
        /content/ /api/ /v1/
        """
    )
)
_PATH = re.compile(r"(?:~|\.{1,2})?/|[A-Za-z]:[\\/]|file:")
_FILE = re.compile(
    r"[\w./\\~-]+\.(?:txt|json|ya?ml|toml|ini|cfg|conf|env|pem|key|crt|cer|p12|pfx|pub|py|ipynb|csv|md|html?|js|ts|sh|log)$"
)
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z_0-9$]*$")
_NAME = re.compile(r"_{0,2}[A-Za-z]++(?:(?:\.|->|::|_)[A-Za-z]++)*+\d?[A-Z]?$")
_KEBAB = re.compile(r"[a-z]++(?:-[a-z]++)++$")
_DOTTED = re.compile(r"[A-Za-z_]\w*+(?:(?:\.|->|::)[A-Za-z_]\w*+)++$", re.ASCII)


def is_random(text: str) -> bool:
    """Whether ``text`` changes between small letters, capitals and digits as no word or name does."""
    total = 0
    for row in _ROW.findall(text):
        count = len(_CHANGE.findall(row))
        if count >= _RANDOM_ROW or (count and len(row) >= _LONG_ROW):
            return True
        total += count if count > 1 else 0
    return total >= _RANDOM_SUM


def is_filler(text: str) -> bool:
    """Whether ``text`` is drawn from very few characters, as ``xxxx``, ``****`` and ``...`` are."""
    return len(set(text.lower())) <= (2 if len(text) < 16 else 3)


def is_placeholder(text: str) -> bool:
    """Whether ``text`` stands for a secret that is somewhere else."""
    if (
        is_filler(text)
        or _TEMPLATE.match(text)
        or _FIELD.search(text)
        or text.endswith(("...", "…"))
        or "masked]" in text
    ):
        return True
    words = _WORD.findall(_CAMEL.sub(" ", text))
    return all(word.lower() in _VOCABULARY or not word.isalnum() for word in words)


def is_path(text: str) -> bool:
    """Whether ``text`` is the path of a file or folder."""
    if text.startswith("/"):
        return text.startswith(_FOLDERS) or _FILE.match(text) is not None
    return _PATH.match(text) is not None or _FILE.match(text) is not None


def is_code(text: str, next_character: str) -> bool:
    """Whether ``text``, which stands without quotes before ``next_character``, is an expression."""
    if next_character and next_character in "([":
        return True
    return _DOTTED.match(text) is not None and not is_random(text)


def is_identifier(text: str) -> bool:
    """Whether ``text`` is the name of a variable, a class or a header rather than what it holds."""
    if _NAME_OF_VARIABLE.match(text) or _KEBAB.match(text):
        return True
    if _NAME.match(text) and (_CAMEL.search(text) or not text.isalnum()):
        return len(text) >= 4 * sum(map(str.isupper, text))
    return "_" in text and _IDENTIFIER.match(text) is not None and not is_random(text)


def is_prose(text: str) -> bool:
    """Whether ``text`` is a sentence or a label about passwords."""
    words = text.lower().replace("'", " ").split()
    return "|" in words or (len(words) > 1 and any(word.strip(".,:;!?*()") in _PROSE for word in words))


def says_nothing(text: str) -> bool:
    """Whether ``text`` cannot be a secret, whatever it is called."""
    return is_placeholder(text) or is_path(text) or _NAME_OF_VARIABLE.match(text) is not None
