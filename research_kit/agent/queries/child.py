"""The process that runs SQL: started by `process`, as a program of its own.

Owns the database, which knows nothing but the tables that it is given. Invariant: a statement can read
these tables and nothing else: no file, no network, no setting, no secret of the environment; it changes
nothing, and it cannot use more memory than it is allowed. Imports nothing of research-kit, so that it
starts quickly.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

_CONFIG = {
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    # Else a name in a statement could be any variable of this program.
    "python_enable_replacements": "false",
    "temp_directory": "",
    # One, so that sums do not depend on which thread was first.
    "threads": "1",
}
_MAX_CHARACTERS = 1_000
_MAX_COLUMNS = 1_000
_MAX_ANSWER_BYTES = 8_000_000
_PARENT_POLL_S = 0.5


def main(parent: int, memory_bytes: int) -> int:
    """Answer what stands on standard input until it ends."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get between the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    limits = _Limits(memory_bytes)
    connection = duckdb.connect(":memory:", config={**_CONFIG, "memory_limit": f"{memory_bytes}B"})
    connection.execute("SET lock_configuration = true")
    tables = _Tables(connection, limits)
    _send(answers, {"is_ready": True})
    while (request := _receive(requests)) is not None:
        _send(answers, _answered(tables, request, requests))
    return 0


class _Tables:
    """The tables of one call, and what is asked about them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, limits: _Limits) -> None:
        self._database = connection
        self._limits = limits
        self._connection = connection.cursor()

    def forget(self) -> dict[str, Any]:
        self._connection.close()
        self._connection = self._database.cursor()
        return {"is_worn": self._limits.forget()}

    def load(self, name: str, size: int, stream: BinaryIO) -> dict[str, Any]:
        self._limits.allow(size)
        table = pa.ipc.open_stream(pa.PythonFile(stream, mode="r")).read_all()
        self._connection.register(name, table)
        return {}

    def parse(self, sql: str) -> dict[str, Any]:
        """Return what a statement is made of when it is a single SELECT."""
        statements = self._connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type.name != "SELECT":
            return {"error": "only a single SELECT statement is run."}
        [[tree]] = self._connection.execute("SELECT json_serialize_sql($1)", [statements[0].query]).fetchall()
        return {"tree": json.loads(tree)}

    def run(self, sql: str, parameters: dict[str, Any], row_count: int) -> dict[str, Any]:
        cursor = self._connection.execute(sql, parameters)
        names = [str(column[0]) for column in cursor.description or ()]
        rows = cursor.fetchmany(row_count)
        self._connection.abort()
        return {
            "columns": names,
            "rows": [[_plain(value) for value in row[:_MAX_COLUMNS]] for row in rows],
        }


def _answered(tables: _Tables, request: dict[str, Any], requests: BinaryIO) -> dict[str, Any]:
    action = request.pop("do")
    try:
        if action == "load":
            return tables.load(stream=requests, **request)
        if action == "parse":
            return tables.parse(**request)
        return tables.run(**request) if action == "run" else tables.forget()
    except MemoryError:
        return {"error": "out of memory", "is_memory": True}
    except duckdb.Error as error:
        return {
            "error": str(error)[:_MAX_CHARACTERS],
            "is_memory": isinstance(error, duckdb.OutOfMemoryException),
        }
    except (ValueError, pa.ArrowException, RecursionError) as error:
        return {"error": f"{type(error).__name__}: {str(error)[:_MAX_CHARACTERS]}"}


class _Limits:
    """The memory of this process, and the files it may write: none."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._used_at_start = _used_bytes()
        self._given_bytes = 0
        if sys.platform == "linux":
            _die_first()
        if sys.platform != "win32":
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        self.allow(0)

    def allow(self, more_bytes: int) -> None:
        """Allow a table besides: it does not count, being as large as the caller allows."""
        self._given_bytes += more_bytes
        if sys.platform != "linux":
            return  # where the limit means something else, the caller watches
        import resource

        limit = self._used_at_start + self._given_bytes + self._memory_bytes
        # The kernel may have a limit of its own, which is handed down and cannot be raised.
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, highest))

    def forget(self) -> bool:
        """Count no table any more; return True when too much memory stayed behind for another call."""
        self._given_bytes = 0
        self.allow(0)
        return _used_bytes() > self._used_at_start + self._memory_bytes // 4


def _used_bytes() -> int:
    """Return the memory that counts for the limit, where there is one."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 -- pathlib is slower to import
        return next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024


def _die_first() -> None:
    """When the machine runs out of memory, this process goes, not the kernel with the user's variables."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 -- as above
            score.write("1000")
    except OSError:
        pass  # not allowed in some containers


def _end_with(parent: int) -> None:
    """End when the kernel has gone, also in the middle of a statement."""
    while sys.platform == "win32" or os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(0)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_MAX_CHARACTERS]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)[:_MAX_CHARACTERS]


def _receive(stream: BinaryIO) -> dict[str, Any] | None:
    header = stream.read(4)
    if len(header) < 4:
        return None
    request: dict[str, Any] = json.loads(stream.read(*struct.unpack("!I", header)))
    return request


def _send(stream: BinaryIO, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    if len(body) > _MAX_ANSWER_BYTES:
        body = json.dumps({"error": f"the result is larger than {_MAX_ANSWER_BYTES} bytes"}).encode()
    stream.write(struct.pack("!I", len(body)) + body)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
