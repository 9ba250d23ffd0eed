"""Who may ask what."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from page_visits import enter, opened_browser, visit

from research_kit.store import StoreAddress, opening_link, page_address
from research_kit.store.links import cookie_age_s, make_cookie

_READS = ["/api/public/v2/observations", "/api/public/v3/scores", "/api/public/projects", "/internal/status"]


@pytest.mark.parametrize("path", _READS)
@pytest.mark.parametrize("header", [None, "Bearer x", "Basic", "Basic !!!", "Basic eDp5", "Basic w7w6w7w="])
def test_api_needs_the_key(store: StoreAddress, path: str, header: str | None) -> None:
    """No endpoint with content answers without the key pair."""
    headers = {} if header is None else {"authorization": header}
    assert httpx.get(store.base_url + path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:80",
        "169.254.169.254",
        "[::2]:1",
        "",
        "evil@127.0.0.1",
        "127.0.0.1#evil",
        "127.0.0.1/evil",
        "127.0.0.1?evil",
        "127.0.0.1\\evil",
        "127.0.0.1:80:80",
        "127.0.0.1:",
        "127.0.0.1:port",
        "localhost.",
        "rk-0123456789abcdef.localhost",
        "other.localhost",
    ],
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


def test_own_name_is_served(client: httpx.Client, store: StoreAddress) -> None:
    """The host name of the installation is one of this machine."""
    host = urlsplit(page_address(store, "/")).netloc
    assert client.get("/api/public/projects", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1:1",
        "http://localhost",
        "http://x@{host}",
        "http://{host}@evil.example",
    ],
)
def test_writes_from_foreign_pages_are_refused(client: httpx.Client, origin: str) -> None:
    """A write that a browser sends for a page of elsewhere, also of another port, is refused with the key."""
    host = client.base_url.netloc.decode()
    answer = client.post("/api/public/scores", headers={"origin": origin.format(host=host)}, json={})
    assert answer.status_code == 403


def test_write_of_an_own_page_is_taken(client: httpx.Client) -> None:
    """The store's own host and port are no foreign page."""
    origin = f"http://{client.base_url.netloc.decode()}"
    score = {"name": "fine", "value": 1, "sessionId": "s"}
    assert client.post("/api/public/scores", headers={"origin": origin}, json=score).status_code == 200


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
def test_forged_token_is_refused(browser: httpx.Client, store: StoreAddress, token: str) -> None:
    """A token that the store did not make opens nothing."""
    answer = browser.get(f"/project/{store.project_id}/sessions", params={"token": token})
    assert answer.status_code == 401


def test_link_becomes_a_cookie(store: StoreAddress, browser: httpx.Client) -> None:
    """A link sets a cookie that scripts cannot read, and goes on without the token in the address."""
    link = opening_link(store, f"/project/{store.project_id}/sessions?x=1")
    first = visit(browser, link)
    cookie = first.headers["set-cookie"]
    place = cookie.partition("Path=")[2].partition("/;")[0]
    assert f"0;url={place}/project/{store.project_id}/sessions?x=1" in first.text
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Domain" not in cookie
    assert store.secret_key not in cookie
    assert browser.get(f"{place}/project/{store.project_id}/sessions").status_code == 200
    assert browser.get(f"{place}/").status_code == 307
    with opened_browser(store) as other:
        assert visit(other, link).status_code == 401, "a link opens once"
        assert other.get(f"{place}/project/{store.project_id}/sessions").status_code == 401


def test_cookie_opens_no_api(store: StoreAddress, browser: httpx.Client) -> None:
    """What opens pages for reading does not open the API."""
    enter(browser, store)
    assert browser.get("/api/public/v2/observations").status_code == 401


def test_link_clicked_in_jupyter_is_sent_on_by_the_store(browser: httpx.Client, store: StoreAddress) -> None:
    """From another site the browser holds the cookie back once, so the store asks for the page again."""
    path = f"{enter(browser, store)}/project/{store.project_id}/sessions"
    browser.cookies.clear()
    answer = browser.get(path, headers={"sec-fetch-site": "cross-site"})
    assert f"0;url={path}" in answer.text
    assert "set-cookie" not in answer.headers


def test_redirect_never_leaves_the_store(store: StoreAddress, browser: httpx.Client) -> None:
    """A link to two slashes is not sent on to another host."""
    assert "//evil.example" not in visit(browser, opening_link(store, "//evil.example/")).text


def test_cookie_holds_for_its_key_and_port() -> None:
    """A cookie belongs to one key and one port, and tells its age."""
    cookie = make_cookie("key", 80)
    age_s = cookie_age_s(cookie, "key", 80)
    assert age_s is not None
    assert 0 <= age_s < 60
    assert cookie_age_s(cookie, "other", 80) is None
    assert cookie_age_s(cookie, "key", 81) is None
    assert cookie_age_s(f"9{cookie}", "key", 80) is None
    assert cookie_age_s("", "key", 80) is None
    assert cookie_age_s(f"٣{cookie[1:]}", "key", 80) is None


def test_pages_are_reached_through_a_hub(store: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy with a name and a path of its own a link opens the pages, and nothing opens without."""
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "https://hub.example/user/ann/")
    path = f"/project/{store.project_id}/sessions"
    port = store.base_url.rpartition(":")[2]
    link = opening_link(store, path)
    assert link.startswith(f"https://hub.example/user/ann/proxy/{port}{path}?token=")
    prefix = f"/user/ann/proxy/{port}"
    headers = {"host": "hub.example", "x-forwarded-prefix": prefix}
    with httpx.Client(base_url=store.base_url, headers=headers) as proxy:
        assert proxy.get(path).status_code == 401
        assert proxy.get("/api/public/projects").status_code == 403
        opened = proxy.get(path, params={"token": link.partition("token=")[2]})
        cookie = opened.headers["set-cookie"]
        place = cookie.partition(f"Path={prefix}")[2].partition("/;")[0]
        assert f'content="0;url={prefix}{place}{path}"' in opened.text
        # The cookie of the path that the browser sees; the proxy hands it on.
        proxy.headers["cookie"] = cookie.partition(";")[0]
        page = proxy.get(f"{place}{path}")
        assert page.status_code == 200
        assert f'<base href="{prefix}{place}/">' in page.text
        assert proxy.get(f"{place}/static/pages.css").status_code == 200
        foreign = {"origin": "https://evil.example"}
        assert proxy.post("/api/public/scores", json={}, headers=foreign).status_code == 403


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example/x",
        "https://evil.example",
        '/"><script>',
        "/a b",
        "javascript:1",
        "/evil",
        "/user/ann/proxy/1",
        "//evil.example/proxy/{port}",
        "/proxy/{port}/more",
    ],
)
def test_prefix_is_one_of_the_proxy(browser: httpx.Client, store: StoreAddress, prefix: str) -> None:
    """A header that is no path of jupyter-server-proxy to this very port leads nowhere else."""
    given = prefix.format(port=store.base_url.rpartition(":")[2])
    link = opening_link(store, "/project/x/sessions")
    answer = browser.get(
        link.partition(".localhost")[2].partition("/")[2], headers={"x-forwarded-prefix": given}
    )
    assert '<base href="/">' in answer.text
    assert "Path=/at-" in answer.headers["set-cookie"]
    assert "evil" not in answer.text
