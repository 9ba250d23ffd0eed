"""The tile of JupyterLab's launcher that opens the store's pages, by way of jupyter-server-proxy.

Owns a small server on a socket in a folder that only its user can open; jupyter-server-proxy has asked who
comes before it hands a request on. Invariant: it answers with nothing but the way to the store, whose link
opens once; the store is started when somebody comes.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from research_kit.config import load_settings
from research_kit.errors import ResearchKitError
from research_kit.store.lifecycle import ensure_running
from research_kit.store.links import opening_link

__all__ = ["serve_door", "server_proxy_entry"]


def server_proxy_entry() -> dict[str, Any]:
    """Return what jupyter-server-proxy needs to know of the tile, under its entry point."""
    return {
        "command": [sys.executable, "-m", __name__, "{unix_socket}"],
        "unix_socket": True,
        "new_browser_tab": True,
        "launcher_entry": {"title": "research-kit sessions", "path_info": "research-kit"},
    }


def serve_door(socket_path: Path) -> None:
    """Answer on ``socket_path`` until the process is ended."""
    from socketserver import ThreadingUnixStreamServer  # Windows has none

    with ThreadingUnixStreamServer(str(socket_path), _Door) as server:
        server.serve_forever()


class _Door(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Lead the browser to the store, below the path of the Jupyter server that it came from."""
        try:
            address = ensure_running(load_settings().data_dir)
            # Relative: an absolute path would be taken for one below this tile, and be logged with its token.
            up = "../" * urlsplit(self.path).path.count("/")
            link = opening_link(address, "/", root=f"{up}proxy/{urlsplit(address.base_url).port}")
        except ResearchKitError as error:
            self.send_error(503, explain=str(error))
            return
        self.send_response(302)
        self.send_header("Location", link)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no line per request: links in a log would open the pages."""


if __name__ == "__main__":
    serve_door(Path(sys.argv[1]))
