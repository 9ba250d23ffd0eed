"""Push and pull: from the embedded store to a Langfuse server, and back.

Owns what is moved, in which order, and where an interrupted move goes on. Invariant: moving twice equals
moving once, because ids, start times and scores stay what they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self, TypeVar

from research_kit.config import load_settings, private_directory
from research_kit.errors import BackendError, ConfigError, ResearchKitError
from research_kit.session.backend import mixture_with
from research_kit.store import StoreAddress, ensure_running
from research_kit.store.transports import transport_to
from research_kit.traces.query import ObservationQuery, to_utc
from research_kit.traces.reader import TraceReader
from research_kit.transfer.target import Target
from research_kit.wire import open_client

__all__ = ["Transferred", "pull", "push"]

_BATCH = 200
_TIMEOUT_S = 30.0
_MILLISECOND = timedelta(milliseconds=1)
_Row = TypeVar("_Row")
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What was moved.

    Attributes:
        observation_count: Observations that the server has taken.
        score_count: Scores that it has taken.
        refused: One line for each that it refused for its content.
    """

    observation_count: int
    score_count: int
    refused: tuple[str, ...]


def push(
    to: str | None = None,
    *,
    session_ids: Sequence[str] | None = None,
    since: datetime | str | None = None,
    public_key: str | None = None,
    secret_key: str | None = None,
    on_progress: Progress = lambda count: None,
) -> Transferred:
    """Send what the embedded store holds to a Langfuse server, ids, times and scores unchanged.

    It can be repeated: what the server has already is replaced by itself. An interrupted push goes on where
    it was when it is called again with the same arguments.

    Args:
        to: Root of the server; None means LANGFUSE_BASE_URL.
        session_ids: Only these sessions; None means everything.
        since: Only what began then or later.
        public_key: Of the server; None means LANGFUSE_PUBLIC_KEY.
        secret_key: Of the server; None means LANGFUSE_SECRET_KEY.
        on_progress: Called with the number of observations that were just taken.

    Raises:
        ConfigError: When keys are missing, or the server is the embedded store itself.
        BackendError: When a server cannot be reached or refuses the keys.
        StoreError: When the embedded store cannot be started.
    """
    store = ensure_running(load_settings().data_dir)
    remote = Target(*_account(to, public_key, secret_key, address_name="to"))
    if remote.project_id() == store.project_id:
        raise ConfigError(f"{remote.base_url} is the embedded store itself. Give another server with to=...")
    since_utc = to_utc(since, name="since")
    wanted: Sequence[str | None] = session_ids or [None]
    queries = [ObservationQuery(session_id=one, start_time=since_utc) for one in wanted]
    try:
        with _reading(store) as source:
            moves = [
                _move(source, remote, query, on_progress, _Place.of(source, remote, query))
                for query in queries
            ]
    finally:
        remote.close()
    return Transferred(
        observation_count=sum(move.observation_count for move in moves),
        score_count=sum(move.score_count for move in moves),
        refused=tuple(remote.refused),
    )


def pull(
    session_id: str,
    *,
    from_url: str | None = None,
    public_key: str | None = None,
    secret_key: str | None = None,
    on_progress: Progress = lambda count: None,
) -> Transferred:
    """Fetch a session from a Langfuse server into the embedded store, to work with it offline.

    Args:
        session_id: The session.
        from_url: Root of the server; None means LANGFUSE_BASE_URL.
        public_key: Of the server; None means LANGFUSE_PUBLIC_KEY.
        secret_key: Of the server; None means LANGFUSE_SECRET_KEY.
        on_progress: Called with the number of observations that were just taken.

    Raises:
        ConfigError: When keys are missing, or the session has no observations.
        BackendError: When the server cannot be reached or refuses the keys.
        StoreError: When the embedded store cannot be started.
    """
    store = ensure_running(load_settings().data_dir)
    account = _account(from_url, public_key, secret_key, address_name="from_url")
    # It says of an address that cannot be used what a push says.
    Target(*account).close()
    base_url = account[0]
    target = Target(store.base_url, store.public_key, store.secret_key, transport=transport_to(store))
    try:
        with TraceReader(*account, max_read_mb=load_settings().read_max_mb) as source:
            # One session is soon fetched anew; nothing is remembered of it.
            moved = _move(source, target, ObservationQuery(session_id=session_id), on_progress, _Place())
    finally:
        target.close()
    if not moved.observation_count:
        raise ConfigError(
            f"{base_url} has no observations of the session {session_id!r}. Check the id, and that the keys "
            "belong to its project."
        )
    return moved


def _move(
    source: TraceReader, target: Target, query: ObservationQuery, on_progress: Progress, place: _Place
) -> Transferred:
    try:
        return _move_rows(source, target, query, on_progress, place)
    except ResearchKitError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BackendError(
            f"Cannot move what {source.base_url} answers: a row is not as Langfuse writes it "
            f"({type(error).__name__}: {error}). Check its address, and that it is of version 4 or later.",
            base_url=source.base_url,
        ) from error


def _move_rows(
    source: TraceReader, target: Target, query: ObservationQuery, on_progress: Progress, place: _Place
) -> Transferred:
    observation_count = score_count = 0
    for rows in _batches(_observations(source, query, place)):
        target.send_observations(rows)
        place.note(rows)
        observation_count += len(rows)
        on_progress(len(rows))
    for scores in _batches(_scores(source, query)):
        target.send_scores(scores)
        score_count += len(scores)
    place.forget()
    return Transferred(
        observation_count=observation_count, score_count=score_count, refused=tuple(target.refused)
    )


def _observations(source: TraceReader, query: ObservationQuery, place: _Place) -> Iterator[Any]:
    """Yield what is left: what is older than the place, then what has come since the move began."""
    oldest, began = place.oldest, place.began
    if oldest is None or began is None:
        yield from source.list_observations(query)
        return
    start = datetime.fromisoformat(oldest)
    yield from source.list_observations(replace(query, end_time=start + _MILLISECOND))
    late = source.list_observations(replace(query, start_time=start, includes_io=False))
    arrived = datetime.fromisoformat(began)
    trace_ids = dict.fromkeys(
        row["traceId"] for row in late if datetime.fromisoformat(row["createdAt"]) >= arrived
    )
    for trace_id in trace_ids:
        yield from source.list_observations(replace(query, trace_id=trace_id))


@dataclass(slots=True)
class _Place:
    """Where a move is; observations come newest first.

    Attributes:
        path: The file that remembers it; None when nothing is remembered.
        began: When the move began; the embedded store has the same clock.
        oldest: The start of the last observation that the server has taken.
    """

    path: Path | None = None
    began: str | None = None
    oldest: str | None = None

    @classmethod
    def of(cls, source: TraceReader, target: Target, query: ObservationQuery) -> Self:
        """Read where the same move was interrupted."""
        folder = private_directory(load_settings().data_dir / "transfer", purpose="the state of transfers")
        what = repr((source.public_key, target.base_url, target.public_key, query))
        path = folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
        try:
            return cls(path, **json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls(path, began=datetime.now(UTC).isoformat(timespec="milliseconds"))

    def note(self, rows: Sequence[Any]) -> None:
        """Note a batch that the server has taken."""
        if self.path is None:
            return
        starts = [row["startTime"] for row in rows]
        self.oldest = min([*starts, self.oldest] if self.oldest else starts)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps({"began": self.began, "oldest": self.oldest}), encoding="utf-8")
        draft.replace(self.path)

    def forget(self) -> None:
        """Begin anew the next time."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _scores(source: TraceReader, query: ObservationQuery) -> Iterator[Any]:
    """Yield the scores of what is moved; with a start time, those that were given since."""
    if query.session_id is None:
        found = source.list_scores()
    else:
        whole = ObservationQuery(session_id=query.session_id, includes_io=False)
        trace_ids = sorted({row["traceId"] for row in source.list_observations(whole)})
        own = source.list_scores(session_id=query.session_id)
        found = chain(own, source.list_scores(trace_ids=trace_ids))
    since = query.start_time
    for score in found:
        if since is None or datetime.fromisoformat(score["timestamp"]) >= since:
            yield score


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


@contextmanager
def _reading(store: StoreAddress) -> Iterator[TraceReader]:
    keys = (store.public_key, store.secret_key)
    with (
        open_client(store.base_url, timeout_s=_TIMEOUT_S, transport=transport_to(store)) as client,
        # A store of our own, which is read page by page.
        TraceReader(store.base_url, *keys, client=client, max_read_mb=None) as reader,
    ):
        yield reader


def _account(
    url: str | None, public_key: str | None, secret_key: str | None, *, address_name: str
) -> tuple[str, str, str]:
    """Return address and keys of the server; arguments count as the user's own word.

    Raises:
        ConfigError: When keys are missing, or keys and address come from different places.
    """
    settings = load_settings()
    known = (settings.base_url, settings.public_key, settings.secret_key)
    given = (url.rstrip("/") if url else None, public_key or None, secret_key or None)
    names = (address_name, "public_key", "secret_key")
    if mixture := mixture_with(settings, dict(zip(names, given, strict=True))):
        raise ConfigError(mixture)
    base_url, public, secret = (argument or value for argument, value in zip(given, known, strict=True))
    if not base_url or not public or not secret:
        raise ConfigError(
            "The keys of the Langfuse server are missing. Set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY."
        )
    return base_url, public, secret
