"""The program that runs SQL, as a process of the kernel.

Owns starting it, its pipes and its end; knows no SQL. Invariants: it inherits neither the kernel's standard
streams nor a secret of its environment, and it does not outlive the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from research_kit.agent.queries.answers import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["QueryProcess"]

_PROGRAM = Path(__file__).with_name("child.py")
# What Python needs to find its packages, and words to be in the user's language and time; no secrets.
_ENVIRONMENT = (
    "CONDA_PREFIX", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH",
    "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "USERPROFILE", "VIRTUAL_ENV",
)  # fmt: skip
_START_TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 10_000_000


class QueryProcess:
    """The running program.

    Args:
        memory_bytes: What a statement may use beside the tables that it gets.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), str(os.getpid()), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            # Arrow's own pools reserve more than they use.
            | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
            # An interrupt of the kernel is for the user's cell.
            start_new_session=True,
        )
        self.memory_limit_bytes = memory_bytes

    def answers(self) -> bool:
        """Let it forget the tables of a call; return False when it has gone, or should not be used again."""
        try:
            with self._ended_when_late():
                self.send({"do": "forget"})
                return not self.receive()["is_worn"]
        except (OSError, EOFError, ValueError):
            return False

    def await_ready(self) -> None:
        """Wait until it answers.

        Raises:
            QueryError: When it does not.
        """
        try:
            with self._ended_when_late():
                self.receive()
        except EOFError as error:
            raise QueryError(
                f"the program that runs queries, {_PROGRAM}, did not start: it ended with code "
                f"{self._process.wait()}. Is DuckDB installed for {sys.executable}?"
            ) from error

    @contextlib.contextmanager
    def _ended_when_late(self) -> Iterator[None]:
        late = threading.Timer(_START_TIMEOUT_S, self.end)
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()

    def send(self, request: dict[str, Any], table: pa.Table | None = None) -> None:
        """Send a request, and the table that belongs to it.

        Raises:
            OSError: When the program has gone.
        """
        stream = self._stream(self._process.stdin)
        body = json.dumps(request).encode()
        stream.write(struct.pack("!I", len(body)) + body)
        if table is not None:
            import pyarrow as pa

            with pa.ipc.new_stream(pa.PythonFile(stream, mode="w"), table.schema) as writer:
                writer.write_table(table)
        stream.flush()

    def receive(self) -> dict[str, Any]:
        """Return its answer, however long that takes.

        Raises:
            EOFError: When the program has gone.
        """
        stream = self._stream(self._process.stdout)
        header = stream.read(4)
        size = struct.unpack("!I", header)[0] if len(header) == 4 else 0
        if not 0 < size <= _MAX_ANSWER_BYTES:
            raise EOFError
        body = stream.read(size)
        if len(body) < size:
            raise EOFError
        answer: dict[str, Any] = json.loads(body)
        return answer

    def memory_bytes(self) -> int:
        """Return the memory it has, 0 when it has gone."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def end(self) -> None:
        """End it now; does nothing when it has gone."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            # Now: what is left to be written would be tried again, and complained about, much later.
            self._stream(self._process.stdin).close()

    def _stream(self, stream: Any) -> BinaryIO:
        opened: BinaryIO = stream
        return opened
