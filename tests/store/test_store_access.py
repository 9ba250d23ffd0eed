"""Who may ask what."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from research_kit.store import StoreAddress, page_url
from research_kit.store.links import is_valid_proof, make_proof

_READS = ["/api/public/v2/observations", "/api/public/v3/scores", "/api/public/projects", "/internal/status"]


@pytest.mark.parametrize("path", _READS)
@pytest.mark.parametrize("header", [None, "Bearer x", "Basic", "Basic !!!", "Basic eDp5", "Basic w7w6w7w="])
def test_api_needs_the_key(store: StoreAddress, path: str, header: str | None) -> None:
    """No endpoint with content answers without the key pair."""
    headers = {} if header is None else {"authorization": header}
    assert httpx.get(store.base_url + path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "169.254.169.254", "[::2]:1", ""]
)
def test_foreign_host_is_refused(client: httpx.Client, host: str) -> None:
    """A page that points a name of its own at this machine gets nothing, even with the right key."""
    answer = client.get("/api/public/projects", headers={"host": host})
    assert answer.status_code in (400, 403)
    assert "data" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8888", "127.0.0.1", "LOCALHOST", "[::1]:99"])
def test_loopback_names_are_served(client: httpx.Client, host: str) -> None:
    """Every name of this machine is fine, with any port, since ports can be forwarded."""
    assert client.get("/api/public/projects", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_writes_from_foreign_pages_are_refused(client: httpx.Client, origin: str) -> None:
    """A write that a browser sends for a foreign page is refused before the key is looked at."""
    answer = client.post("/api/public/scores", headers={"origin": origin}, json={})
    assert answer.status_code == 403


def test_server_listens_on_loopback_only(store: StoreAddress) -> None:
    """Other machines cannot connect."""
    port = urlsplit(store.base_url).port
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    mine = [
        line.split()[1] for line in listening if line.split()[1].endswith(f":{port:04X}") and " 0A " in line
    ]
    assert mine == [f"0100007F:{port:04X}"]


def test_page_without_proof_tells_nothing(store: StoreAddress) -> None:
    """Without a link's token a page says only how to get one."""
    answer = httpx.get(f"{store.base_url}/project/{store.project_id}/sessions")
    assert answer.status_code == 401
    assert "research-kit store open" in answer.text


@pytest.mark.parametrize("token", ["", "x", "1.abc", "99999999999.abc", "٣.abc", f"{'9' * 5000}.x"])
def test_forged_token_is_refused(store: StoreAddress, token: str) -> None:
    """A token that was not made with the secret key opens nothing."""
    answer = httpx.get(f"{store.base_url}/project/{store.project_id}/sessions", params={"token": token})
    assert answer.status_code == 401


def test_link_becomes_a_cookie(store: StoreAddress) -> None:
    """A link sets a cookie that scripts cannot read, and goes on without the token in the address."""
    with httpx.Client() as browser:
        link = page_url(store, f"/project/{store.project_id}/sessions?x=1")
        first = browser.get(link)
        assert f"0;url=/project/{store.project_id}/sessions?x=1" in first.text
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert store.secret_key not in cookie
        assert browser.get(f"{store.base_url}/project/{store.project_id}/sessions").status_code == 200
        assert browser.get(store.base_url).status_code == 307
        assert browser.get(link).status_code == 200, "the same browser has the cookie"
    assert httpx.get(link).status_code == 401, "a link opens once"
    assert httpx.get(page_url(store, "/")).status_code == 200, "links of the same second differ"


def test_cookie_opens_no_api(store: StoreAddress) -> None:
    """What opens pages for reading does not open the API."""
    with httpx.Client() as browser:
        browser.get(page_url(store, f"/project/{store.project_id}/sessions"))
        assert browser.get(f"{store.base_url}/api/public/v2/observations").status_code == 401


def test_link_clicked_in_jupyter_is_sent_on_by_the_store(store: StoreAddress) -> None:
    """From another site the browser holds the cookie back once, so the store asks for the page again."""
    path = f"/project/{store.project_id}/sessions"
    answer = httpx.get(f"{store.base_url}{path}?token=old", headers={"sec-fetch-site": "cross-site"})
    assert f"0;url={path}" in answer.text
    assert "set-cookie" not in answer.headers


def test_redirect_never_leaves_the_store(store: StoreAddress) -> None:
    """A link to two slashes is not sent on to another host."""
    with httpx.Client() as browser:
        answer = browser.get(page_url(store, "//evil.example/"))
    assert "//evil.example" not in answer.text


def test_proofs_expire_and_differ_by_purpose() -> None:
    """A token is no cookie, holds for its lifetime only, and belongs to one key."""
    proof = make_proof("key", purpose="link", lifetime_s=60)
    assert is_valid_proof(proof, "key", purpose="link")
    assert not is_valid_proof(proof, "key", purpose="cookie")
    assert not is_valid_proof(proof, "other", purpose="link")
    assert not is_valid_proof(make_proof("key", purpose="link", lifetime_s=0), "key", purpose="link")
    later = int(time.time()) + 99_999
    assert not is_valid_proof(f"{later}.{proof.partition('.')[2]}", "key", purpose="link")


def test_pages_are_reached_through_a_hub(store: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy with a name and a path of its own a link opens the pages, and nothing opens without."""
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "https://hub.example/user/ann/")
    path = f"/project/{store.project_id}/sessions"
    port = store.base_url.rpartition(":")[2]
    link = page_url(store, path)
    assert link.startswith(f"https://hub.example/user/ann/proxy/{port}{path}?token=")
    headers = {"host": "hub.example", "x-forwarded-prefix": f"/user/ann/proxy/{port}"}
    with httpx.Client(base_url=store.base_url, headers=headers) as proxy:
        assert proxy.get(path).status_code == 403
        assert proxy.get("/static/pages.css").status_code == 403
        opened = proxy.get(path, params={"token": link.partition("token=")[2]})
        assert f'content="0;url=/user/ann/proxy/{port}{path}"' in opened.text
        cookie = opened.headers["set-cookie"]
        assert f"Path=/user/ann/proxy/{port}/" in cookie
        proxy.headers["cookie"] = cookie.partition(";")[0]
        page = proxy.get(path)
        assert page.status_code == 200
        assert f'<base href="/user/ann/proxy/{port}/">' in page.text
        assert proxy.get("/static/pages.css").status_code == 200
        foreign = {"origin": "https://evil.example"}
        assert proxy.post("/api/public/scores", json={}, headers=foreign).status_code == 403


@pytest.mark.parametrize(
    "prefix", ["//evil.example/x", "https://evil.example", '/"><script>', "/a b", "javascript:1"]
)
def test_prefix_of_a_proxy_is_a_path(store: StoreAddress, prefix: str) -> None:
    """A header that is no path leads nowhere else."""
    page = httpx.get(page_url(store, "/project/x/sessions"), headers={"x-forwarded-prefix": prefix})
    assert '<base href="/">' in page.text
    assert "evil" not in page.text
