"""Links to the store's pages open once, outputs carry none, and the cookie goes to the store alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from page_visits import PLACE, enter, opened_browser, path_of, visit
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from research_kit.store import StoreAddress, ensure_running, opening_link, page_address, stop_store
from research_kit.store.tickets import Tickets

# Each of them shows something that a notebook keeps, or a log of continuous integration.
OUTPUTS = """
import contextlib, io
import research_kit as rk
from research_kit.session import kernel_session
shown = [rk.bind("s1")]
with rk.trace_span("work"): pass
assert rk.flush(30)
shown += [rk.status(), kernel_session().backend, rk.new_session(), rk.resume("s1")]
shown += [rk.replay("s1"), rk.show(rk.traces_df("s1")["trace_id"][0])]
for one in shown:
    print(repr(one), str(one), getattr(one, "_repr_html_", str)())
print(rk.observations_df("s1").to_json(), rk.traces_df("s1").to_json())
"""


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "data"
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(folder))
    monkeypatch.setenv("RESEARCH_KIT_STORE_IDLE_MINUTES", "3")
    yield folder
    if folder.is_dir():
        stop_store(folder)


@pytest.fixture
def store(data_dir: Path) -> StoreAddress:
    return ensure_running(data_dir)


def run_command(*arguments: str) -> str:
    command = [sys.executable, "-m", "research_kit.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


# --- what is kept


def test_outputs_hold_plain_addresses(store: StoreAddress) -> None:
    """No text or picture of a session holds a token; the address of the page is there."""
    shown = subprocess.run(
        [sys.executable, "-c", OUTPUTS], capture_output=True, text=True, timeout=120, check=True
    )
    assert page_address(store, f"/project/{store.project_id}/sessions/s1") in shown.stdout
    for text in (shown.stdout, shown.stderr):
        assert "token=" not in text
        assert store.secret_key not in text
        assert "/at-" not in text


def test_run_notebook_and_its_report_hold_no_token(store: StoreAddress, tmp_path: Path) -> None:
    """A notebook that was run, what was printed meanwhile and the reports hold no token."""
    cells = [
        "import research_kit as rk\nrk.bind('s2')",
        "with rk.trace_span('work'): pass",
        "rk.flush()\nrk.status()",
    ]
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{n}",
                "metadata": {},
                "outputs": [],
                "execution_count": None,
                "source": text,
            }
            for n, text in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path, output = tmp_path / "one.ipynb", tmp_path / "out.ipynb"
    path.write_text(json.dumps(notebook))
    printed = run_command("run", str(path), "--output", str(output))
    assert "/sessions/s2" in output.read_text()
    for text in (printed, output.read_text()):
        assert "token=" not in text


# --- links


def test_command_gives_a_link_for_once(store: StoreAddress) -> None:
    """``research-kit store open`` leads to the list, or to the session that is named, one time."""
    for arguments, path in (((), "/"), (("a b/c",), f"/project/{store.project_id}/sessions/a%20b%2Fc")):
        link = run_command("store", "open", *arguments).strip()
        assert link.startswith(page_address(store, path))
        with opened_browser(store) as browser, opened_browser(store) as other:
            assert other.head(path_of(link)).status_code == 401, "a look is no use"
            assert visit(browser, link).status_code == 200
            assert visit(other, link).status_code == 401


def test_used_and_unused_links_do_not_outlive_the_server(data_dir: Path, store: StoreAddress) -> None:
    """After a restart a link that was used opens nothing again, and neither does one that was not."""
    used, unused = opening_link(store, "/"), opening_link(store, "/")
    with opened_browser(store) as browser:
        visit(browser, used)
        place = enter(browser, store)
        stop_store(data_dir)
        again = ensure_running(data_dir)
        assert again.base_url == store.base_url
        assert browser.get(f"{place}/project/{store.project_id}/sessions").status_code == 200
        with opened_browser(again) as other:
            assert visit(other, used).status_code == 401
            assert visit(other, unused).status_code == 401


def test_cookie_ends_with_the_key(data_dir: Path, store: StoreAddress) -> None:
    """A new key pair closes the pages to browsers that were let in under the old one."""
    with opened_browser(store) as browser:
        place = enter(browser, store)
        path = f"{place}/project/{store.project_id}/sessions"
        assert browser.get(path).status_code == 200
        (data_dir / "store-keys.json").chmod(0o644)
        with pytest.warns(UserWarning, match="A new key pair is made"):
            again = ensure_running(data_dir)
        assert (again.base_url, again.project_id) == (store.base_url, store.project_id)
        assert browser.get(path).status_code == 401


def test_link_under_a_plain_host_is_led_to_the_name(store: StoreAddress) -> None:
    """A token is exchanged under the installation's own name only, and is not used up on the way there."""
    link = opening_link(store, f"/project/{store.project_id}/sessions?x=1")
    for host in ("127.0.0.1", "localhost", "[::1]"):
        port = store.base_url.rpartition(":")[2]
        answer = httpx.get(f"{store.base_url}{path_of(link)}", headers={"host": f"{host}:{port}"})
        assert (answer.status_code, answer.headers["location"]) == (303, link)
        assert "set-cookie" not in answer.headers
    with opened_browser(store) as browser:
        assert visit(browser, link).status_code == 200


def test_page_under_a_plain_host_explains_itself(store: StoreAddress) -> None:
    """Without a cookie it says what to run, and leads to the name that may have one."""
    path = f"/project/{store.project_id}/sessions/s1"
    answer = httpx.get(f"{store.base_url}{path}")
    assert answer.status_code == 401
    assert "research-kit store open" in answer.text
    assert f'href="{page_address(store, path)}"' in answer.text


def test_plain_host_can_be_asked_for(store: StoreAddress) -> None:
    """For browsers without names below .localhost a link leads to 127.0.0.1, to a place nobody else knows."""
    link = run_command("store", "open", "--plain-host").strip()
    assert link.startswith(f"{store.base_url}/?token=")
    with httpx.Client() as browser:
        found = PLACE.search(browser.get(link).text)
        assert found
        assert (
            browser.get(f"{store.base_url}{found[1]}/project/{store.project_id}/sessions").status_code == 200
        )
        assert browser.get(f"{store.base_url}/project/{store.project_id}/sessions").status_code == 401
    assert httpx.get(link).status_code == 401


def test_cookie_is_short_and_renewed(store: StoreAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie lasts eight hours; one that is used after two is made anew."""
    from research_kit.store import links

    with opened_browser(store) as browser:
        place = enter(browser, store)
        path = f"{place}/project/{store.project_id}/sessions"
        assert "set-cookie" not in browser.get(path).headers
        monkeypatch.setattr(links, "COOKIE_LIFETIME_S", 8 * 3600 - 7300)  # as it was made two hours ago
        old = links.make_cookie(store.secret_key, urlsplit(store.base_url).port or 0)
        browser.cookies.clear()
        answer = browser.get(path, headers={"cookie": f"research-kit-{store.project_id}={old}"})
        assert answer.status_code == 200
        assert "Max-Age=28800" in answer.headers["set-cookie"]
        assert f"Path={place}/;" in answer.headers["set-cookie"]


def test_tokens_end_by_themselves_and_stay_few() -> None:
    """A token that nobody uses opens nothing after its minutes, and a thousand of them take no room."""
    assert Tickets(lifetime_s=0).find(Tickets(lifetime_s=0).issue(fits_any_host=False)) is None
    late = Tickets(lifetime_s=0)
    assert late.find(late.issue(fits_any_host=False)) is None
    tickets = Tickets()
    first, *others = [tickets.issue(fits_any_host=False) for _ in range(1001)]
    assert tickets.find(first) is None
    assert all(tickets.find(token) for token in others)
    tickets.use(others[0])
    assert tickets.find(others[0]) is None
    assert len(set(others)) == 1000


# --- the cookie in a real browser


@dataclass
class Hostile:
    """A server of somebody else on this machine, whose pages try to be sent the cookie."""

    port: int
    pages: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def cookies(self) -> list[tuple[str, str, str]]:
        return [one for one in self.asked if "research-kit" in one[2]]


@contextmanager
def hostile_server() -> Iterator[Hostile]:
    hostile = Hostile(port=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hostile.asked.append((self.headers["Host"], self.path, self.headers.get("Cookie") or ""))
            body = hostile.pages.get(urlsplit(self.path).path, "<p>reached").encode()
            origin = self.headers.get("Origin")
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            if origin:
                self.send_header("Access-Control-Allow-Origin", origin)
                self.send_header("Access-Control-Allow-Credentials", "true")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hostile.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hostile
        server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context()
    yield made
    made.close()


# How one page has a browser ask another address; each is a script, in which TARGET is that address.
WAYS = {
    "iframe": "const f = document.createElement('iframe'); f.src = TARGET; document.body.append(f);",
    "window": "window.open(TARGET);",
    "link": "const a = document.createElement('a'); a.href = TARGET; a.target = '_blank';"
    "document.body.append(a); a.click();",
    "get form": "const f = document.createElement('form'); f.action = TARGET; f.target = '_blank';"
    "f.innerHTML = '<input name=way value=get-form>'; document.body.append(f); f.submit();",
    "post form": "const f = document.createElement('form'); f.action = TARGET; f.method = 'post';"
    "f.target = '_blank'; document.body.append(f); f.submit();",
    "fetch": "fetch(TARGET, {credentials: 'include', mode: 'no-cors'}).catch(() => 0);",
    "cors fetch": "fetch(TARGET, {credentials: 'include'}).catch(() => 0);",
    "image": "new Image().src = TARGET;",
    "script": "const s = document.createElement('script'); s.src = TARGET; document.body.append(s);",
    "beacon": "navigator.sendBeacon(TARGET, 'x');",
    "opened and led on": "const w = window.open('about:blank'); w.location = TARGET;",
}


def let_in(context: BrowserContext, store: StoreAddress, link: str) -> Page:
    page = context.new_page()
    page.goto(link)
    page.get_by_role("heading", name="Sessions").wait_for()
    assert "token=" not in page.url
    return page


def attack(context: BrowserContext, hostile: Hostile, own_host: str, targets: list[str]) -> None:
    """Open a hostile page under ``own_host``, and let it ask every target in every way."""
    scripts = [
        f"(() => {{ const TARGET = {json.dumps(target)} + '?way={way.replace(' ', '-')}'; {script} }})();"
        for target in targets
        for way, script in WAYS.items()
    ]
    # Asked anew by the page itself: then the request is of the same site as the page.
    hostile.pages = {
        "/attack": f"<body><p>attack<script>{''.join(scripts)}</script>",
        "/again": "<body><script>location.href = '/attack'</script>",
    }
    page = context.new_page()
    before = len(hostile.asked)
    page.goto(f"http://{own_host}:{hostile.port}/again")
    page.get_by_text("attack").wait_for()
    page.wait_for_load_state("networkidle")
    ways = {parse_qs(urlsplit(path).query).get("way", [""])[0] for _, path, _ in hostile.asked[before:]}
    assert {way.replace(" ", "-") for way in WAYS} <= ways, "not every way was tried"
    for opened in context.pages[1:]:
        opened.close()


@pytest.mark.browser
@pytest.mark.parametrize("is_plain", [False, True], ids=["own name", "plain host"])
def test_hostile_pages_never_receive_the_cookie(
    context: BrowserContext, store: StoreAddress, is_plain: bool
) -> None:
    """On another port of any name of this machine, also the store's own, no request carries the cookie."""
    page = let_in(context, store, opening_link(store, "/", fits_any_host=is_plain))
    own = urlsplit(page_address(store, "/")).hostname or ""
    shown = urlsplit(page.url)
    place = shown.path.split("/")[1]
    hosts = ["127.0.0.1", "localhost", own, "rk-0123456789abcdef.localhost"]
    with hostile_server() as hostile:
        paths = ["/", f"/project/{store.project_id}/sessions", f"/at-{'0' * 32}/", "/static/way.js"]
        targets = [f"http://{host}:{hostile.port}{path}" for host in (shown.hostname, own) for path in paths]
        for host in hosts:
            attack(context, hostile, host, list(dict.fromkeys(targets)))
        assert len(hostile.asked) > 150
        assert hostile.cookies() == []
        # The instrument works: who knew the place, which only this browser and the store know, would get it.
        context.new_page().goto(f"http://{shown.hostname}:{hostile.port}/{place}/")
        assert len(hostile.cookies()) == 1
    page.reload()
    page.get_by_role("heading", name="Sessions").wait_for()


@pytest.mark.browser
def test_hostile_page_cannot_read_the_place(context: BrowserContext, store: StoreAddress) -> None:
    """A page of another port that opens or frames the store's pages does not learn where they are shown."""
    page = let_in(context, store, opening_link(store, "/"))
    own, place = urlsplit(page.url).hostname, urlsplit(page.url).path.split("/")[1]
    target = page_address(store, f"/project/{store.project_id}/sessions")
    script = f"""
const seen = [JSON.stringify({{...localStorage}})];
const look = (place) => {{
  try {{ seen.push(String(place().location.href)); }} catch (error) {{ seen.push("refused"); }}
}};
const opened = window.open({json.dumps(target)});
const frame = document.createElement("iframe");
frame.src = {json.dumps(target)};
document.body.append(frame);
fetch({json.dumps(target)}, {{credentials: "include"}})
  .then((answer) => answer.text(), String)
  .then((text) => seen.push(text));
const finish = () => {{
  look(() => opened);
  look(() => frame.contentWindow);
  document.title = "done " + seen.join("|");
}};
setTimeout(finish, 3000);
"""
    with hostile_server() as hostile:
        hostile.pages = {"/attack": f"<body>attack<script>{script}</script>"}
        attacker = context.new_page()
        attacker.goto(f"http://{own}:{hostile.port}/attack")
        attacker.wait_for_function("document.title.startsWith('done')")
        seen = attacker.title()
    assert seen.count("refused") == 2
    assert place not in seen
    assert "Sessions" not in seen


@pytest.mark.browser
def test_plain_address_opens_in_a_browser_that_was_let_in(
    chromium: Browser, context: BrowserContext, store: StoreAddress, data_dir: Path
) -> None:
    """An address out of a saved notebook opens at once, also after a restart; another browser is told how."""
    address = page_address(store, f"/project/{store.project_id}/sessions")
    let_in(context, store, opening_link(store, "/"))
    page = context.new_page()
    page.goto(address)
    page.get_by_role("heading", name="Sessions").wait_for()
    stop_store(data_dir)
    ensure_running(data_dir)
    page.goto(f"{address}?user=x#top")
    page.get_by_role("heading", name="Sessions").wait_for()
    assert page.url.endswith("/sessions?user=x")
    other = chromium.new_context()
    stranger = other.new_page()
    stranger.goto(address)
    stranger.get_by_text("research-kit store open").wait_for()
    other.close()


@pytest.mark.browser
def test_clicked_address_in_a_notebook_opens(context: BrowserContext, store: StoreAddress) -> None:
    """A link on another site, such as Jupyter's, opens the page, though the cookie is held back at first."""
    let_in(context, store, opening_link(store, "/"))
    address = page_address(store, f"/project/{store.project_id}/sessions")
    with hostile_server() as jupyter:
        jupyter.pages = {"/": f'<a href="{address}" target="_blank" rel="noopener noreferrer">page</a>'}
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{jupyter.port}/")
        with context.expect_page() as opened:
            page.get_by_role("link").click()
        opened.value.get_by_role("heading", name="Sessions").wait_for()
