"""The chat panel: a conversation in a notebook's output.

Owns the traits, the messages to and from the browser, and the threads that follow turns; the conversation
itself belongs to the engine. Invariant: at every moment the traits alone show the whole conversation, so that
a reload, a second view or a lost message costs nothing; and nothing in them is secret. The messages are
listed in ``widgets/chat_panel/protocol.json``.
"""

from __future__ import annotations

import contextvars
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import display, update_display

from research_kit._optional import DISTRIBUTION
from research_kit.chat.markdown import clean_text
from research_kit.chat.past import PastMessage
from research_kit.chat.ui_coalescing import coalesce_events
from research_kit.chat.ui_engine import Engine, Turn
from research_kit.chat.ui_export import ExportedFile, export_transcript
from research_kit.chat.ui_format import usage_texts
from research_kit.chat.ui_messages import (
    ChatMessage,
    fold_events,
    kept_text,
    message_to_wire,
    past_to_messages,
)
from research_kit.chat.ui_static import PART_COUNT, StaticCopy, render_static
from research_kit.chat.ui_status import read_status
from research_kit.chat.ui_transcript import Transcript
from research_kit.errors import ConfigError, ResearchKitError

__all__ = ["ChatPanel", "Engine", "find_asset"]

_ASSET_FOLDERS = (
    Path(__file__).parent / "static",
    Path(__file__).parents[2] / "widgets" / "chat_panel",
)


def find_asset(name: str, *, folders: tuple[Path, ...] = _ASSET_FOLDERS) -> Path:
    """Return the front-end file ``name``: from the installed package, else from the checkout.

    Raises:
        ResearchKitError: When no folder has it.
    """
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ResearchKitError(
        f"Cannot find {name!r} of the chat panel: it is neither in {' nor in '.join(map(str, folders))}. "
        f"Reinstall the package: pip install --force-reinstall {DISTRIBUTION}"
    )


class ChatPanel(anywidget.AnyWidget):
    """A conversation as a widget; display it as the last expression of a cell.

    Args:
        engine: The conversation that answers, for instance ``research_kit.chat.Conversation``.

    Attributes:
        transcript: All messages, oldest first, as the browser reads them, and the number of the last change.
        status: Session, user, backend state, language model, budget and the sums of the conversation.

    Raises:
        TypeError: For any other argument.
    """

    _esm = find_asset("index.js")
    _css = find_asset("index.css")

    transcript = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)

    # `close` runs also for objects whose construction failed; this is what it finds then.
    _is_built = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._display_id = secrets.token_hex(16)
        self._message_count = 0
        self._turns: dict[str, Turn] = {}
        self._static = StaticCopy()
        self._is_displayed = False
        self._view_context = contextvars.copy_context()
        super().__init__(
            transcript={"revision": 0, "messages": []}, status=read_status(engine, is_busy=False)
        )
        self._messages = Transcript(self.transcript, self.send)
        self._is_built = True
        engine.approvals.is_shown = True
        self._stop_listening = engine.listen(self._on_backend_change)
        self.on_msg(lambda _panel, content, _buffers: self.receive(content))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages, oldest first, as the browser reads them."""
        return self._messages.messages

    def receive(self, content: Mapping[str, Any]) -> None:
        """Act on a message of the front end."""
        match content:
            case {"type": "hello", "revision": int(revision)}:
                self._answer_hello(revision)
            case {"type": "resync"}:
                self._resend_transcript()
            case {"type": "send", "request_id": str(request_id), "text": str(text)}:
                self._begin_turn(request_id, text, self._engine.send)
            case {
                "type": "resend",
                "request_id": str(request_id),
                "message_id": str(name),
                "text": str(text),
            }:
                self._resend(request_id, name, text)
            case {"type": "stop", "message_id": str() | None as name}:
                self.stop(name)
            case {"type": "decide", "call_id": str(call_id), "decision": str(decision)}:
                self._engine.decide(call_id, decision)
            case _:
                self._receive_more(content)

    def _receive_more(self, content: Mapping[str, Any]) -> None:
        match content:
            case {"type": "feedback", "message_id": str(name), "value": 0 | 1 | None as value, **rest}:
                comment = str(rest.get("comment", ""))
                self._in_thread(lambda: self._give_feedback(name, value, kept_text(comment)))
            case {"type": "open", "request_id": str(request_id), "trace_id": str() | None as trace_id}:
                self._in_thread(lambda: self._send_link(request_id, trace_id))
            case {"type": "trust", "question_id": str(question_id), "decision": str(decision)}:
                self._decide_trust(question_id, decision)
            case {"type": "refresh"}:
                self._refresh()
            case {"type": "export", "form": str(form)}:
                self.send({"type": "file", **self.export(form)._asdict()})
            case {"type": "list_sessions"}:
                self._in_thread(self._send_sessions)
            case {"type": "open_session", "session_id": str() | None as session_id}:
                self._in_thread(lambda: self._open_session(session_id))
            case _:
                known = content.get("type") if isinstance(content, Mapping) else type(content).__name__
                raise ResearchKitError(
                    f"The chat panel received a message of type {known!r}, which it does not know. "
                    "The page shows a front end of another release: reload it."
                )

    def stop(self, message_id: str | None = None) -> None:
        """Stop the running answer and those that wait, or one of them; what had arrived stays."""
        with self._lock:
            turns = [turn for name, turn in self._turns.items() if message_id in (None, name)]
        for turn in turns:
            turn.cancel()

    def export(self, form: str = "markdown") -> ExportedFile:
        """Return the conversation as ``markdown``, ``html`` or ``jsonl``: a file's name, type and text.

        Raises:
            ConfigError: When ``form`` is another word.
        """
        return export_transcript(self.messages, self.status, form)

    def show_past(self, past: Sequence[PastMessage]) -> None:
        """Show the messages of an earlier session instead of what is shown."""
        with self._lock:
            self._messages.cut(0)
            self.messages.extend(self._to_wire(message) for old in past for message in past_to_messages(old))
            self._message_count = max((old.message_number for old in past), default=0)
            self._resend_transcript()
            self._refresh_status()
        self._update_static(0)

    def restore(self) -> None:
        """Read the messages that the session has on the server, and go on with them; returns at once."""
        self._in_thread(lambda: self._open_session(self._engine.session_id))

    def close(self) -> None:
        """Stop the running answer and remove the panel from the page."""
        if self._is_built:
            self.stop()
            self._stop_listening()
        super().close()

    def __repr__(self) -> str:
        """Name the session: viewers without HTML show this line, as it was when the panel appeared."""
        return f"<ChatPanel: session {self.status['session_id']}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/html": render_static(self.messages, self.status)}, metadata

    def _ipython_display_(self) -> None:
        # Outputs of their own: updating the one with the view would build the view anew and lose the draft.
        view = super()._repr_mimebundle_() if self.comm is not None else None
        if view is not None:
            data, metadata = view
            display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call] # untyped in IPython
        for part in range(PART_COUNT):
            bundle = {"text/html": "", "text/plain": ""}
            display(bundle, raw=True, display_id=self._part_id(part))  # type: ignore[no-untyped-call]
        self._is_displayed = True
        self._update_static(0)

    def _answer_hello(self, revision: int) -> None:
        # Publishing from here also tells ipykernel which subshell the next click should reach.
        self.send({"type": "ready"})
        self._view_context = contextvars.copy_context()
        if self._turns or revision != self.transcript["revision"]:
            self._resend_transcript()
        self._refresh_status()

    def _resend_transcript(self) -> None:
        # Under the lock no delta overtakes the text that it continues.
        with self._lock:
            self.send_state("transcript")

    def _resend(self, request_id: str, message_id: str, text: str) -> None:
        with self._lock:
            index = self._messages.index_of(message_id)
            if index < 0:
                self._refuse(request_id, "This message is not there any more. Send the text as a new one.")
                return
            number = self.messages[index]["message_number"]
            first = index - (self.messages[index]["role"] == "assistant")
            self._begin_turn(
                request_id, text, lambda cleaned: self._engine.resend(number, cleaned), cut_from=first
            )

    def _begin_turn(
        self, request_id: str, text: str, send: Callable[[str], Turn], *, cut_from: int | None = None
    ) -> None:
        text = clean_text(text)
        with self._lock:
            try:
                turn = send(text)
            except ResearchKitError as error:
                self._refuse(request_id, str(error))
                return
            if cut_from is not None:
                self._messages.cut(cut_from)
            answer = self._open_messages(text, turn)
        self.send({"type": "accepted", "request_id": request_id})
        self._refresh_status()
        self._in_thread(lambda: self._follow_turn(turn, answer))

    def _refuse(self, request_id: str, reason: str) -> None:
        self.send({"type": "refused", "request_id": request_id, "reason": reason})

    def _open_messages(self, text: str, turn: Turn) -> ChatMessage:
        self._message_count += 1
        number = turn.message_number
        question = ChatMessage(
            message_id=f"q{self._message_count}",
            role="user",
            text=kept_text(text),
            state="sent",
            message_number=number,
        )
        answer = ChatMessage(
            message_id=f"a{self._message_count}",
            role="assistant",
            state="queued" if self._turns else "running",
            message_number=number,
        )
        self._turns[answer.message_id] = turn
        self._messages.put([self._to_wire(question), self._to_wire(answer)])
        return answer

    def _in_thread(self, work: Callable[[], None]) -> None:
        # The copied context carries the subshell of this message: Stop is then handled while a cell runs.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name="research-kit-chat", daemon=True).start()

    def _follow_turn(self, turn: Turn, answer: ChatMessage) -> None:
        try:
            for events in coalesce_events(turn):
                before, batch = answer, fold_events(answer, events)
                answer = batch.answer
                if answer.state in ("queued", "running"):
                    with self._lock:
                        if before.state != answer.state:
                            self._messages.put([self._to_wire(answer)])
                        self._messages.stream(self._to_wire(answer), batch)
        finally:
            if answer.state in ("queued", "running"):
                turn.cancel()
                answer = _interrupted(answer)
            self._end_turn(answer)

    def _end_turn(self, answer: ChatMessage) -> None:
        with self._lock:
            del self._turns[answer.message_id]
            self._messages.finish(self._to_wire(answer))
            self._refresh_status()
            index = self._messages.index_of(answer.message_id)
        self._update_static(max(index - 1, 0))

    def _give_feedback(self, message_id: str, value: int | None, comment: str) -> None:
        rated = self._messages.find(message_id)
        feedback = None if value is None else {"value": value, "comment": comment}
        try:
            if rated is None or rated["trace_id"] is None:
                raise ConfigError(
                    "This answer has no trace, so it cannot be rated. Bind a session: rk.bind()."
                )
            self._engine.give_feedback(rated["trace_id"], value, comment)
        except ResearchKitError as error:
            self.send({"type": "notice", "text": str(error)})
            feedback = rated["feedback"] if rated is not None else None
        with self._lock:
            # The server took its time; by now there may be another message of this id, or none.
            shown = self._messages.find(message_id)
            if rated is not None and shown is not None and shown["trace_id"] == rated["trace_id"]:
                shown["feedback"] = feedback
                self.send({"type": "feedback", "message_id": message_id, "feedback": feedback})

    def _send_link(self, request_id: str, trace_id: str | None) -> None:
        try:
            url = self._engine.opening_link(trace_id)
        except ResearchKitError as error:
            self._refuse(request_id, str(error))
            return
        self.send({"type": "link", "request_id": request_id, "url": url})

    def _decide_trust(self, question_id: str, decision: str) -> None:
        try:
            self._engine.trust.decide(question_id, decision)
        except ResearchKitError as error:
            self.send({"type": "notice", "text": str(error)})
        self._refresh_status()

    def _send_sessions(self) -> None:
        try:
            found = self._engine.list_sessions()
        except ResearchKitError as error:
            self.send({"type": "notice", "text": str(error)})
            return
        sessions = [
            {
                "session_id": known.session_id,
                "title": kept_text(known.title),
                "start_time": known.start_time.isoformat(),
                "message_count": known.message_count,
                "cost": usage_texts(known.usage)["cost"],
            }
            for known in found
        ]
        self.send({"type": "sessions", "sessions": sessions})

    def _open_session(self, session_id: str | None) -> None:
        try:
            past = self._engine.open_session(session_id)
        except ResearchKitError as error:
            self.send({"type": "notice", "text": str(error)})
            return
        self.show_past(past)

    def _to_wire(self, message: ChatMessage) -> dict[str, Any]:
        trace_url = self._engine.page_address(message.trace_id) if message.trace_id else None
        return message_to_wire(message, trace_url=trace_url)

    def _refresh_status(self) -> None:
        with self._lock:
            self.status = read_status(self._engine, is_busy=bool(self._turns))

    def _refresh(self) -> None:
        """Show what has become known since the last message: the state of the server, and addresses."""
        with self._lock:
            for wire in self.messages:
                if wire["trace_id"] and not wire["trace_url"] and wire["state"] not in ("queued", "running"):
                    address = self._engine.page_address(wire["trace_id"])
                    if address is None:
                        break
                    self._messages.put([{**wire, "trace_url": address}])
        self._refresh_status()

    def _on_backend_change(self) -> None:
        # Published for the subshell of the latest view, or the next click would wait for a running cell.
        self._view_context.copy().run(self._refresh)

    def _part_id(self, part: int) -> str:
        return f"{self._display_id}-{part}"

    def _update_static(self, changed_from: int) -> None:
        if not self._is_displayed:
            return
        with self._lock:
            parts = list(self._static.changed_parts(self.messages, self.status, changed_from=changed_from))
        for part, html in parts:
            bundle = {"text/html": html, "text/plain": ""}
            update_display(bundle, raw=True, display_id=self._part_id(part))  # type: ignore[no-untyped-call]


def _interrupted(answer: ChatMessage) -> ChatMessage:
    return replace(
        answer,
        text=kept_text(answer.arrived),
        state="failed",
        error="The answer broke off because of an error inside the conversation; the kernel's log shows it. "
        "Send the message again.",
    )
