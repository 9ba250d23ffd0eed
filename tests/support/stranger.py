"""A program of somebody else on a port of this machine, which notes all that it is sent.

Run as a script it gives up root's rights, so that it is a second user in earnest.
"""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
# What a server of this kind would answer, so that a client goes on if it can.
_ANSWER = b'{"data": [], "projectId": "p", "token": "t", "status": "OK", "version": "4.16.0", "proof": "0"}'


@dataclass
class Stranger:
    """What a running stranger was sent."""

    port: int
    heard: Path

    @property
    def bytes(self) -> bytes:
        return self.heard.read_bytes()


@contextmanager
def stranger_on(port: int, folder: Path) -> Iterator[Stranger]:
    """Let another user listen on ``port``."""
    heard = folder / f"heard-{port}"
    heard.touch()
    command = [sys.executable, __file__, str(port), str(heard)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == "listening"
            yield Stranger(port=port, heard=heard)
        finally:
            process.terminate()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        length = 0
        while line := self.rfile.readline():
            self._note(line)
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if not line.strip():
                self._note(self.rfile.read(length))
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                self.wfile.write(b"Content-Length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER))
                length = 0

    def _note(self, data: bytes) -> None:
        self.server.heard.write(data)  # type: ignore[attr-defined]
        self.server.heard.flush()  # type: ignore[attr-defined]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main(port: int, heard: Path) -> None:
    with heard.open("ab") as file, _Server(("127.0.0.1", port), _Handler) as server:
        server.heard = file  # type: ignore[attr-defined]
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
