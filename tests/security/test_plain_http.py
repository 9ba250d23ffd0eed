"""A secret leaves this machine encrypted, or where the user has said so, and follows no redirect."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listening import Listener, listening

from research_kit.agent.connection import Connection, HttpTarget
from research_kit.agent.lm import resolve_lm
from research_kit.config import load_settings
from research_kit.errors import ConfigError
from research_kit.session.backend import fetch_project_id, resolve_backend
from research_kit.traces.reader import TraceReader
from research_kit.transfer.target import Target
from research_kit.trust import check_transport, is_loopback

SECRET = "sk-lf-my-own-secret"
ELSEWHERE = "http://langfuse.example:3000"

THIS_MACHINE = [
    "http://127.0.0.1",
    "http://127.0.0.1:3000/path?query#fragment",
    "HTTP://LOCALHOST:3000",
    "http://127.8.8.8",
    "http://[::1]:3000/",
    "http://[0:0:0:0:0:0:0:1]",
    "http://rk-1.localhost:8080",
    "https://localhost",
]
OTHER_MACHINES = [
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://evil.example/localhost",
    "http://evil.example#localhost",
    "http://evil.example?@localhost",
    "http://localhost@evil.example",
    "http://127.0.0.1:80@evil.example",
    "http://localhost:pw@evil.example",
    "http://evil.example\\@localhost",
    "http://evil.example\\.localhost",
    "http://localhost\\.evil.example",
    "http://evil.example/\\@localhost/",
    "http://user@localhost",
    "http://127.0.0.1.",
    "http://localhost.",
    "http://localhostevil.example",
    "http://evillocalhost",
    "http://.localhost",
    "http://0.0.0.0:3000",
    "http://[::]",
    "http://[::1%25eth0]",
    "http://[fe80::1%25lo]",
    "http://[::1].evil.example",
    "http://[::ffff:1.2.3.4]",
    "http://128.0.0.1",
    "http://0127.0.0.1",
    "http://127.0.0.256",
    "http://①②⑦.0.0.1",
    "http://localhost。evil.example",
    "http://ⓛocalhost.evil.example",
    "http://loca\u200blhost",
    "http://localhost\t.evil.example",
    "http://local\nhost",
    " http://localhost",
    "http:localhost",
    "http:///localhost",
    "http://",
    "//localhost",
    "localhost:3000",
    "ftp://localhost",
    "",
]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def evil() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def redirecting(evil: Listener) -> Iterator[Listener]:
    """A server that sends everybody on to another origin."""
    with listening() as listener:
        listener.redirects_to = evil.base_url
        yield listener


@pytest.mark.parametrize("url", THIS_MACHINE)
def test_this_machine(url: str) -> None:
    """Loopback addresses in every spelling that clients read alike may get a secret."""
    assert is_loopback(url)
    check_transport(url, secret="the key")


@pytest.mark.parametrize("url", OTHER_MACHINES)
def test_what_only_looks_like_this_machine(url: str) -> None:
    """Names, users, dots, slashes and letters that some reader takes for another host are refused."""
    assert not is_loopback(url)
    with pytest.raises(ConfigError, match=r"the key would go to .*unencrypted"):
        check_transport(url, secret="the key")


@pytest.mark.parametrize(
    "url", ["https://evil.example", "HTTPS://evil.example:1", "https://user:pw@evil.example"]
)
def test_encrypted_addresses_may_be_anywhere(url: str) -> None:
    """The rule is about what travels in the clear."""
    check_transport(url, secret="the key")


@pytest.mark.parametrize(
    ("hosts", "url", "is_allowed"),
    [
        ("langfuse.example", "http://langfuse.example:3000", True),
        ("a, LANGFUSE.example", "http://Langfuse.Example", True),
        ("fd00::1", "http://[fd00::1]:80", True),
        ("langfuse.example", "http://langfuse.example.evil.example", False),
        ("langfuse.example", "http://evil.example@langfuse.example", False),
        ("langfuse.example", "http://langfuse.example@evil.example", False),
        ("langfuse.example", "http://x.langfuse.example", False),
        ("*", "http://langfuse.example", False),
        ("", "http://", False),
        ("", "http:///", False),
    ],
)
def test_hosts_that_the_user_names(hosts: str, url: str, is_allowed: bool) -> None:
    """A host is allowed by its whole name, and nothing else is."""
    environ = {"RESEARCH_KIT_PLAIN_HTTP": hosts}
    if is_allowed:
        check_transport(url, secret="the key", environ=environ)
    else:
        with pytest.raises(ConfigError):
            check_transport(url, secret="the key", environ=environ)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_proxy_gets_no_secret_of_this_machine(name: str) -> None:
    """Where a proxy would carry it away, only the names that are kept from proxies are this machine."""
    environ = {name: "http://proxy.example:8080"}
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        check_transport(url, secret="the key", environ=environ)
    for url in ("http://127.0.0.2:1", "http://rk-1.localhost:1"):
        with pytest.raises(ConfigError, match="unencrypted"):
            check_transport(url, secret="the key", environ=environ)


def test_message_shows_no_password() -> None:
    """An address with a password in it is shown without."""
    with pytest.raises(ConfigError) as caught:
        check_transport("http://ann:hunter2@evil.example", secret="the key")
    assert "hunter2" not in str(caught.value)


def use_langfuse(url: str) -> None:
    keys = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": SECRET}
    fetch_project_id(resolve_backend(load_settings({**os.environ, **keys, "LANGFUSE_BASE_URL": url})))


def use_reader(url: str) -> None:
    with TraceReader(url, "pk-lf-1", SECRET) as reader:
        list(reader.list_observations())


def use_target(url: str) -> None:
    target = Target(url, "pk-lf-1", SECRET)
    try:
        target.project_id()
    finally:
        target.close()


def use_model(url: str) -> None:
    environ = {**os.environ, "RESEARCH_KIT_LM_BASE_URL": f"{url}/v1", "RESEARCH_KIT_LM_API_KEY": SECRET}
    resolve_lm("m", settings=load_settings(environ)).lm("hi", cache=False)


def use_tool_server(url: str) -> None:
    async def connect() -> None:
        target = HttpTarget(url=f"{url}/mcp", headers={"X-Key": SECRET})
        connection = Connection(target, log_path=Path("unused"))
        try:
            await asyncio.wait_for(connection.ready, 20)
        finally:
            await connection.aclose()

    asyncio.run(connect())


USES: dict[str, Callable[[str], None]] = {
    "langfuse": use_langfuse,
    "reader": use_reader,
    "push": use_target,
    "model": use_model,
    "tool server": use_tool_server,
}


@pytest.mark.parametrize("use", USES)
def test_no_use_sends_a_secret_in_the_clear(use: str) -> None:
    """Each place where a secret would leave refuses before it connects, and says how to allow it."""
    with pytest.raises(ConfigError, match=r"unencrypted.*RESEARCH_KIT_PLAIN_HTTP=langfuse\.example"):
        USES[use](ELSEWHERE)


@pytest.mark.parametrize("use", USES)
def test_no_use_follows_a_redirect_to_another_origin(use: str, redirecting: Listener, evil: Listener) -> None:
    """Whoever answers with another address does not move the secret there."""
    with pytest.raises(Exception):  # noqa: B017, PT011 -- each use has an error of its own
        USES[use](redirecting.base_url)
    assert redirecting.heard(SECRET)
    assert evil.requests == []


def test_server_that_needs_no_key_may_be_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nothing secret travels: a model on the local network needs no permission."""
    environ = {"RESEARCH_KIT_LM_BASE_URL": "http://gpu.example:8000/v1"}
    assert resolve_lm("m", settings=load_settings(environ)).lm.kwargs["api_key"] == "not-needed"
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY would go to"):
        resolve_lm("m", settings=load_settings(environ))
    environ["RESEARCH_KIT_LM_API_KEY"] = "not-needed"
    assert resolve_lm("m", settings=load_settings(environ)).lm.kwargs["api_key"] == "not-needed"
