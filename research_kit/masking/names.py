"""What a name says of its value: how much a value must look like a secret to be one.

Owns the judgement of names in every spelling (``db_password``, ``X-Api-Key``, ``clientSecret``). Invariant:
the last word of a name decides, as in English: a ``secret_santa`` is a Santa, and a ``token_type`` a type.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from research_kit.masking.values import word_set

__all__ = ["Kind", "kind_of_name"]


class Kind(Enum):
    """What stands behind a name.

    ``PASSWORD`` is chosen by a person and may look like anything; ``KEY`` is made by a machine; ``MAYBE`` is
    called a key or token as many other things are, so its value must look random; ``PHRASE`` has some words,
    and ``SEED`` a dozen; ``LOGIN`` is a user and a password together; ``SIGNED`` is secret in an address
    only; ``FOLDER`` is a password or the folder in which a program works.
    """

    PASSWORD = "password"
    KEY = "key"
    MAYBE = "maybe"
    PHRASE = "phrase"
    SEED = "seed"
    LOGIN = "login"
    SIGNED = "signed"
    FOLDER = "folder"


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PASSWORDS = word_set(
    """
    password passwd passwort kennwort passcode pwd pw psk secret secrets credential credentials
    passwords requirepass masterauth userpass
    """
)
_PASSWORD_ENDS = ("password", "passwd", "passwort", "kennwort", "secret", "pwd", "userpass")
_KEY_ENDS = tuple(
    word_set(
        """
        apikey secretkey accesskey privatekey authkey accountkey sharedkey masterkey signingkey
        encryptionkey sshkey servicekey licensekey sessionkey presharedkey subscriptionkey appkey
        """
    )
)
_TOKEN_ENDS = (
    "authtoken",
    "accesstoken",
    "apitoken",
    "refreshtoken",
    "bearertoken",
    "sessiontoken",
    "usertoken",
)
# After these "pass" is a password, and not the first of two runs.
_PASS_OWNERS = word_set(
    """
    db database user smtp mail email imap ftp sftp ssh root admin login proxy auth http redis mysql pg
    postgres mongo ldap vpn wifi my sudo su key ssl cert keystore become ansible vnc rdp rpc service app
    wp bind jks truststore win client server sys oracle mssql sa master repl rabbitmq mqtt elastic jira
    nexus api basic
    """
)
# What may follow without changing what is meant.
_TAILS = word_set(
    """
    value val data base64 b64 pem plain plaintext raw string base prod production dev staging sandbox
    confirm confirmation old new current previous primary secondary
    """
)
_KEY_OWNERS = word_set(
    """
    api secret access private account shared auth master signing encryption encrypt decryption cipher
    aes ssh service admin application app subscription license licence client webhook ingest deploy
    integration sas hmac jwt cookie token bearer crypto preshared functions security x rsa gpg pgp rest
    project wallet validator
    """
)
_NO_KEY_OWNERS = word_set(
    """
    primary foreign public publishable partition sort cache lookup hash join group row column object
    dict index composite candidate natural surrogate map config registry idempotency idempotent dedup
    translation i18n message event routing binding hot short shortcut arrow control ctrl alt shift
    answer page next start end last first exclusive lru trace state react query cell block session_state
    widget sorting sort grouping metadata json major minor
    """
)
_TOKEN_OWNERS = word_set(
    """
    access refresh auth oauth oauth2 authentication authorization api bearer session security id csrf
    xsrf bot personal deploy registration service account secret private admin login reset verification
    x github gitlab slack hf huggingface vault npm pypi user client app webhook ci job runner registry
    amz goog shopify figma discord telegram identity web hub notion
    """
)
_NO_TOKEN_OWNERS = word_set(
    """
    pad eos bos unk mask sep cls stop special next page continuation cursor previous prev last first
    current sync resume pagination image audio vision start end begin max min num total prompt
    completion input output per top class each every begin newline
    """
)
_SESSIONS = frozenset(("jwt", "apikeys", "sessionid", "jsessionid", "phpsessid", "sessid"))
_PHRASE_OWNERS = ("seed", "recovery", "secret", "backup", "pass")
_HEADS = {
    "passphrase": Kind.PHRASE,
    "mnemonic": Kind.SEED,
    "auth": Kind.LOGIN,
    **dict.fromkeys(("sig", "signature", "code"), Kind.SIGNED),
}


@lru_cache(maxsize=4096)
def kind_of_name(name: str) -> Kind | None:
    """Return what ``name`` says of its value; None when nothing is secret about it."""
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and (words[-1] in _TAILS or words[-1].isdigit()):
        del words[-1]
    if not words:
        return None
    head, owner = words[-1], words[-2] if len(words) > 1 else ""
    if head in _HEADS:
        return _HEADS[head]
    if head == "phrase":
        return Kind.PHRASE if owner in _PHRASE_OWNERS else None
    if head in ("pwd", "oldpwd"):
        return Kind.PASSWORD if owner else Kind.FOLDER
    if head in _PASSWORDS or head.endswith(_PASSWORD_ENDS):
        return Kind.PASSWORD
    if head == "pass":
        return Kind.PASSWORD if owner in _PASS_OWNERS else (None if owner else Kind.KEY)
    return _kind_of_made(head, owner, words)


def _kind_of_made(head: str, owner: str, words: list[str]) -> Kind | None:
    if head in ("keys", "tokens") and owner in _KEY_OWNERS | _TOKEN_OWNERS:
        return Kind.KEY
    if head.endswith(_KEY_ENDS) or head.endswith(_TOKEN_ENDS):
        return Kind.KEY
    if head == "key":
        return None if owner in _NO_KEY_OWNERS else (Kind.KEY if owner in _KEY_OWNERS else Kind.MAYBE)
    if head == "token":
        return None if owner in _NO_TOKEN_OWNERS else (Kind.KEY if owner in _TOKEN_OWNERS else Kind.MAYBE)
    return Kind.MAYBE if head in _SESSIONS or (head.endswith("key") and "api" in words) else None
