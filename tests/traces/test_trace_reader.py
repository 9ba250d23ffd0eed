"""Paging, repetition and failures of the reader, on answers that a healthy server never gives."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from research_kit.errors import BackendError, ConfigError
from research_kit.traces import ObservationQuery, TraceReader


def _rows(make_row: Callable[..., Any], count: int) -> list[dict[str, Any]]:
    return [make_row(number) for number in reversed(range(count))]


def test_reader_follows_cursors_to_the_last_page(fake_server, open_fake, make_row) -> None:
    """Every row of every page is delivered once, in the server's order."""
    server = fake_server(_rows(make_row, 2345))
    rows = list(open_fake(server).list_observations())
    assert [row["id"] for row in rows] == [row["id"] for row in server.rows]
    assert server.limits == [1000, 1000, 1000]


@pytest.mark.parametrize(
    ("limit", "is_truncated"), [(9, True), (10, False), (11, False)], ids=["fewer", "equal", "more"]
)
def test_reader_says_whether_a_limit_left_rows_out(
    fake_server, open_fake, make_row, limit, is_truncated
) -> None:
    """A limit asks for no more than needed, and is reported exactly when it left rows out."""
    server = fake_server(_rows(make_row, 10))
    read = open_fake(server).read_observations(limit=limit)
    assert (len(read.rows), read.is_truncated) == (min(limit, 10), is_truncated)
    assert server.limits == [limit]


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "10"])
def test_reader_refuses_a_limit_that_is_no_number_from_one_on(fake_server, open_fake, limit) -> None:
    """A limit that cannot be meant is refused before anything is asked."""
    server = fake_server()
    with pytest.raises(ConfigError, match=f"limit is {limit!r}"):
        open_fake(server).read_observations(limit=limit)
    assert server.requests == []


def test_reader_sends_conditions_and_keys(fake_server, open_fake) -> None:
    """The conditions of a query reach the server in its own words, authenticated with the key pair."""
    server = fake_server()
    query = ObservationQuery(
        session_id="s", type="TOOL", start_time=datetime(2026, 11, 20, 10, tzinfo=UTC), includes_io=False
    )
    list(open_fake(server).list_observations(query))
    (request,) = server.requests
    assert dict(request.url.params) == {
        "sessionId": "s",
        "type": "TOOL",
        "fromStartTime": "2026-11-20T10:00:00.000Z",
        "fields": "core,basic,time,metadata,model,usage,prompt,metrics,trace_context",
        "limit": "1000",
    }
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"pk-lf-test:sk-lf-test").decode()


def test_reader_waits_as_long_as_the_server_wishes(fake_server, open_fake, make_row, clock) -> None:
    """429 with Retry-After is repeated after exactly that time."""
    refusal = httpx.Response(429, headers={"retry-after": "7"})
    server = fake_server(_rows(make_row, 1), script=[refusal, refusal])
    assert len(list(open_fake(server).list_observations())) == 1
    assert clock.waits_s == [7.0, 7.0]


def test_reader_understands_a_date_in_retry_after(fake_server, open_fake, make_row, clock) -> None:
    """Retry-After may be a date; one in the past means at once."""
    past = (datetime.now(UTC) - timedelta(minutes=5)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    server = fake_server(_rows(make_row, 1), script=[httpx.Response(429, headers={"retry-after": past})])
    assert len(list(open_fake(server).list_observations())) == 1
    assert clock.waits_s == [0.0]


@pytest.mark.parametrize(
    "problem",
    [httpx.Response(502), httpx.Response(503), httpx.Response(504), httpx.ConnectError("refused")],
    ids=["502", "503", "504", "refused"],
)
def test_reader_survives_passing_failures(fake_server, open_fake, make_row, clock, problem) -> None:
    """A server that is away for a moment is asked again, with growing pauses."""
    server = fake_server(_rows(make_row, 1), script=[problem, problem, problem])
    assert len(list(open_fake(server).list_observations())) == 1
    assert clock.waits_s == [0.25, 0.5, 1.0]


def test_reader_gives_up_after_a_bounded_number_of_attempts(fake_server, open_fake) -> None:
    """A server that stays away ends in an error that names address, cause and remedy."""
    server = fake_server(script=[httpx.ConnectError("connection refused")] * 99)
    expected = (
        r"from http://langfuse\.test: no answer after 5 attempts \(connection refused\).*store start.*_URL"
    )
    with pytest.raises(BackendError, match=expected) as caught:
        list(open_fake(server).list_observations())
    assert len(server.requests) == 5
    assert (caught.value.base_url, caught.value.status_code) == ("http://langfuse.test", None)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_reader_repeats_a_timeout_once(fake_server, open_fake) -> None:
    """A request that ran into its timeout is repeated once: a hanging server does not hold the cell."""
    server = fake_server(script=[httpx.ReadTimeout("slow")] * 99)
    with pytest.raises(BackendError, match=r"no answer after 2 attempts"):
        list(open_fake(server).list_observations())


def test_reader_does_not_wait_longer_than_a_minute(fake_server, open_fake, clock) -> None:
    """A daily limit (Retry-After of hours) is an error at once, not a cell that hangs."""
    server = fake_server(script=[httpx.Response(429, headers={"retry-after": "86400"})])
    with pytest.raises(BackendError, match="Wait 86400 seconds, or read less") as caught:
        list(open_fake(server).list_observations())
    assert caught.value.status_code == 429
    assert clock.waits_s == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "401 for the public key 'pk-lf-test'.*LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"),
        (403, "403 for the public key 'pk-lf-test'.*LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"),
        (404, "404 for /api/public/v2/observations.*LANGFUSE_BASE_URL"),
        (400, "400: limit is odd"),
        (302, "302: Found"),
    ],
)
def test_reader_explains_refusals_without_repeating(fake_server, open_fake, status, expected) -> None:
    """A refusal is not repeated; its error names the status and what to check, and never the secret key."""
    body = {"message": "limit is odd"} if status == 400 else None
    server = fake_server(script=[httpx.Response(status, json=body)])
    with pytest.raises(BackendError, match=expected) as caught:
        list(open_fake(server).list_observations())
    assert [request.url.path.rpartition("/")[2] for request in server.requests].count("observations") == 1
    assert caught.value.status_code == status
    assert "sk-lf-test" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).status_code == status


def test_reader_says_which_version_an_old_server_has(fake_server, open_fake) -> None:
    """A server older than 4 does not know the paths; the error names its version and what is needed."""
    server = fake_server(script=[httpx.Response(404), httpx.Response(200, json={"version": "3.162.0"})])
    with pytest.raises(BackendError, match=r"runs Langfuse 3\.162\.0, and reading needs version 4 or later"):
        list(open_fake(server).list_observations())


def test_reader_asks_for_smaller_pages_when_an_answer_is_too_large(
    fake_server, open_fake, make_row, clock
) -> None:
    """413 halves the page until it fits, at once, and the size is kept for the pages that follow."""
    server = fake_server(_rows(make_row, 600), script=[httpx.Response(413), httpx.Response(413)])
    assert len(list(open_fake(server).list_observations())) == 600
    assert server.limits == [1000, 500, 250, 250, 250]
    assert clock.waits_s == []


def test_reader_asks_for_smaller_pages_when_the_server_fails(fake_server, open_fake, make_row) -> None:
    """500 may mean a page that is too large: it is repeated once, then asked for in halves."""
    server = fake_server(_rows(make_row, 600), script=[httpx.Response(500)] * 4)
    assert len(list(open_fake(server).list_observations())) == 600
    assert server.limits == [1000, 1000, 500, 500, 250, 250, 250]


def test_reader_ends_when_the_server_keeps_failing(fake_server, open_fake, clock) -> None:
    """A server that answers 500 whatever the page ends in an error after bounded attempts and time."""
    server = fake_server(script=[httpx.Response(500)] * 99)
    with pytest.raises(BackendError, match="answered 500 5 times") as caught:
        list(open_fake(server).list_observations())
    assert caught.value.status_code == 500
    assert len(server.requests) <= 20
    assert clock.now_s() < 10


def test_reader_explains_an_answer_that_is_not_json(fake_server, open_fake) -> None:
    """A login page in place of an answer names the content type and LANGFUSE_BASE_URL."""
    server = fake_server(script=[httpx.Response(200, html="<h1>Sign in</h1>")])
    with pytest.raises(BackendError, match=r"text/html.*instead of a JSON object.*LANGFUSE_BASE_URL"):
        list(open_fake(server).list_observations())


def test_reader_explains_json_without_rows(fake_server, open_fake) -> None:
    """JSON of something that is no Langfuse server is an error, not an empty frame."""
    server = fake_server(script=[httpx.Response(200, json={"status": "OK"})])
    with pytest.raises(BackendError, match="no list 'data'"):
        list(open_fake(server).list_observations())


@pytest.mark.parametrize(
    "pages",
    [
        [{"data": [], "meta": {"cursor": "a"}}],
        [{"data": [{"id": "1"}], "meta": {"cursor": "a"}}, {"data": [{"id": "1"}], "meta": {"cursor": "a"}}],
    ],
    ids=["empty page", "same cursor"],
)
def test_reader_leaves_a_server_that_does_not_move_on(fake_server, open_fake, pages) -> None:
    """A cursor that leads nowhere ends in an error instead of an endless loop."""
    server = fake_server(script=[httpx.Response(200, json=page) for page in pages])
    with pytest.raises(BackendError, match="does not move on"):
        list(open_fake(server).list_observations())


def test_reader_asks_for_scores_of_many_traces_in_parts(fake_server, open_fake) -> None:
    """Scores of many traces are asked for in several requests, so that no address gets too long."""
    server = fake_server()
    list(open_fake(server).list_scores(trace_ids=[f"{number:032x}" for number in range(120)]))
    assert [len(request.url.params["traceId"].split(",")) for request in server.requests] == [50, 50, 20]
    assert all(len(str(request.url)) < 2500 for request in server.requests)


@pytest.mark.parametrize("base_url", ["localhost:3000", "ftp://x", "http://", ""])
def test_reader_refuses_what_is_no_web_address(base_url) -> None:
    """An address without a scheme or host is refused with its value."""
    with pytest.raises(ConfigError, match=r"base_url is .* not a web address"):
        TraceReader(base_url, "pk", "sk")


def test_reader_does_not_show_its_secret_key() -> None:
    """The repr names server and public key only."""
    with TraceReader("http://127.0.0.1:9/", "pk-lf-1", "sk-lf-1") as reader:
        assert repr(reader) == "TraceReader('http://127.0.0.1:9', 'pk-lf-1')"


def test_reader_ignores_proxies_for_this_machine(monkeypatch: pytest.MonkeyPatch, clock) -> None:
    """A proxy of the outside world is not asked for a server on this machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    with (
        TraceReader("http://127.0.0.1:9", "pk", "sk", clock=clock) as reader,
        pytest.raises(BackendError, match="refused"),
    ):
        list(reader.list_observations())
