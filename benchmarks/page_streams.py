"""What the cells of `benchmarks.panel_page` run: the same tokens, streamed into a page in three ways.

Each ``open_...`` displays its view and returns what streams into it. Invariant: the first token is the time
in milliseconds, and the last is ``THE-END``, so that the page itself tells how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

END = "THE-END"
_WORDS = ("The ", "rows ", "of ", "each ", "table ", "were ", "count", "ed. ")
_HISTORY_ANSWER = "An earlier answer of the conversation, as long as answers are. " * 10
READY = "nothing was said yet"


def stream_tokens(count: int) -> Iterator[str]:
    """Yield tokens as of English prose, with a new paragraph now and then."""
    yield f"t0={time.time() * 1000:.0f} "
    for number in range(count - 2):
        yield _WORDS[number % 8] + "\n\n" * (number % 120 == 119)
    yield END


def open_panel(history_count: int, token_count: int) -> Callable[[], None]:
    """Display the chat panel, with a conversation that answers as fast as it can."""
    from research_kit.chat.engine import Conversation
    from research_kit.chat.events import Delta, Event, MessageFinished, MessageStarted, Usage
    from research_kit.chat.panel import ChatPanel
    from research_kit.chat.past import PastMessage

    class Turn:
        message_number = 1

        def cancel(self) -> None:
            """It is over at once."""

        def __iter__(self) -> Iterator[Event]:
            yield MessageStarted(message_number=1, text="q", trace_id="t")
            text = ""
            for token in stream_tokens(token_count):
                yield Delta(text=token, offset=len(text))
                text += token
            yield MessageFinished(answer=text, usage=Usage(), latency_s=1.0, trace_id="t")

    class Engine(Conversation):
        def send(self, text: str) -> Any:
            return Turn()

    panel = ChatPanel(Engine())
    panel.show_past(
        [
            PastMessage(
                message_number=number,
                question="An earlier question?",
                answer=_HISTORY_ANSWER,
                error=None,
                usage=Usage(),
                latency_s=1.0,
                trace_id=str(number),
            )
            for number in range(history_count // 2)
        ]
    )
    panel._ipython_display_()
    return lambda: panel.receive({"type": "send", "request_id": "r", "text": "q"})


def open_html(history_count: int, token_count: int) -> Callable[[], None]:
    """Display an ipywidgets value that is set anew with each token, as many notebooks do it."""
    import ipywidgets
    from IPython.display import display

    past = f"<p>{_HISTORY_ANSWER}</p>" * history_count
    widget = ipywidgets.HTML(value=f"{past}<p>{READY}</p>")
    display(widget)  # type: ignore[no-untyped-call]

    def run() -> None:
        text = ""
        for token in stream_tokens(token_count):
            text += token
            widget.value = f"{past}<p>{text}</p>"

    return run


def open_interface(history_count: int, token_count: int) -> Callable[[], None]:
    """Display Panel's ChatInterface and stream with its own method."""
    import panel
    from IPython.display import display

    panel.extension(inline=True)
    interface = panel.chat.ChatInterface()
    for _ in range(history_count // 2):
        interface.send("An earlier question?", respond=False)
        interface.send(_HISTORY_ANSWER, user="Assistant", respond=False)
    interface.send(READY, user="Assistant", respond=False)
    display(interface)

    def run() -> None:
        message = None
        for token in stream_tokens(token_count):
            message = interface.stream(token, message=message, user="Assistant")

    return run
