"""The pages as a reader gets them."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest
from exports import make_span
from page_visits import enter

from research_kit._words import UNKNOWN
from research_kit.store import StoreAddress
from research_kit.store.markup import Markup, element, fragment

Send = Callable[..., httpx.Response]


class _Reader(HTMLParser):
    """Collects the elements and the visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


@pytest.fixture
def read_page(store: StoreAddress, browser: httpx.Client) -> Callable[[str], _Reader]:
    """Open a page as a browser with a valid cookie does."""
    place = enter(browser, store)

    def read(path: str, *, status_code: int = 200) -> _Reader:
        answer = browser.get(f"{place}/project/{store.project_id}{path}")
        assert answer.status_code == status_code
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        reader = _Reader()
        reader.feed(answer.text)
        return reader

    return read


def _chat(session_id: str, *, trace: int = 1) -> list[dict[str, object]]:
    shared = {"session__id": session_id, "user__id": "alice"}
    return [
        make_span(
            1,
            trace=trace,
            name="chat",
            langfuse__observation__input='"How many rows?"',
            langfuse__observation__output='"344 rows"',
            **shared,
        ),
        make_span(
            2,
            trace=trace,
            parent=1,
            name="count",
            langfuse__observation__type="tool",
            langfuse__observation__input='{"frame": "penguins"}',
            langfuse__observation__output="344",
            **shared,
        ),
        make_span(
            3,
            trace=trace,
            parent=1,
            name="llm",
            langfuse__observation__type="generation",
            langfuse__observation__model__name="gpt-4o-mini",
            langfuse__observation__usage_details='{"input": 1000, "output": 500}',
            **shared,
        ),
        make_span(4, trace=trace, parent=2, name="server side", gen_ai__tool__name="remote-count"),
    ]


def test_replay_shows_the_conversation(
    client: httpx.Client, send: Send, read_page: Callable[..., _Reader]
) -> None:
    """Question, tool call with arguments and result, answer, tokens, cost, latency, scores are all there."""
    send(*_chat("replay"))
    client.post("/api/public/scores", json={"name": "helpful", "value": 1, "traceId": f"{1:032x}"})
    text = read_page("/sessions/replay").text
    for expected in (
        "How many rows?",
        "count",
        'frame="penguins"',
        "344 rows",
        "1,500",
        "$0.00045",
        "4.00 s",
    ):
        assert expected in text
    assert "helpful" in text
    assert text.index("How many rows?") < text.index("count") < text.index("344 rows")


def test_trace_page_shows_the_tree(send: Send, read_page: Callable[..., _Reader]) -> None:
    """Every observation is listed below its parent with a bar, the tool server's side included."""
    send(*_chat("tree", trace=2))
    page = read_page(f"/traces/{2:032x}")
    assert page.text.index("chat") < page.text.index("count") < page.text.index("remote-count")
    assert page.tags.count("rect") == 4


def test_session_list_links_to_the_replay(send: Send, read_page: Callable[..., _Reader]) -> None:
    """The list names sessions with their sums, and its links survive odd session ids."""
    odd = "a/b?c#d%20é "
    send(*_chat(odd, trace=3))
    page = read_page("/sessions")
    (link,) = [value for _, value in page.attributes if value and value.endswith(quote(odd, safe=""))]
    assert odd in page.text
    assert "How many rows?" in read_page(link.partition("/sessions")[1] + link.partition("/sessions")[2]).text


def test_unknown_cost_is_said(send: Send, read_page: Callable[..., _Reader]) -> None:
    """Tokens of a model without a price make the cost unknown, not nothing."""
    usage = {
        "langfuse__observation__usage_details": '{"input": 5}',
        "langfuse__observation__model__name": "mine",
    }
    send(make_span(1, trace=7, session__id="unpriced", user__id="only-here", **usage))
    line = read_page("/sessions?q=unpriced").text.rpartition("only-here")[2]
    assert UNKNOWN in line.split()
    assert "$0" not in line
    for path in ("/sessions?q=unpriced", "/sessions/unpriced", f"/traces/{7:032x}"):
        page = read_page(path)
        assert UNKNOWN in page.text.split()
        assert ("title", "1 call has no known price.") in page.attributes


def test_nothing_from_a_trace_becomes_markup(send: Send, read_page: Callable[..., _Reader]) -> None:
    """Names, texts, models and messages that look like HTML are shown as text."""
    attack = "<img src=x onerror=alert(1)>\"'></pre><script>alert(1)</script>"
    spans = _chat(f"attack {attack}", trace=4)
    for span in spans:
        span["name"] = attack
        span["status"] = {"code": 2, "message": attack}
        span["attributes"] += [  # type: ignore[operator]
            {"key": key, "value": {"stringValue": attack}}
            for key in ("langfuse.observation.input", "langfuse.observation.model.name", "user.id")
        ]
    send(*spans)
    for path in ("/sessions", f"/sessions/{quote(f'attack {attack}', safe='')}", f"/traces/{4:032x}"):
        page = read_page(path)
        assert "img" not in page.tags
        assert page.tags.count("script") == 1, "the store's own"
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert "onerror" in page.text


def test_parents_in_a_circle_are_shown(send: Send, read_page: Callable[..., _Reader]) -> None:
    """Observations whose parents form a circle are all listed, once."""
    send(make_span(1, trace=5, parent=2), make_span(2, trace=5, parent=1), make_span(3, trace=5, parent=3))
    page = read_page(f"/traces/{5:032x}")
    assert page.tags.count("rect") == 3


def test_unknown_pages_say_so(read_page: Callable[..., _Reader]) -> None:
    """An unknown session, trace or project is a 404 with a sentence."""
    for path in ("/sessions/none", "/traces/none"):
        assert "Nothing with this id" in read_page(path, status_code=404).text


def test_page_loads_nothing_from_elsewhere(send: Send, read_page: Callable[..., _Reader]) -> None:
    """No page names another host or carries styles that the content policy would refuse."""
    send(*_chat("local", trace=6))
    page = read_page("/sessions/local")
    assert not [value for _, value in page.attributes if value and "//" in value]
    assert "style" not in {name for name, _ in page.attributes}


def test_markup_escapes_all_but_markup() -> None:
    """Only what the makers return is markup; attributes are escaped as well."""
    assert (
        element("p", "<b>", element("i", "&"), title='"<')
        == '<p title="&quot;&lt;">&lt;b&gt;<i>&amp;</i></p>'
    )
    assert fragment(None, ["a", Markup("<br>")], "<") == "a<br>&lt;"


def test_replay_shows_one_mcp_call_once(send: Send, read_page: Callable[..., _Reader]) -> None:
    """A tool call that its MCP server reports too is one step of the conversation."""
    spans = _chat("mcp-once")
    spans[3]["attributes"].append({"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}})
    send(*spans)
    assert read_page("/sessions/mcp-once").tags.count("details") == 1


def _listed(page: _Reader) -> set[str]:
    """Return the sessions that the list links to."""
    links = [value for name, value in page.attributes if name == "href" and value and "/sessions/" in value]
    return {link.rpartition("/")[2] for link in links}


def test_session_list_is_narrowed_by_its_form(send: Send, read_page: Callable[..., _Reader]) -> None:
    """Words, user, tag, days and errors narrow the list, each by itself and together."""
    tag = {"langfuse__trace__tags": '["pilot"]'}
    failed = {"langfuse__observation__level": "ERROR"}
    shared = {"langfuse__observation__input": "the needle 100%_sure"}
    send(
        make_span(1, trace=81, session__id="filter-one", user__id="nora", **shared),
        make_span(2, trace=82, session__id="filter-two", user__id="olaf", **tag),
        make_span(3, trace=82, session__id="filter-two", user__id="olaf", **failed),
    )
    cases = {
        "q=filter-": {"filter-one", "filter-two"},
        "q=needle 100%25_": {"filter-one"},
        "q=needle x": set(),
        "user=nora": {"filter-one"},
        "tag=pilot": {"filter-two"},
        "q=filter&errors=1": {"filter-two"},
        "q=filter&since=2026-11-20&until=2026-11-20": {"filter-one", "filter-two"},
        "q=filter&since=2026-11-21": set(),
        "q=filter&until=2026-11-19": set(),
        "user=nora&tag=pilot": set(),
        "q=filter&since=nonsense": {"filter-one", "filter-two"},
    }
    for query, expected in cases.items():
        assert _listed(read_page(f"/sessions?{query}")) == expected, query
    page = read_page("/sessions?user=nora")
    assert ("value", "nora") in page.attributes
    assert "No session is like this." in read_page("/sessions?q=absent").text
