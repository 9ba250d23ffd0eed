"""What a kernel publishes until an answer of 2,000 tokens is shown, measured inside the kernel's process.

Run by `benchmarks.panel_speed` as ``python -m benchmarks.panel_worker way history_count token_count``; prints
the seconds until the last token was on its way to the browser, and the bytes of all messages. The way
``engine`` prints instead the median seconds of a message that needs no language model, and 0.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import comm
from comm.base_comm import BaseComm

_HISTORY_ANSWER = "An earlier answer of the conversation, as long as answers are. " * 10


class CountingComm(BaseComm):
    """Counts what goes to the browser, as Jupyter would serialise it."""

    byte_count = 0
    last_s = 0.0

    def publish_msg(self, msg_type: str, data: Any = None, **keys: Any) -> None:
        """Count one message."""
        header = {"msg_id": "0" * 40, "session": "0" * 32, "date": "0" * 27, "msg_type": msg_type}
        content = {"comm_id": self.comm_id, "data": data or {}}
        message = {"header": header, "parent_header": header, "content": content}
        CountingComm.byte_count += len(json.dumps(message))
        CountingComm.last_s = time.perf_counter()


def main() -> None:
    """Measure one way and print its figures."""
    way, history_count, token_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    comm.create_comm = CountingComm
    measure = {"panel": _measure_panel, "html": _measure_html, "engine": _measure_engine}[way]
    # Tokens of English prose have about four characters and a half, with the space.
    words = ("The ", "rows ", "of ", "each ", "table ", "were ", "count", "ed. ")
    tokens = [words[number % 8] + "\n\n" * (number % 120 == 119) for number in range(token_count)]
    seconds, byte_count = measure(history_count, tokens)
    sys.stdout.write(f"{seconds}\n{byte_count}\n")


def _measure_panel(history_count: int, tokens: list[str]) -> tuple[float, int]:
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
            offset = 0
            for token in tokens:
                yield Delta(text=token, offset=offset)
                offset += len(token)
            # A model is slower than this loop: what streamed has left before the end is known.
            time.sleep(0.1)
            yield MessageFinished(answer="".join(tokens), usage=Usage(), latency_s=1.0, trace_id="t")

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
    whole = "".join(tokens)
    CountingComm.byte_count = 0
    begin_s = time.perf_counter()
    panel.receive({"type": "send", "request_id": "r", "text": "q"})
    shown = threading.Event()
    panel.observe(lambda change: change["new"]["is_busy"] or shown.set(), "status")
    while panel.messages[-1]["text"] != whole:
        time.sleep(0.001)
    seconds = time.perf_counter() - begin_s
    shown.wait(30)
    return seconds, CountingComm.byte_count


def _measure_engine(message_count: int, _tokens: list[str]) -> tuple[float, int]:
    import dspy

    from research_kit.chat.engine import Conversation

    class Parrot(dspy.Module):
        async def aforward(self, question: str, history: dspy.History) -> dspy.Prediction:
            return dspy.Prediction(answer=question)

    conversation = Conversation(lm=dspy.LM("openai/none", api_key="none"), assistant=Parrot())
    conversation.ask("The first message prepares everything.")
    seconds = []
    for number in range(message_count):
        begin_s = time.perf_counter()
        conversation.ask(f"question {number}")
        seconds.append(time.perf_counter() - begin_s)
    return statistics.median(seconds), 0


def _measure_html(history_count: int, tokens: list[str]) -> tuple[float, int]:
    import ipywidgets

    past = f"<p>{_HISTORY_ANSWER}</p>" * history_count
    widget = ipywidgets.HTML(value=past)
    CountingComm.byte_count = 0
    begin_s, text = time.perf_counter(), ""
    for token in tokens:
        text += token
        widget.value = f"{past}<p>{text}</p>"
    return CountingComm.last_s - begin_s, CountingComm.byte_count


if __name__ == "__main__":
    main()
