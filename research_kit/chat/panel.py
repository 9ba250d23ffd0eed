"""The chat panel: a conversation in a notebook's output.

Owns the traits, the messages to and from the browser, and the thread that follows a turn; the conversation
itself belongs to the engine. Invariant: at every moment the traits alone show the whole conversation, so that
a reload, a second view or a lost message costs nothing. The messages are listed in
``widgets/chat_panel/protocol.json``.
"""

from __future__ import annotations

import contextvars
import secrets
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import display, update_display

from research_kit.chat.markdown import clean_text
from research_kit.chat.ui_engine import Engine, Turn, coalesce_events
from research_kit.chat.ui_format import format_latency, usage_texts
from research_kit.chat.ui_messages import Batch, ChatMessage, fold_events, message_to_wire, tool_to_wire
from research_kit.chat.ui_static import render_static
from research_kit.errors import ResearchKitError

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
        "Reinstall the package: pip install --force-reinstall research-kit"
    )


class ChatPanel(anywidget.AnyWidget):
    """A conversation as a widget; display it as the last expression of a cell.

    Args:
        engine: The conversation that answers, for instance ``research_kit.chat.Conversation``.

    Attributes:
        transcript: All messages, oldest first, as the browser reads them.
        status: Session, user, backend state, language model and the sums of the conversation.

    Raises:
        TypeError: For any other argument.
    """

    _esm = find_asset("index.js")
    _css = find_asset("index.css")

    transcript = traitlets.List(traitlets.Dict()).tag(sync=True)
    status = traitlets.Dict().tag(sync=True)

    # `close` runs also for objects whose construction failed; these are what it finds then.
    _turn: Turn | None = None
    _is_displayed = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._display_id = secrets.token_hex(16)
        self._message_count = 0
        super().__init__(status=self._read_status())
        self.on_msg(lambda _panel, content, _buffers: self.receive(content))

    def receive(self, content: Mapping[str, Any]) -> None:
        """Act on a message of the front end."""
        match content:
            case {"type": "hello"}:
                self._answer_hello()
            case {"type": "resync"}:
                self._resend_transcript()
            case {"type": "send", "request_id": str(request_id), "text": str(text)}:
                self._begin_turn(request_id, clean_text(text))
            case {"type": "stop"}:
                self.stop()
            case _:
                known = content.get("type") if isinstance(content, Mapping) else type(content).__name__
                raise ResearchKitError(
                    f"The chat panel received a message of type {known!r}, which it does not know. "
                    "The page shows a front end of another release: reload it."
                )

    def stop(self) -> None:
        """Stop the running answer, if there is one; what had arrived stays."""
        turn = self._turn
        if turn is not None:
            turn.cancel()

    def close(self) -> None:
        """Stop the running answer and remove the panel from the page."""
        self.stop()
        super().close()

    def __repr__(self) -> str:
        """Name the session: viewers without HTML show this line, as it was when the panel appeared."""
        return f"<ChatPanel: session {self.status['session_id']}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/html": self._render_static()}, metadata

    def _ipython_display_(self) -> None:
        # Two outputs: updating the one with the view would build the view anew and lose focus and draft.
        bundle = super()._repr_mimebundle_() if self.comm is not None else None
        if bundle is not None:
            data, metadata = bundle
            display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call] # untyped in IPython
        display(self._static_bundle(), raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]
        self._is_displayed = True

    def _answer_hello(self) -> None:
        # Publishing from here also tells ipykernel which subshell the next click should reach.
        self.send({"type": "ready"})
        if self._turn is not None:
            self._resend_transcript()
        self._refresh_status()

    def _resend_transcript(self) -> None:
        # Under the lock no delta overtakes the text that it continues.
        with self._lock:
            self.send_state("transcript")

    def _begin_turn(self, request_id: str, text: str) -> None:
        with self._lock:
            if self._turn is not None:
                self._refuse(
                    request_id, "The previous message is still being answered. Stop it, or wait for its end."
                )
                return
            try:
                self._turn = turn = self._engine.send(text)
            except ResearchKitError as error:
                self._refuse(request_id, str(error))
                return
            answer = self._open_messages(text)
        self.send({"type": "accepted", "request_id": request_id})
        self._refresh_status()
        # The copied context carries the subshell of this message: Stop is then handled while a cell runs.
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run,
            args=(self._follow_turn, turn, answer),
            name="research-kit-chat",
            daemon=True,
        ).start()

    def _refuse(self, request_id: str, reason: str) -> None:
        self.send({"type": "refused", "request_id": request_id, "reason": reason})

    def _open_messages(self, text: str) -> ChatMessage:
        self._message_count += 1
        question = ChatMessage(message_id=f"q{self._message_count}", role="user", text=text, state="sent")
        answer = ChatMessage(message_id=f"a{self._message_count}", role="assistant", state="running")
        self.transcript = [*self.transcript, self._to_wire(question), self._to_wire(answer)]
        return answer

    def _follow_turn(self, turn: Turn, answer: ChatMessage) -> None:
        try:
            for events in coalesce_events(turn):
                batch = fold_events(answer, events)
                answer = batch.answer
                if answer.state == "running":
                    self._stream(batch)
        finally:
            if answer.state == "running":
                turn.cancel()
                answer = _interrupted(answer)
            self._end_turn(answer)

    def _stream(self, batch: Batch) -> None:
        with self._lock:
            # In place, without a notification: whoever asks for the state gets the text so far, and the
            # browsers that already follow get no more than the difference.
            self.transcript[-1] = self._to_wire(batch.answer)
            message_id = batch.answer.message_id
            for tool in batch.changed_tools:
                self.send({"type": "tool", "message_id": message_id, "tool": tool_to_wire(tool)})
            if batch.offset is not None:
                text = batch.answer.text[batch.offset :]
                self.send({"type": "delta", "message_id": message_id, "offset": batch.offset, "text": text})

    def _end_turn(self, answer: ChatMessage) -> None:
        with self._lock:
            self._turn = None
            self.transcript = [*self.transcript[:-1], self._to_wire(answer)]
            self._refresh_status()
        if self._is_displayed:
            update_display(  # type: ignore[no-untyped-call] # untyped in IPython
                self._static_bundle(), raw=True, display_id=self._display_id
            )

    def _to_wire(self, message: ChatMessage) -> dict[str, Any]:
        trace_url = self._engine.trace_url(message.trace_id) if message.trace_id else None
        return message_to_wire(message, trace_url=trace_url)

    def _refresh_status(self) -> None:
        with self._lock:
            self.status = self._read_status()

    def _read_status(self) -> dict[str, Any]:
        engine, totals = self._engine, self._engine.totals
        usage = totals.usage
        return {
            "session_id": engine.session_id,
            "user_id": engine.user_id,
            "backend_state": engine.backend_state,
            "session_url": engine.session_url,
            "lm_name": engine.lm_name,
            "is_busy": self._turn is not None,
            "message_count": totals.message_count,
            "tokens": usage.input_tokens + usage.output_tokens,
            "cost_usd": usage.cost_usd,
            "latency_p50_s": totals.latency_p50_s,
            "texts": {**usage_texts(usage), "latency_p50": format_latency(totals.latency_p50_s)},
        }

    def _render_static(self) -> str:
        return render_static(self.transcript, self.status)

    def _static_bundle(self) -> dict[str, str]:
        return {"text/html": self._render_static(), "text/plain": ""}


def _interrupted(answer: ChatMessage) -> ChatMessage:
    return replace(
        answer,
        state="failed",
        error="The answer broke off because of an error inside the conversation; the kernel's log shows it. "
        "Send the message again.",
    )
