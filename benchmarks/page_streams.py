"""What the cells of `benchmarks.panel_page` run: the same tokens, streamed into a page in three ways.

Each ``open_...`` displays its view and returns what streams into it. Invariant: the first token is the time
in milliseconds, and the last is ``THE-END``, so that the page itself tells how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

END = "THE-END"
_WORDS = ("The ", "rows ", "of ", "each ", "table ", "were ", "count", "ed. ")
HISTORY_ANSWER = "An earlier answer of the conversation, as long as answers are. " * 10
READY = "nothing was said yet"


def prose_tokens(count: int) -> Iterator[str]:
    """Yield tokens as of English prose, of four to five characters, with a new paragraph now and then."""
    for number in range(count):
        yield _WORDS[number % 8] + "\n\n" * (number % 120 == 119)


def stream_tokens(count: int) -> Iterator[str]:
    """Yield `prose_tokens` between the time and the mark of the end."""
    yield f"t0={time.time() * 1000:.0f} "
    yield from prose_tokens(count - 2)
    yield END


def build_panel(history_count: int, get_tokens: Callable[[], Iterable[str]], pause_s: float = 0.0) -> Any:
    """Return the chat panel, with a conversation that answers with these tokens as fast as it can.

    Args:
        history_count: How many messages were said before.
        get_tokens: Returns the tokens of an answer.
        pause_s: How long after the last token the answer is over.
    """
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
            for token in get_tokens():
                yield Delta(text=token, offset=len(text))
                text += token
            time.sleep(pause_s)
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
                answer=HISTORY_ANSWER,
                error=None,
                usage=Usage(),
                latency_s=1.0,
                trace_id=str(number),
            )
            for number in range(history_count // 2)
        ]
    )
    return panel


def open_panel(history_count: int, token_count: int) -> Callable[[], None]:
    """Display the chat panel, with a conversation that answers as fast as it can."""
    panel = build_panel(history_count, lambda: stream_tokens(token_count))
    panel._ipython_display_()
    return lambda: panel.receive({"type": "send", "request_id": "r", "text": "q"})


def open_html(history_count: int, token_count: int) -> Callable[[], None]:
    """Display an ipywidgets value that is set anew with each token, as many notebooks do it."""
    import ipywidgets
    from IPython.display import display

    past = f"<p>{HISTORY_ANSWER}</p>" * history_count
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
        interface.send(HISTORY_ANSWER, user="Assistant", respond=False)
    interface.send(READY, user="Assistant", respond=False)
    display(interface)

    def run() -> None:
        message = None
        for token in stream_tokens(token_count):
            message = interface.stream(token, message=message, user="Assistant")

    return run
