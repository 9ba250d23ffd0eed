"""A kernel that is killed loses nothing that had ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research_kit.cli import main

LOAD = "%load_ext research_kit\nimport research_kit as rk"
AWAY = {
    "LANGFUSE_PUBLIC_KEY": "pk",
    "LANGFUSE_SECRET_KEY": "sk",
    "LANGFUSE_BASE_URL": "http://127.0.0.1:9",
}


def session_of(kernel: Any) -> str:
    return kernel.run("print(rk.current_session_id())").strip()


def kill(kernel: Any) -> None:
    kernel.client.stop_channels()
    kernel.manager.provisioner.process.kill()
    kernel.manager.provisioner.process.wait()


def test_message_that_was_open_arrives_as_an_error(new_kernel: Callable[..., Any], store: Any) -> None:
    """A chat message in whose midst the kernel dies is delivered as an error, with its question."""
    kernel = new_kernel()
    kernel.run(LOAD)
    session_id = session_of(kernel)
    kernel.run(
        "import time, dspy\n"
        "class Slow(dspy.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.tool = dspy.Tool(lambda: 1, name='begun')\n"
        "    async def aforward(self, question, history):\n"
        "        import asyncio\n"
        "        await self.tool.acall()\n"
        "        await asyncio.sleep(600)\n"
        "lm = dspy.LM('openai/none', api_key='x')\n"
        "turn = rk.Conversation(lm=lm, assistant=Slow()).send('are you there?')\n"
    )
    rows = store.wait(1, sessionId=session_id, name="begun")
    kill(kernel)
    assert main(["deliver"]) == 0
    [row] = store.wait(1, traceId=rows[0]["traceId"], name="chat")
    assert (row["level"], row["statusMessage"]) == ("ERROR", "kernel died")
    assert json.loads(row["input"]) == "are you there?"


def test_deliver_sends_what_waits(
    new_kernel: Callable[..., Any],
    store: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """What a kernel could not deliver is shown by `status` and sent by `deliver`."""
    kernel = new_kernel(**AWAY)
    kernel.run(LOAD)
    # Langfuse's own client would keep a score in memory for a while.
    kernel.run(
        "for _ in range(3):\n    with rk.trace_span('work') as span: pass\nspan.score(name='q', value=1)"
    )
    assert kernel.run("rk.flush(0.1)") == "False"
    kill(kernel)
    assert main(["status"]) == 0
    waiting = int(capsys.readouterr().out.partition("waiting on disk: ")[2].split()[0])
    assert waiting == 5  # the work, its cell, and the score
    # The server of those keys is back, at the same address: the spool folder is that of the address.
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    assert main(["deliver", "--timeout", "2"]) == 1
    assert f"0 delivered, {waiting} waiting" in capsys.readouterr().out
    assert main(["status"]) == 0
    assert f"waiting on disk: {waiting} entries of 1" in capsys.readouterr().out
    # The key was another one than that of the server.
    for name in AWAY:
        monkeypatch.delenv(name)
    assert main(["deliver"]) == 0
    assert f"{waiting} wait for other keys; research-kit deliver --other-keys" in capsys.readouterr().out
    assert main(["deliver", "--other-keys"]) == 0
    assert f"{waiting} delivered, 0 waiting" in capsys.readouterr().out
    assert [row["name"] for row in store.read()].count("work") == 3
