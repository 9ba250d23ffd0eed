"""What a kernel publishes until an answer of 2,000 tokens is shown, measured inside the kernel's process.

Run by `benchmarks.panel_speed` as ``python -m benchmarks.panel_worker way history_count token_count``; prints
the seconds until the last token was on its way to the browser, and the bytes of all messages. The way
``engine`` prints instead the median seconds of a message that needs no language model, and 0; ``stop`` those
from the first token to the end of an answer that is stopped then, and 0.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from typing import Any

import comm
from comm.base_comm import BaseComm

from benchmarks.page_streams import HISTORY_ANSWER, build_panel, prose_tokens


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
    measure = {
        "panel": _measure_panel,
        "html": _measure_html,
        "engine": _measure_engine,
        "stop": _measure_stop,
    }[way]
    seconds, byte_count = measure(history_count, list(prose_tokens(token_count)))
    sys.stdout.write(f"{seconds}\n{byte_count}\n")


def _measure_panel(history_count: int, tokens: list[str]) -> tuple[float, int]:
    # A model is slower than this loop: what streamed has left before the end is known.
    panel = build_panel(history_count, lambda: tokens, pause_s=0.1)
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


def _measure_stop(message_count: int, _tokens: list[str]) -> tuple[float, int]:
    from conversations import answer, conversation_of
    from scripted_lm import running_lm

    from research_kit.chat.events import Delta

    seconds = []
    with running_lm() as server:
        conversation = conversation_of(server)
        for number in range(message_count):
            # The model says no more before the answer is over.
            server.script(answer("one two three never ends", pause_before="never"))
            turn = conversation.send(f"Count {number}.")
            begin_s = 0.0
            for event in turn:
                if isinstance(event, Delta) and not begin_s:
                    begin_s = time.perf_counter()
                    turn.cancel()
            seconds.append(time.perf_counter() - begin_s)
        server.finish()
    return statistics.median(seconds), 0


def _measure_html(history_count: int, tokens: list[str]) -> tuple[float, int]:
    import ipywidgets

    past = f"<p>{HISTORY_ANSWER}</p>" * history_count
    widget = ipywidgets.HTML(value=past)
    CountingComm.byte_count = 0
    begin_s, text = time.perf_counter(), ""
    for token in tokens:
        text += token
        widget.value = f"{past}<p>{text}</p>"
    return CountingComm.last_s - begin_s, CountingComm.byte_count


if __name__ == "__main__":
    main()
