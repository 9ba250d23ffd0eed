"""The cassette in use: what is replayed, what is recorded, and what was asked that it does not hold.

Owns the one player of the process and the count of identical calls; the wrappers around DSPy and MCP ask it.
Invariant: the n-th identical call gets the n-th recorded answer, whichever thread makes it.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from research_kit.config import REPLAY_VARIABLE
from research_kit.errors import ConfigError, ResearchKitError
from research_kit.masking import masked_text
from research_kit.regression.cassette import Cassette, RecordedCall, call_key, describe_nearest

__all__ = ["CassetteMissError", "Player", "RecordMode", "current_player", "replaying"]

RecordMode = Literal["missing", "all", "none"]
# Of the recorded calls that were not made.
_MOST_SHOWN = 3


class CassetteMissError(ResearchKitError, LookupError):
    """A call was made whose answer is not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer to a call, from the cassette.

    Attributes:
        answer: As it was recorded.
        is_repeated: Whether DSPy's cache would have given it, because the same was asked before.
    """

    answer: Mapping[str, Any]
    is_repeated: bool = False


class Player:
    """Answers calls from a cassette, or records them into it.

    Args:
        path: The file.
        record: ``none`` only replays, ``missing`` also records what is not there, ``all`` records everything
            anew.
        replays_latency: Whether a replayed answer takes as long as the recorded one.
        mask: Takes secrets out of a JSON text, which stays JSON text.
    """

    def __init__(
        self,
        path: Path,
        *,
        record: RecordMode = "none",
        replays_latency: bool = False,
        mask: Callable[[str], str] = str,
    ) -> None:
        self.record = record
        self.replays_latency = replays_latency
        self.misses: list[str] = []
        self.replayed_count = self.recorded_count = 0
        self._mask = mask
        self._lock = threading.RLock()
        self._cassette = Cassette.load(path)
        self._known = list(self._cassette.calls)
        self._answers = {} if record == "all" else _by_key(self._known)
        self._taken: Counter[str] = Counter()
        self._new: list[RecordedCall] = []

    @property
    def path(self) -> Path:
        """The file of the cassette."""
        return self._cassette.path

    @property
    def unused_count(self) -> int:
        """How many recorded calls were not made (again)."""
        with self._lock:
            return sum(max(0, len(calls) - self._taken[key]) for key, calls in self._answers.items())

    def describe_unused(self) -> str:
        """Return the first recorded calls that were not made, a line each."""
        with self._lock:
            unused = [call for key, calls in self._answers.items() for call in calls[self._taken[key] :]]
        return "\n".join(f"- {_in_short(call)}" for call in unused[:_MOST_SHOWN])

    def find(
        self,
        kind: str,
        request: Mapping[str, Any],
        *,
        is_cached: bool = False,
        repeats_last: bool = False,
    ) -> Found | None:
        """Return the answer to a call; None when it has to be asked for and recorded.

        Args:
            kind: ``lm`` or ``mcp``.
            request: What is asked, as JSON values.
            is_cached: Whether the caller's own cache would answer the second identical call.
            repeats_last: Whether the last answer is given again when all were given.

        Raises:
            CassetteMissError: When nothing may be recorded and the answer is not there.
        """
        masked = self._masked(request)
        key = call_key(kind, masked)
        with self._lock:
            answers, taken = self._answers.get(key, []), self._taken[key]
            if is_cached and taken:
                return Found(answer=answers[0].answer, is_repeated=True) if answers else None
            if taken < len(answers):
                self._taken[key] += 1
                self.replayed_count += 1
                return Found(answer=answers[taken].answer)
            if repeats_last and answers:
                return Found(answer=answers[-1].answer)
            if self.record != "none":
                return None
            self.misses.append(self._describe_miss(kind, masked, len(answers)))
            raise CassetteMissError(self.misses[-1])

    def was_last(self, kind: str, request: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
        """Say whether the last answer to this request was the same, so that it need not be kept again."""
        with self._lock:
            answers = self._answers.get(call_key(kind, self._masked(request)), [])
            return bool(answers) and answers[-1].answer.get("result") == self._masked(result)

    def keep(self, kind: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Record an answer; it is on disk when this returns, because it may have cost money."""
        call = RecordedCall(kind=kind, request=self._masked(request), answer=self._masked(answer))
        with self._lock:
            self._answers.setdefault(call.key, []).append(call)
            self._taken[call.key] += 1
            self.recorded_count += 1
            self._new.append(call)
            self._save([*self._known, *self._new] if self.record == "missing" else self._in_known_order())

    def close(self, *, is_complete: bool = True) -> None:
        """Write the file for the last time.

        Args:
            is_complete: Whether everything was asked that there is to ask; only then what was not asked is
                left out when all was recorded anew.
        """
        with self._lock:
            if self.record == "all" and is_complete:
                self._known = [call for call in self._known if call.key in self._answers]
                if self._new or self.path.exists():
                    self._save(self._in_known_order())

    def _in_known_order(self) -> list[RecordedCall]:
        """Put new answers where the old ones stood, so that recording again changes few lines."""
        waiting, ordered = _by_key(self._new), []
        for call in self._known:
            queue = waiting.get(call.key)
            if queue:
                ordered.append(queue.pop(0))
            elif call.key not in self._answers:
                ordered.append(call)
        left = {id(call) for queue in waiting.values() for call in queue}
        return [*ordered, *(call for call in self._new if id(call) in left)]

    def _save(self, calls: Sequence[RecordedCall]) -> None:
        Cassette(path=self.path, calls=list(calls)).save()

    def _masked(self, value: Mapping[str, Any]) -> dict[str, Any]:
        masked: dict[str, Any] = json.loads(self._mask(json.dumps(value, ensure_ascii=False, default=str)))
        return masked

    def _describe_miss(self, kind: str, request: Mapping[str, Any], count: int) -> str:
        what = "language model call" if kind == "lm" else "tool call"
        if count:
            why = f"it is recorded {count} time(s), and this is one more"
            shown = _in_short(RecordedCall(kind=kind, request=request, answer={}))
        else:
            why, shown = "it is not recorded", describe_nearest(kind, request, self._known)
        return (
            f"A {what} cannot be replayed from {str(self.path)!r}: {why}. {shown}\n"
            "If the call is right, record it: --record missing (rk.replaying(..., record='missing'))."
        )


_player: Player | None = None


def current_player() -> Player | None:
    """Return the player in use; None when calls go where they always go."""
    return _player


def start_player(player: Player) -> None:
    """Let ``player`` answer the calls of this process.

    Raises:
        ConfigError: When another one does already.
    """
    global _player
    if _player is not None:
        raise ConfigError(
            f"The cassette {str(_player.path)!r} is in use in this process. Leave its `with` block before "
            f"replaying {str(player.path)!r}."
        )
    from research_kit.regression.replay_lm import watch_dspy
    from research_kit.regression.replay_mcp import watch_mcp

    watch_dspy()
    watch_mcp()
    if player.record == "none":
        os.environ[REPLAY_VARIABLE] = "true"
    _player = player


def stop_player(*, is_complete: bool = True) -> None:
    """Let calls go where they always go."""
    global _player
    player, _player = _player, None
    os.environ.pop(REPLAY_VARIABLE, None)
    if player is not None:
        player.close(is_complete=is_complete)


@contextmanager
def replaying(
    path: str | Path, *, record: RecordMode = "none", replays_latency: bool = False
) -> Iterator[Player]:
    """Answer language model calls (DSPy) and MCP calls inside the block from a cassette.

    Nothing is connected to: no network, no keys. Usage and cost are those that were recorded. Secrets are
    masked before anything is written.

    Args:
        path: A YAML file; it need not exist when something may be recorded.
        record: ``none`` only replays and raises for what is not there, ``missing`` records that, ``all``
            records everything anew.
        replays_latency: Whether replayed answers take as long as the recorded ones.

    Yields:
        The player, which counts: ``replayed_count``, ``recorded_count``, ``unused_count``, ``misses``.

    Raises:
        CassetteMissError: From a call whose answer is not recorded; it names the nearest recorded call.
        ConfigError: When the file or ``record`` cannot be used, or another cassette is in use.
    """
    player = open_player(Path(path), record=record, replays_latency=replays_latency)
    start_player(player)
    try:
        yield player
    except BaseException:
        stop_player(is_complete=False)
        raise
    stop_player()


def open_player(path: Path, *, record: str, replays_latency: bool) -> Player:
    """Return a player that masks as everything is masked in this process.

    Raises:
        ConfigError: When the file or ``record`` cannot be used.
    """
    if record not in get_args(RecordMode):
        raise ConfigError(f"record is {record!r}. Use one of: {', '.join(get_args(RecordMode))}.")
    return Player(path, record=record, replays_latency=replays_latency, mask=masked_text)  # type: ignore[arg-type]


def _by_key(calls: Sequence[RecordedCall]) -> dict[str, list[RecordedCall]]:
    found: dict[str, list[RecordedCall]] = {}
    for call in calls:
        found.setdefault(call.key, []).append(call)
    return found


def _in_short(call: RecordedCall) -> str:
    text = json.dumps(call.request, ensure_ascii=False)
    return f"{call.kind} {text if len(text) <= 200 else text[:120] + ' ... ' + text[-76:]}"
