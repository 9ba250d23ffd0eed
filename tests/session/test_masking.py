"""Secrets vanish from what is recorded, and nothing else does."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from research_kit.errors import ConfigError
from research_kit.masking import MASK, build_masker, masked_text, process_mask
from research_kit.session import KernelSession

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEowIBAAKCAQEA75+/abc==\n"
    "-----END RSA PRIVATE KEY-----"
)

# Where it is said, and the part that must be gone.
SECRETS = [
    ("my key is sk-abcdefghijklmnopqrstuvwx, thanks", "sk-abcdefghijklmnopqrstuvwx"),
    ("sk-proj-Ab3_dEf-GhIjKlMn0pQrStUvWxYz", "Ab3_dEf"),
    ("sk-ant-api03-abcDEF123_456-xyz", "abcDEF123"),
    ("sk-lf-1c2d3e4f-aaaa-bbbb-cccc-1234567890ab", "1c2d3e4f"),
    ("sk-or-v1-0123456789abcdef0123456789abcdef", "0123456789abcdef"),
    ("key=AIzaSyA1234567890abcdefghijklmnopqrstuv", "AIzaSy"),
    ("gsk_abcdefghij1234567890ABCDEFGHIJ", "gsk_abc"),
    ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "hf_AbC"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abc"),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuv", "11ABCDEFG0"),
    ("glpat-abcdefghij1234567890", "abcdefghij"),
    ("xoxb-123456789012-abcdefABCDEF", "abcdefABCDEF"),
    ("aws AKIAIOSFODNN7EXAMPLE id", "AKIAIOSFODNN7EXAMPLE"),
    (f"cookie {JWT}", "dozjgNryP4J3"),
    ("Authorization: Bearer abcdef1234567890", "abcdef1234567890"),
    ('{"Authorization": "Basic dXNlcjpwYXNz"}', "dXNlcjpwYXNz"),
    ("curl -H 'authorization: token 0a1b2c3d4e5f'", "0a1b2c3d4e5f"),
    ("bearer mF_9.B5f-4.1JqM", "mF_9.B5f"),
    ('password = "hunter2!"', "hunter2!"),
    ("{'client_secret': 'correcthorse'}", "correcthorse"),
    ('{"api_key": "abcdef"}', "abcdef"),
    ("https://host/x?token=abc123def456&y=1", "abc123def456"),
    ("PGPASSWORD=s3cretpassw0rd psql", "s3cretpassw0rd"),
    ("postgresql://me:tr0ub4dor@db.example.org/x", "tr0ub4dor"),
    (PEM, "MIIEowIBAAKCAQEA75"),
    (f"before\n{PEM}\nafter", "Proc-Type"),
]

HARMLESS = [
    "",
    "sk-learn and sk-learn-contrib are libraries; so is task-scheduler-with-priority",
    "the tokenizer made 12 tokens; max_tokens=1000, tokens: 12",
    "token = tokens[0]",
    "token = next(iterator)\npassword = getpass.getpass()\nsecret = load_secret(name)",
    "def f(token: str, api_key: str | None = None, password: str = ''): ...",
    '{"token": "international", "logprob": -0.25, "bytes": [105, 110]}',
    '{"input_tokens": 123, "total_tokens": 123456789012}',
    "d41d8cd98f00b204e9800998ecf8427e",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit 2f1a6e4d9d4c3b2a1f0e9d8c7b6a5f4e3d2c1b0a",
    "123e4567-e89b-12d3-a456-426614174000",
    "jupyter-0f8fad5b-d9cb-469f-a165-70867728950e",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "pk-lf-1c2d3e4f-aaaa-bbbb-cccc-1234567890ab",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA",
    "the bearer of bad news; bearer certificates",
    "Authorization: required for this address",
    "Your password must have 8 characters. Password: required",
    "http://127.0.0.1:8888/lab?reset and https://example.org:443/a@b",
    "the secretary's passwords policy: see page 12",
    '{"password": {"type": "string"}, "token": null, "secret": true}',
    "api_key=os.environ['OPENAI_API_KEY'], password=${DB_PASSWORD}",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIE\n-----END CERTIFICATE-----",
    "eyJhbGciOiJIUzI1NiJ9 is only a header",
]

ENVIRON = {
    "MY_SERVICE_KEY": "plain-value-of-mine",
    "DB_PASSWORD": 'quo"te\\and\nline ü',
    "AWS_SECRET_ACCESS_KEY": "/wJalrXUtnFEMI+K7MDENG",
    "GOOGLE_APPLICATION_CREDENTIALS": "/tmp/google.json",
    "TOKENIZERS_PARALLELISM": "explicitly-false",
    "USE_TOKEN": "TRUE",
    "MAX_TOKENS_KEY": "123456789",
    "TOKEN_TYPE": "somewords",
    "SECRET_URL": "https://example.org/secret",
    "LANGFUSE_PUBLIC_KEY": "pk-lf-public-part",
    "SHORT_KEY": "abc",
    "KEYBOARD_LAYOUT": "en-us-international",
    "HOSTNAME": "not-a-secret-name",
}


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secret_vanishes(text: str, secret: str) -> None:
    """A secret is replaced, bare, inside JSON, behind an escaped line break, and in JSON inside JSON."""
    mask = build_masker({})
    for said in (
        text,
        json.dumps({"a": text}),
        json.dumps([f"line\n{text}\tend"]),
        json.dumps(json.dumps([text])),
    ):
        masked = mask(said)
        assert secret not in masked
        assert MASK in masked
    for said in (json.dumps({"a": text, "b": [1, None]}), json.dumps(json.dumps({"a": text}))):
        json.loads(mask(said))


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    """Hashes, ids, code, images and prose are recorded as they are."""
    mask = build_masker(ENVIRON)
    assert mask(text) == text
    assert mask(json.dumps({"a": text})) == json.dumps({"a": text})


def test_surroundings_stay() -> None:
    """Only the secret is replaced, not what stands around it."""
    mask = build_masker({})
    assert (
        mask("curl -H 'Authorization: Bearer abcdef1234567890' x")
        == f"curl -H 'Authorization: Bearer {MASK}' x"
    )
    assert mask("postgresql://me:tr0ub4dor@db/x") == f"postgresql://me:{MASK}@db/x"
    assert mask(f"before\n{PEM}\nafter") == f"before\n{MASK}\nafter"


@pytest.mark.parametrize("name", ["MY_SERVICE_KEY", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY"])
def test_value_of_secret_variable_vanishes(name: str) -> None:
    """The value of a secret-looking variable is replaced in every spelling it may have."""
    mask, value = build_masker(ENVIRON), ENVIRON[name]
    assert mask(f"x{value}y") == f"x{MASK}y"
    for ensure_ascii in (True, False):
        once = json.dumps({"a": value}, ensure_ascii=ensure_ascii)
        assert json.loads(mask(once)) == {"a": MASK}
        assert json.loads(json.loads(mask(json.dumps(once)))) == {"a": MASK}


def test_ordinary_variables_stay() -> None:
    """Paths, flags, numbers, addresses, public keys and variables with other names are no secrets."""
    kept = "\n".join(
        v for k, v in ENVIRON.items() if k not in ("MY_SERVICE_KEY", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY")
    )
    assert build_masker(ENVIRON)(kept) == kept


def test_own_patterns_and_function() -> None:
    """Patterns come from the variable and the argument; a function has the last word."""
    environ = {"RESEARCH_KIT_MASK": r"patient-\d+;;MRN\w+" + "\n" + r"ward \d"}
    mask = build_masker(environ, patterns=["x{3}"], function=lambda text: text.replace("Bob", "B."))
    assert mask("patient-12 MRNabc ward 3 xxx Bob") == f"{MASK} {MASK} {MASK} {MASK} B."


def test_invalid_pattern_is_an_error() -> None:
    """A pattern that cannot be compiled is refused with its cause and a remedy."""
    with pytest.raises(ConfigError, match=r"'\(oops'.*unterminated.*Correct it"):
        build_masker({}, patterns=["(oops"])


def test_pattern_for_numbers_keeps_json() -> None:
    """A pattern that matches a JSON number, or reaches over a quote, leaves valid JSON."""
    mask = build_masker({}, patterns=[r"\d{16}", r'from", "b'])
    assert json.loads(mask('{"card": 1234567890123456, "n": 1}')) == {"card": MASK, "n": 1}
    assert json.loads(mask('{"a": "from", "b": "to", "password": "hunter2"}')) == {
        "a": "from",
        "b": "to",
        "password": MASK,
    }


def test_json_with_a_secret_number_is_masked_value_by_value() -> None:
    """Where a number is the secret the text stays JSON, and no other secret is lost sight of."""
    settings = {
        "password": 48151623,
        "env": [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "PORT", "value": 5432}],
        "x-api-key": ["correcthorse"],
        "n": 48151623,
    }
    assert json.loads(build_masker({})(json.dumps(settings))) == {
        "password": MASK,
        "env": [{"name": "DB_PASSWORD", "value": MASK}, {"name": "PORT", "value": 5432}],
        "x-api-key": [MASK],
        "n": 48151623,
    }


@pytest.mark.parametrize("function", [lambda text: 1 / 0, lambda _: None], ids=["raises", "returns none"])
def test_failing_function_hides_everything(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the user's function fails nothing of the text is recorded or written, and nothing is raised."""
    monkeypatch.delenv("RESEARCH_KIT_STRICT_TELEMETRY")
    KernelSession().set_mask(function)
    try:
        assert masked_text("x") == MASK
    finally:
        process_mask().add(())


@pytest.mark.parametrize(
    "unit",
    [
        *("sk-", "sk-a_", "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "-----BEGIN " + "A" * 40, "://a:"),
        *("password=", 'password = "', "token: ", "Bearer ", "authorization="),
        *("\\", '\\"', "İ", "a", " ", "\ud800", "["),
    ],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """Text made to confuse patterns neither raises nor takes long."""
    text = unit * (400_000 // len(unit))
    mask = build_masker(ENVIRON)
    start_s = time.process_time()
    mask(text)
    mask('{"a": "' + text)
    assert time.process_time() - start_s < 5


def test_letters_that_grow_in_lower_case_move_nothing() -> None:
    """A letter whose lower case is longer does not shift what is replaced."""
    assert build_masker({})("İİİ Password='hunter22'") == f"İİİ Password='{MASK}'"
